//! The laws that every summary keeps, down to the bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{
    BetaCounts, DdSketch, DecayedSum, Distinct, FirstLast, FixedHistogram, HeavyHitters, JointHistogram, Moments,
    NameCounts, Sample, SecondCounts, Summary, TransitionCounts,
};

fn of<S: Summary, E>(events: &[E], insert: &impl Fn(&mut S, &E)) -> S {
    let mut summary = S::default();
    events.iter().for_each(|event| insert(&mut summary, event));
    summary
}

fn merged<S: Summary>(a: &S, b: &S) -> S {
    let mut sum = a.clone();
    sum.merge(b);
    sum
}

/// Splits `events` by `part` and checks that merging the parts, in either nesting and either order, gives the bytes of
/// the summary that saw everything.
fn keeps_the_laws<S: Summary, E: Clone>(events: &[(E, u8)], insert: impl Fn(&mut S, &E)) -> Result<(), TestCaseError> {
    let all: Vec<E> = events.iter().map(|(event, _)| event.clone()).collect();
    let part =
        |p: u8| -> Vec<E> { events.iter().filter(|(_, q)| q % 3 == p).map(|(event, _)| event.clone()).collect() };
    let [a, b, c] = [0, 1, 2].map(|p| of(&part(p), &insert));
    let whole = of(&all, &insert);
    let backwards: Vec<E> = all.iter().rev().cloned().collect();

    let bytes = whole.to_bytes();
    prop_assert_eq!(&merged(&merged(&a, &b), &c).to_bytes(), &bytes, "(a b) c");
    prop_assert_eq!(&merged(&a, &merged(&b, &c)).to_bytes(), &bytes, "a (b c)");
    prop_assert_eq!(&merged(&merged(&c, &b), &a).to_bytes(), &bytes, "(c b) a");
    prop_assert_eq!(&of(&backwards, &insert).to_bytes(), &bytes, "backwards");
    prop_assert_eq!(&merged(&whole, &S::default()).to_bytes(), &bytes, "identity on the right");
    prop_assert_eq!(&merged(&S::default(), &whole).to_bytes(), &bytes, "identity on the left");
    prop_assert_eq!(S::from_bytes(&bytes).ok(), Some(whole.clone()), "read back");
    prop_assert_eq!(whole.is_empty(), events.is_empty());
    for cut in 0..bytes.len() {
        prop_assert!(S::from_bytes(&bytes[..cut]).is_err(), "cut at {} of {} was accepted", cut, bytes.len());
    }
    let mut longer = bytes.clone();
    longer.push(0);
    prop_assert!(S::from_bytes(&longer).is_err(), "a trailing byte was accepted");
    Ok(())
}

/// Whatever the bytes, reading ends in an error or in a summary whose bytes are those bytes.
fn survives<S: Summary>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(summary) = S::from_bytes(bytes) {
        prop_assert_eq!(summary.to_bytes(), bytes);
    }
    Ok(())
}

fn survives_as_any(bytes: &[u8]) -> Result<(), TestCaseError> {
    survives::<BetaCounts>(bytes)?;
    survives::<DdSketch>(bytes)?;
    survives::<DecayedSum>(bytes)?;
    survives::<Distinct>(bytes)?;
    survives::<FirstLast>(bytes)?;
    survives::<FixedHistogram>(bytes)?;
    survives::<HeavyHitters>(bytes)?;
    survives::<JointHistogram>(bytes)?;
    survives::<Moments>(bytes)?;
    survives::<NameCounts>(bytes)?;
    survives::<Sample>(bytes)?;
    survives::<SecondCounts>(bytes)?;
    survives::<TransitionCounts>(bytes)
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{0,2}", "\\PC{0,6}"]
}

/// A few of them repeat.
fn moment_ms() -> impl Strategy<Value = i64> {
    prop_oneof![0i64..5, -100_000i64..100_000, any::<i64>()]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0u64..200, 0u64..5_000_000, any::<u64>()]
}

proptest! {
    // More than the 512 events that are kept, in a few cases.
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn heavy_hitters_keep_the_laws(events in vec((name(), any::<u8>()), 0..700)) {
        let events: Vec<_> = events.into_iter().enumerate().map(|(id, (name, part))| ((name, id), part)).collect();
        keeps_the_laws(&events, |hitters: &mut HeavyHitters, (name, id)| hitters.insert(name, &id.to_string()))?;
    }
}

