use proptest::prelude::*;

use super::*;
use crate::retention::PriorityStep;

fn class(tool: Option<&str>) -> Class {
    Class { system_prompt_hash: None, tool: tool.map(str::to_owned), stage: "1 to 4".to_owned() }
}

fn call(arrival_ms: i64, end_ms: i64, blocks: &[i64]) -> Call {
    Call { arrival_ms, end_ms, class: class(None), previous: None, blocks: blocks.to_vec() }
}

fn size(blocks: usize) -> Size {
    Size { blocks, pinned_blocks: blocks }
}

#[test]
fn the_last_blocks_of_the_oldest_prompt_go_first() {
    let calls = [
        call(0, 1, &[1, 2, 3]),
        call(10, 11, &[4]),
        // Takes the place of 3.
        call(20, 21, &[5]),
        call(30, 31, &[1, 2, 3]),
    ];
    let outcome = simulate(&calls, size(4), &Policy::Lru, 30);
    assert_eq!((outcome.requests, outcome.seen_blocks, outcome.hit_blocks), (1, 3, 2));
}

#[test]
fn blocks_in_use_stay_and_what_finds_no_room_is_not_kept() {
    let calls = [call(0, 100, &[1, 2]), call(10, 20, &[3]), call(30, 40, &[1, 2]), call(200, 201, &[3])];
    let outcome = simulate(&calls, size(2), &Policy::Lru, 30);
    assert_eq!((outcome.hit_blocks, outcome.seen_blocks), (2, 3));
}

#[test]
fn a_directive_keeps_blocks_for_its_time_and_no_longer() {
    let step = PriorityStep { until_s: 60.0, priority: 3, hits_per_held_s: 1.0, rises: false };
    let pinned = Directive { ttl_s: 60.0, steps: vec![step], ..Directive::default() };
    let policy = Policy::Directives(BTreeMap::from([(class(Some("search")), pinned)]));
    let calls = |again_ms: i64| {
        let tool = Call { class: class(Some("search")), ..call(0, 1_000, &[1, 2]) };
        vec![
            tool,
            call(2_000, 3_000, &[3, 4]),
            call(4_000, 5_000, &[5, 6]),
            call(again_ms - 500, again_ms - 100, &[7]),
            Call { previous: Some(0), ..call(again_ms, again_ms + 1, &[1, 2, 9]) },
        ]
    };
    let found = |again_ms, policy: &Policy| simulate(&calls(again_ms), size(4), policy, again_ms).resume_hit_blocks;
    assert_eq!(found(30_000, &Policy::Lru), 0);
    assert_eq!(found(30_000, &policy), 2);
    assert_eq!(found(90_000, &policy), 1, "one made room for 7, after the time was over");
    let fixed = |ttl_s| Policy::FixedTtl { ttl_s, tools_only: true };
    assert_eq!(found(30_000, &fixed(60.0)), 2);
    assert_eq!(found(30_000, &fixed(2.0)), 0);
    // No room for pins: as by last use.
    let none = Size { blocks: 4, pinned_blocks: 1 };
    let outcome = simulate(&calls(30_000), none, &policy, 30_000);
    assert_eq!((outcome.resume_hit_blocks, outcome.pins_lost), (0, 1));
}

#[test]
fn of_two_pinned_prompts_the_one_goes_whose_priority_has_fallen() {
    let step = |until_s, priority| PriorityStep { until_s, priority, hits_per_held_s: 1.0, rises: false };
    let directive = |steps| Directive { ttl_s: 600.0, steps, ..Directive::default() };
    let policy = Policy::Directives(BTreeMap::from([
        (class(Some("quick")), directive(vec![step(5.0, 9), step(600.0, 1)])),
        (class(Some("slow")), directive(vec![step(600.0, 5)])),
    ]));
    let of = |tool, arrival_ms, blocks: &[i64]| Call {
        class: class(Some(tool)),
        ..call(arrival_ms, arrival_ms + 10, blocks)
    };
    // Room is made for two blocks, early while `quick` is quick, or late.
    let found = |room_ms: i64| {
        let calls = [
            of("slow", 0, &[1, 2]),
            of("quick", 100, &[3, 4]),
            call(room_ms, room_ms + 10, &[5, 6]),
            Call { previous: Some(0), ..call(50_000, 50_001, &[1, 2]) },
            Call { previous: Some(1), ..call(50_000, 50_001, &[3, 4]) },
        ];
        // The two that ask again don't get in each other's way.
        let quick = [&calls[..3], &calls[4..]].concat();
        let hits = |calls: &[Call]| simulate(calls, size(4), &policy, 50_000).resume_hit_blocks;
        (hits(&calls[..4]), hits(&quick))
    };
    assert_eq!(found(1_000), (0, 2));
    assert_eq!(found(20_000), (2, 0));
}

#[test]
fn a_fixed_time_begins_anew_when_the_session_goes_on() {
    let calls = [
        call(0, 0, &[1, 2]),
        call(8_000, 8_000, &[1, 2, 3]),
        call(12_000, 12_000, &[8, 9]),
        call(15_000, 15_000, &[1, 2, 3]),
    ];
    let fixed = Policy::FixedTtl { ttl_s: 10.0, tools_only: false };
    assert_eq!(simulate(&calls, size(4), &fixed, 15_000).hit_blocks, 2);
}

