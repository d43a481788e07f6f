use super::*;

fn class(tool: &str) -> Class {
    Class { system_prompt_hash: None, tool: Some(tool.to_owned()), stage: "1 to 4".to_owned() }
}

fn answered(tool: &str, pause_s: Option<f64>, watched_s: f64) -> Answered {
    Answered { class: class(tool), pause_s, watched_s, blocks: 10.0 }
}

/// Sessions of one class that go on after exponential pauses of mean `mean_s`, at the quantiles of that law.
fn exponential(tool: &str, mean_s: f64, sessions: usize) -> Vec<Answered> {
    let pause = |i: usize| -mean_s * (1.0 - (i as f64 + 0.5) / sessions as f64).ln();
    (0..sessions).map(|i| answered(tool, Some(pause(i)), 1e9)).collect()
}

/// A budget of pins alone.
fn pinned(span_s: f64, pinned_blocks: f64) -> Budget {
    Budget { pinned_blocks, other_blocks: 0.0, span_s }
}

#[test]
fn the_curve_of_exponential_pauses_is_theirs() {
    // Closed form: R(t) = 1 - exp(-t / m), H(t) = m R(t).
    let curves = resumption(&exponential("search", 20.0, 20_000));
    let curve = &curves[&class("search")];
    for ((age_s, resumed), held_s) in AGES_S.iter().zip(&curve.resumed).zip(&curve.held_s) {
        let expected = 1.0 - (-age_s / 20.0).exp();
        assert!((resumed - expected).abs() < 1e-3, "{age_s}: {resumed} {expected}");
        // The trapezium of the waiting share is a little above its integral, where intervals are wide.
        assert!(
            (held_s - 20.0 * expected).abs() < 0.02 * 20.0 * expected + 0.5,
            "{age_s}: {held_s} {}",
            20.0 * expected
        );
    }
}

#[test]
fn who_is_not_watched_to_the_end_does_not_bend_the_curve() {
    // All pause 20 s on average; half are watched for 10 s only.
    let mut requests = exponential("search", 20.0, 20_000);
    for request in requests.iter_mut().step_by(2) {
        request.watched_s = 10.0;
        request.pause_s = request.pause_s.filter(|pause_s| *pause_s <= 10.0);
    }
    let curve = &resumption(&requests)[&class("search")];
    for (age_s, resumed) in AGES_S.iter().zip(&curve.resumed) {
        let expected = 1.0 - (-age_s / 20.0).exp();
        assert!((resumed - expected).abs() < 2e-3, "{age_s}: {resumed} {expected}");
    }
}

#[test]
fn a_class_without_evidence_does_as_its_tool_does() {
    let mut requests = exponential("search", 2.0, 5_000);
    requests.extend(exponential("build", 200.0, 5_000));
    let mut rare = answered("search", None, 1e9);
    rare.class.system_prompt_hash = Some("new".to_owned());
    requests.push(rare.clone());
    let curves = resumption(&requests);
    let at_10_s = |class: &Class| curves[class].resumed[7];
    assert!((at_10_s(&rare.class) - at_10_s(&class("search"))).abs() < 0.1, "{}", at_10_s(&rare.class));
    assert!(at_10_s(&class("build")) < 0.1);
}