proptest! {
    #[test]
    fn ddsketch_keeps_the_laws(events in vec((value(), any::<u8>()), 0..120)) {
        keeps_the_laws(&events, |sketch: &mut DdSketch, value| sketch.insert(*value))?;
    }

    // Lengths around 32 matter: that is where values become cells.
    #[test]
    fn joint_histogram_keeps_the_laws(events in vec(((value(), value()), any::<u8>()), 0..80)) {
        keeps_the_laws(&events, |joint: &mut JointHistogram, (prompt, completion)| joint.insert(*prompt, *completion))?;
    }

    #[test]
    fn second_counts_keep_the_laws(events in vec((prop_oneof![0i64..60_000, any::<i64>()], any::<u8>()), 0..120)) {
        keeps_the_laws(&events, |counts: &mut SecondCounts, arrival_ms| counts.insert(*arrival_ms))?;
    }

    #[test]
    fn moments_keep_the_laws(events in vec((any::<i64>(), any::<u8>()), 0..120)) {
        keeps_the_laws(&events, |moments: &mut Moments, value| moments.insert(*value))?;
    }

    #[test]
    fn beta_counts_keep_the_laws(events in vec((any::<bool>(), any::<u8>()), 0..120)) {
        keeps_the_laws(&events, |counts: &mut BetaCounts, yes| counts.insert(*yes))?;
    }

    // One name is two of 256, so that some cases cross to registers and some parts do not.
    #[test]
    fn distinct_counts_keep_the_laws(events in vec((0u16..600, any::<u8>()), 0..20), many in prop_oneof![Just(0u16), 250u16..300]) {
        let more = (0..many).map(|n| (n, (n % 7) as u8));
        let events: Vec<_> = events.into_iter().chain(more).collect();
        keeps_the_laws(&events, |distinct: &mut Distinct, n| distinct.insert(&n.to_string()))?;
    }

    #[test]
    fn name_counts_keep_the_laws(events in vec((name(), any::<u8>()), 0..60)) {
        keeps_the_laws(&events, |counts: &mut NameCounts, name| counts.insert(name.clone()))?;
    }

    #[test]
    fn transition_counts_keep_the_laws(events in vec(((name(), name()), any::<u8>()), 0..40)) {
        keeps_the_laws(&events, |counts: &mut TransitionCounts, names| counts.insert(names.clone()))?;
    }

    #[test]
    fn samples_keep_the_laws(events in vec((0u16..400, any::<u8>()), 0..150)) {
        keeps_the_laws(&events, |sample: &mut Sample, id| sample.insert(&id.to_string()))?;
    }

    #[test]
    fn first_and_last_keep_the_laws(events in vec(((moment_ms(), name()), any::<u8>()), 0..40)) {
        keeps_the_laws(&events, |ends: &mut FirstLast, (ms, text)| ends.insert(*ms, text))?;
    }

    // The second setting is rare, so that most cases stay of one.
    #[test]
    fn histograms_keep_the_laws(events in vec(((any::<i64>(), prop::bool::weighted(0.01)), any::<u8>()), 0..60)) {
        keeps_the_laws(&events, |histogram: &mut FixedHistogram, (value, other)| {
            histogram.insert(if *other { &[0] } else { &[i64::MIN, -7, 0, 1_000, i64::MAX] }, *value);
        })?;
    }

    #[test]
    fn decayed_sums_keep_the_laws(
        events in vec(((any::<i64>(), moment_ms(), prop::bool::weighted(0.01)), any::<u8>()), 0..60)
    ) {
        keeps_the_laws(&events, |sum: &mut DecayedSum, (value, ms, other)| {
            sum.insert(*value, *ms, if *other { 60_000 } else { 2_000 });
        })?;
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(mut bytes in vec(any::<u8>(), 0..64), real_version: bool) {
        if real_version && let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        survives_as_any(&bytes)?;
    }

    #[test]
    fn small_numbers_as_bytes_are_an_error_or_canonical(tail in vec(0u8..4, 0..40)) {
        let bytes: Vec<u8> = std::iter::once(1).chain(tail).collect();
        survives_as_any(&bytes)?;
    }
}