#[test]
fn a_shared_block_keeps_the_higher_pin_and_is_in_use_while_anybody_uses_it() {
    let step = |until_s, priority| PriorityStep { until_s, priority, hits_per_held_s: 1.0, rises: false };
    let directive = |step| Directive { ttl_s: 600.0, steps: vec![step], ..Directive::default() };
    let policy = Policy::Directives(BTreeMap::from([
        (class(Some("quick")), directive(step(5.0, 100))),
        (class(Some("slow")), directive(step(600.0, 50))),
    ]));
    let of = |tool, arrival_ms, end_ms, blocks: &[i64]| Call {
        class: class(Some(tool)),
        ..call(arrival_ms, end_ms, blocks)
    };
    // Block 1 is both prompts'. The quick one's pin is over at 5 s; the slow one's holds the block then, as it does the rest.
    let calls = [
        of("quick", 0, 0, &[1, 2]),
        of("slow", 4_000, 4_500, &[1, 3]),
        call(6_000, 6_000, &[7, 8]),
        call(20_000, 20_000, &[1, 3]),
    ];
    assert_eq!(simulate(&calls, size(4), &policy, 20_000).hit_blocks, 2);
}

#[test]
fn sessions_show_in_the_blocks_where_nobody_names_them() {
    let prompts: [&[i64]; 7] = [
        &[1, 10, 11],
        // Goes on: the block that was not full is another now.
        &[1, 10, 12, 13],
        // Another session, with the same system prompt.
        &[1, 20, 21],
        &[1, 10, 12, 13, 14],
        &[30],
        // A system prompt and a question, twice.
        &[1, 40],
        &[1, 41],
    ];
    let prompts: Vec<Vec<i64>> = prompts.iter().map(|blocks| blocks.to_vec()).collect();
    assert_eq!(chain(&prompts), [None, Some(0), None, Some(1), None, None, None]);
}

#[test]
fn what_a_session_did_is_known_up_to_a_moment() {
    let calls = [
        call(0, 1_000, &[1]),
        Call { previous: Some(0), ..call(5_000, 6_000, &[1, 2]) },
        Call { previous: Some(1), ..call(9_000, 9_500, &[1, 2, 3]) },
    ];
    let known = answered(&calls, 8_000);
    let pauses: Vec<(Option<f64>, f64)> = known.iter().map(|one| (one.pause_s, one.watched_s)).collect();
    assert_eq!(pauses, [(Some(4.0), 7.0), (None, 2.0)]);
}

/// A cache by last use as one would write it first: a list, by request, blocks of a prompt from last to first.
fn by_the_book(calls: &[Call], capacity: usize) -> u64 {
    let (mut held, mut hits): (Vec<i64>, u64) = (Vec::new(), 0);
    for call in calls {
        hits += call.blocks.iter().take_while(|block| held.contains(block)).count() as u64;
        // In use together: as many as fit.
        for block in call.blocks.iter().rev() {
            held.retain(|other| other != block);
            held.insert(0, *block);
        }
        held.truncate(capacity);
    }
    hits
}

/// Prompts of sessions that take turns: each goes on from where it was.
fn sessions() -> impl Strategy<Value = Vec<Call>> {
    prop::collection::vec((0..6_i64, 1..4_usize), 1..60).prop_map(|turns| {
        let mut lengths = [1_usize; 6];
        turns
            .iter()
            .enumerate()
            .map(|(at, (session, more))| {
                let length = &mut lengths[*session as usize];
                *length += more;
                let blocks: Vec<i64> =
                    std::iter::once(0).chain((1..*length as i64).map(|i| session * 1_000 + i)).collect();
                let at_ms = at as i64 * 1_000;
                call(at_ms, at_ms + 1, &blocks)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn least_recently_used_is_what_the_book_says(calls in sessions(), capacity in 130..400_usize) {
        // Prompts are shorter than the cache: which of a prompt's blocks are kept when they don't fit is another matter.
        let outcome = simulate(&calls, size(capacity), &Policy::Lru, 0);
        prop_assert_eq!(outcome.hit_blocks, by_the_book(&calls, capacity));
    }

    #[test]
    fn who_sees_the_future_is_never_worse_and_nobody_finds_more_than_was_seen(
        calls in sessions(), capacity in 20..400_usize, ttl_s in 0.0..30.0,
    ) {
        let found = |policy: &Policy| simulate(&calls, size(capacity), policy, 0);
        let clairvoyant = found(&Policy::Clairvoyant);
        for policy in [Policy::Lru, Policy::FixedTtl { ttl_s, tools_only: false }] {
            let outcome = found(&policy);
            prop_assert!(outcome.hit_blocks <= clairvoyant.hit_blocks, "{:?} {:?}", outcome, clairvoyant);
            prop_assert!(outcome.hit_blocks <= outcome.seen_blocks);
            prop_assert!(outcome.pinned_blocks_max <= capacity as u64);
        }
        let endless = simulate(&calls, size(100_000), &Policy::Lru, 0);
        prop_assert_eq!(endless.hit_blocks, endless.seen_blocks);
    }
}