#[test]
fn blocks_are_pinned_where_they_save_most_for_their_time() {
    // One request of each class a second. To hold 10 blocks of `quick` for good takes 10 x 2 = 20 blocks on average; of `slow`
    // 10 x 200. A budget of 30 pins the quick ones to the end, and gives the rest to the slow ones.
    let mut requests = exponential("quick", 2.0, 2_000);
    requests.extend(exponential("slow", 200.0, 2_000));
    let directives = plan(&resumption(&requests), pinned(2_000.0, 30.0));
    let (quick, slow) = (&directives[&class("quick")], &directives[&class("slow")]);
    assert!(quick.resumed > 0.99 && quick.ttl_s >= 10.0, "{quick:?}");
    assert!(quick.steps.windows(2).all(|two| two[0].until_s < two[1].until_s), "{quick:?}");
    // Of the slow ones there is room for some, to the end.
    assert!(slow.share < 0.5 && slow.share > 0.0 && quick.share == 1.0, "{slow:?}");
    assert!(quick.priority() > slow.priority(), "{quick:?} {slow:?}");
    // A little more than 20: whoever waits for long after a quick tool is judged by all that wait for long.
    assert!((20.0..25.0).contains(&quick.pinned_blocks), "{quick:?}");
    assert!((quick.pinned_blocks + slow.pinned_blocks - 30.0).abs() < 1e-9);

    let nothing = plan(&resumption(&requests), pinned(2_000.0, 0.0));
    assert!(nothing.values().all(|directive| directive.ttl_s == 0.0 && directive.priority() == 0));
}

#[test]
fn greedy_steps_save_no_less_than_the_best_choice_of_ages() {
    // Three classes and a budget that binds; every combination of ages by brute force.
    let mut requests = exponential("a", 3.0, 500);
    requests.extend(exponential("b", 30.0, 300));
    // Half of c go on after exactly a minute, the others never: nothing to be had before.
    requests.extend((0..200).map(|i| answered("c", (i % 2 == 0).then_some(60.0), 1e9)));
    let curves = resumption(&requests);
    let (span_s, budget) = (1_000.0, 150.0);
    let saved = |curve: &Resumption, age: Option<usize>| {
        age.map_or(0.0, |age| curve.requests as f64 * curve.blocks_mean * curve.resumed[age])
    };
    let held =
        |curve: &Resumption, age: Option<usize>| age.map_or(0.0, |age| curve.held_blocks(span_s, curve.held_s[age]));
    let ages: Vec<Option<usize>> = std::iter::once(None).chain((0..AGES_S.len()).map(Some)).collect();
    let all: Vec<&Resumption> = curves.values().collect();
    let mut best = 0.0_f64;
    for a in &ages {
        for b in &ages {
            for c in &ages {
                let chosen = [(all[0], *a), (all[1], *b), (all[2], *c)];
                if chosen.iter().map(|(curve, age)| held(curve, *age)).sum::<f64>() <= budget {
                    best = best.max(chosen.iter().map(|(curve, age)| saved(curve, *age)).sum());
                }
            }
        }
    }
    let directives = plan(&curves, pinned(span_s, budget));
    // Of the class that fills the budget, some go all the way; up to where the others end is in neither figure.
    let ours: f64 = directives
        .iter()
        .map(|(class, directive)| curves[class].requests as f64 * 10.0 * directive.share * directive.resumed)
        .sum();
    // To pin a part of the requests of a class is more than brute force can do.
    assert!(ours >= 0.95 * best && ours <= 1.1 * best, "{ours} of {best}");
}

#[test]
fn what_is_kept_by_last_use_alone_needs_no_pin() {
    // Half go on after 4 s, half after 40 s. One of each 10 blocks a second: by last use 100 blocks keep each for 10 s.
    let requests: Vec<Answered> =
        (0..2_000).map(|i| answered("tool", Some(if i % 2 == 0 { 4.0 } else { 40.0 }), 1e9)).collect();
    let curves = resumption(&requests);
    let with = |other_blocks| plan(&curves, Budget { pinned_blocks: 50.0, other_blocks, span_s: 2_000.0 });
    let alone = &with(0.0)[&class("tool")];
    assert!(alone.ttl_s == 45.0 && alone.share < 0.1, "{alone:?}");
    let beside = &with(100.0)[&class("tool")];
    assert!(beside.ttl_s == 45.0 && beside.share > 2.0 * alone.share, "{beside:?}");
    // In a rush, those that are about to go on come first all the same.
    assert!(beside.steps[0].until_s == 5.0 && beside.steps[0].priority > beside.steps[1].priority, "{beside:?}");
    assert!(beside.steps.iter().all(|step| step.rises), "nobody goes on in the beginning of either wait");
}
