//! The laws that every summary keeps, down to the bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{DdSketch, JointHistogram, SecondCounts, Summary};

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

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0u64..200, 0u64..5_000_000, any::<u64>()]
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
    fn garbage_is_an_error_and_never_a_panic(mut bytes in vec(any::<u8>(), 0..64), real_version: bool) {
        if real_version && let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        survives::<DdSketch>(&bytes)?;
        survives::<JointHistogram>(&bytes)?;
        survives::<SecondCounts>(&bytes)?;
    }

    #[test]
    fn small_numbers_as_bytes_are_an_error_or_canonical(tail in vec(0u8..4, 0..40)) {
        let bytes: Vec<u8> = std::iter::once(1).chain(tail).collect();
        survives::<DdSketch>(&bytes)?;
        survives::<JointHistogram>(&bytes)?;
        survives::<SecondCounts>(&bytes)?;
    }
}
