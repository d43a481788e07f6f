//! When a cheap answer is served, when the strong model is asked, and what happens where it has no time.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeMap;

use common::{bundle, cascade};
use proptest::prelude::*;
use weir_policy_runtime::{
    Answer, Bundle, CASCADE_FILE, Cascade, CascadeAction, CascadeDecision, CascadeReason, CascadeRequest, Context,
    EscalationGate, Fallback, PoolState,
};

const FINE: PoolState = PoolState {
    as_of_ms: 0,
    engine_waiting: Some(1.0),
    queue_wait_ms: Some(50.0),
    ttft_base_ms: Some(100.0),
    prefill_tokens_per_s: Some(10_000.0),
};
/// Over both limits of the test's cascade; 4,000 tokens take 900 + 100 + 400 ms.
const OVER: PoolState = PoolState { engine_waiting: Some(20.0), queue_wait_ms: Some(900.0), ..FINE };

/// Not accepted; 4,000 tokens, of which compression takes 3,000 away.
fn request() -> CascadeRequest {
    CascadeRequest {
        accept_score: 0.3,
        ttft_budget_left_ms: 1_200.0,
        prompt_tokens: Some(4_000),
        compressible_tokens: Some(3_000),
        mid_accept_score: Some(0.9),
    }
}

fn at(pool: PoolState, now_ms: i64) -> PoolState {
    PoolState { as_of_ms: now_ms, ..pool }
}

/// An overload long enough to close the gate, up to 10,000 ms.
fn closed(cascade: &Cascade) -> EscalationGate {
    let mut gate = EscalationGate::default();
    for now_ms in (0..=10_000).step_by(500) {
        gate.observe(&cascade.limits, &at(OVER, now_ms), now_ms);
    }
    assert!(!gate.is_open());
    gate
}

fn decide(request: &CascadeRequest, pool: PoolState) -> CascadeDecision {
    cascade().decide(&mut EscalationGate::default(), request, &pool, None, 0)
}

fn is(action: CascadeAction, reason: CascadeReason) -> CascadeDecision {
    CascadeDecision { action, reason }
}

#[test]
fn a_trusted_answer_is_served_and_another_escalates_in_time() {
    let trusted = CascadeRequest { accept_score: 0.8, ..request() };
    assert_eq!(decide(&trusted, FINE), is(CascadeAction::ServeCheap, CascadeReason::Accepted));
    assert_eq!(decide(&request(), FINE), is(CascadeAction::Escalate, CascadeReason::InTime));
    let no_number = CascadeRequest { accept_score: f64::NAN, ..request() };
    assert_eq!(decide(&no_number, FINE).action, CascadeAction::Escalate);
}

#[test]
fn without_a_safe_threshold_everything_escalates() {
    let cautious = Cascade { threshold: None, ..cascade() };
    let certain = CascadeRequest { accept_score: 1.0, ..request() };
    let decided = cautious.decide(&mut EscalationGate::default(), &certain, &FINE, None, 0);
    assert_eq!(decided, is(CascadeAction::Escalate, CascadeReason::InTime));
}

#[test]
fn the_first_token_comes_after_wait_base_and_prefill() {
    // 50 + 100 + 4,000 / 10 = 550 ms.
    assert_eq!(FINE.expected_ttft_ms(4_000), Some(550.0));
    let left = |ms| CascadeRequest { ttft_budget_left_ms: ms, ..request() };
    assert_eq!(decide(&left(550.0), FINE).action, CascadeAction::Escalate);
    assert_eq!(decide(&left(549.0), FINE).reason, CascadeReason::BudgetTooShort);
    assert_eq!(decide(&left(f64::NAN), FINE).reason, CascadeReason::BudgetTooShort);
}

#[test]
fn unknown_is_not_slow_but_a_part_that_is_known_counts() {
    let nothing_known = PoolState { as_of_ms: 0, ..PoolState::default() };
    assert_eq!(decide(&request(), nothing_known), is(CascadeAction::Escalate, CascadeReason::TimeUnknown));
    let wait_alone = PoolState { queue_wait_ms: Some(300.0), ..nothing_known };
    let hasty = CascadeRequest { ttft_budget_left_ms: 200.0, ..request() };
    assert_eq!(decide(&request(), wait_alone).reason, CascadeReason::TimeUnknown);
    assert_eq!(decide(&hasty, wait_alone).reason, CascadeReason::BudgetTooShort);
    // Too old to say anything: 5,000 ms are allowed. So are they to a clock that is ahead.
    for (now_ms, reason) in [
        (5_000, CascadeReason::WithinGrace),
        (5_001, CascadeReason::TimeUnknown),
        (-5_000, CascadeReason::WithinGrace),
        (-5_001, CascadeReason::TimeUnknown),
    ] {
        let mut gate = EscalationGate::default();
        assert_eq!(cascade().decide(&mut gate, &request(), &OVER, None, now_ms).reason, reason, "{now_ms}");
    }
    let absurd = PoolState { queue_wait_ms: Some(f64::NAN), ttft_base_ms: Some(-1.0), ..FINE };
    assert_eq!(decide(&request(), absurd).reason, CascadeReason::TimeUnknown);
}

#[test]
fn a_short_overload_does_not_stop_escalation_and_a_long_one_does() {
    let cascade = cascade();
    let mut gate = EscalationGate::default();
    let mut decide = |pool, now_ms| cascade.decide(&mut gate, &request(), &at(pool, now_ms), None, now_ms);
    // Grace is 2,000 ms, recovery 8,000 ms.
    assert_eq!(decide(OVER, 0), is(CascadeAction::Escalate, CascadeReason::WithinGrace));
    assert_eq!(decide(OVER, 1_999).reason, CascadeReason::WithinGrace);
    assert_eq!(decide(FINE, 2_000).reason, CascadeReason::InTime);
    assert_eq!(decide(OVER, 2_001).reason, CascadeReason::WithinGrace, "the period begins anew");
    assert_eq!(decide(OVER, 4_000).reason, CascadeReason::WithinGrace);
    assert_eq!(decide(OVER, 4_001).reason, CascadeReason::PoolOverloaded);
    // Fine at once is not fine for long enough; one step above the resume level begins anew.
    assert_eq!(decide(FINE, 5_000).reason, CascadeReason::PoolOverloaded);
    assert_eq!(decide(PoolState { engine_waiting: Some(5.0), ..FINE }, 9_000).reason, CascadeReason::PoolOverloaded);
    assert_eq!(decide(FINE, 10_000).reason, CascadeReason::PoolOverloaded);
    assert_eq!(decide(FINE, 14_000).reason, CascadeReason::PoolOverloaded);
    assert_eq!(decide(FINE, 17_999).reason, CascadeReason::PoolOverloaded);
    assert_eq!(decide(FINE, 18_000), is(CascadeAction::Escalate, CascadeReason::InTime));
}

#[test]
fn what_nobody_saw_is_no_period_and_what_nobody_measures_any_more_reopens() {
    let limits = cascade().limits;
    let see = |gate: &mut EscalationGate, pool, now_ms| {
        gate.observe(&limits, &pool, now_ms);
        gate.is_open()
    };
    // Grace is 2,000 ms, recovery 8,000 ms; 5,000 ms make a state stale.
    let mut gate = EscalationGate::default();
    assert!(see(&mut gate, at(OVER, 0), 0));
    assert!(see(&mut gate, at(OVER, 5_001), 5_001), "over twice, and nobody knows what was in between");
    assert!(!see(&mut gate, at(OVER, 7_001), 7_001));
    assert!(!see(&mut gate, at(FINE, 8_000), 8_000));
    assert!(!see(&mut gate, at(FINE, 16_000), 16_000), "fine twice, with 8,000 ms in between");
    assert!(!see(&mut gate, at(FINE, 19_999), 19_999));
    assert!(!see(&mut gate, PoolState::default(), 22_000), "the state is from 0, and stale");
    assert!(see(&mut gate, at(FINE, 24_000), 24_000), "a gap of 4,001 ms breaks no period");
    // Once closed, and measured no more.
    let mut gate = closed(&cascade());
    assert!(!see(&mut gate, at(OVER, 10_000), 17_999));
    assert!(see(&mut gate, at(OVER, 10_000), 18_000));
    // A clock that steps back starts the time again.
    let mut gate = closed(&cascade());
    assert!(!see(&mut gate, at(OVER, -90_000), 1_000));
    assert!(!see(&mut gate, at(OVER, -90_000), 8_999));
    assert!(see(&mut gate, at(OVER, -90_000), 9_000));
}

#[test]
fn fallbacks_are_tried_in_the_operators_order() {
    let after = |fallbacks: &[Fallback], request: &CascadeRequest, mid: Option<PoolState>| {
        let cascade = Cascade { fallbacks: fallbacks.to_vec(), ..cascade() };
        let mut gate = closed(&cascade);
        let strong = at(OVER, 10_000);
        let mid = mid.map(|mid| at(mid, 10_000));
        cascade.decide(&mut gate, request, &strong, mid.as_ref(), 10_000)
    };
    let both = [Fallback::CompressAndRetry, Fallback::MidTier];
    let overloaded = |action| is(action, CascadeReason::PoolOverloaded);
    // 1,000 tokens are left: 900 + 100 + 100 ms are in time.
    assert_eq!(after(&both, &request(), Some(FINE)), overloaded(CascadeAction::CompressAndRetry));
    assert_eq!(
        after(&[Fallback::MidTier, Fallback::CompressAndRetry], &request(), Some(FINE)),
        overloaded(CascadeAction::MidTier)
    );
    assert_eq!(after(&[Fallback::ServeCheap], &request(), Some(FINE)), overloaded(CascadeAction::ServeCheap));
    assert_eq!(after(&[], &request(), Some(FINE)), overloaded(CascadeAction::ServeCheap));
    // What compression frees is too little: 2,500 tokens take 1,250 ms.
    let stubborn = CascadeRequest { compressible_tokens: Some(1_500), ..request() };
    assert_eq!(after(&both, &stubborn, Some(FINE)), overloaded(CascadeAction::MidTier));
    let unknown = CascadeRequest { compressible_tokens: None, ..request() };
    assert_eq!(after(&both, &unknown, Some(FINE)), overloaded(CascadeAction::MidTier));
    // The model in between needs headroom, time and its own threshold (0.7), all of them known.
    let mid_only = [Fallback::MidTier];
    let doubtful = |score| CascadeRequest { mid_accept_score: score, ..request() };
    for (request, mid) in [
        (request(), Some(OVER)),
        (request(), None),
        (request(), Some(PoolState { engine_waiting: None, queue_wait_ms: None, ..FINE })),
        (CascadeRequest { ttft_budget_left_ms: 500.0, ..request() }, Some(FINE)),
        (doubtful(Some(0.69)), Some(FINE)),
        (doubtful(None), Some(FINE)),
    ] {
        assert_eq!(after(&mid_only, &request, mid), overloaded(CascadeAction::ServeCheap), "{request:?} {mid:?}");
    }
    assert_eq!(after(&mid_only, &doubtful(Some(0.7)), Some(FINE)), overloaded(CascadeAction::MidTier));
}

#[test]
fn the_accept_score_is_its_formula() {
    // Domain math, 99 prompt tokens, 9 tokens of answer, no verifier. Log odds by hand: 0.5 + 1.0 (math)
    // + 0.4 · (ln 100 - 5) / 1.5 + 0.8 · (ln 10 - 2) / 0.5 + 0.3 (no verifier) = 2.178852; the logistic of it is 0.898326.
    let accept = cascade().accept;
    let context = Context { domain: Some("math"), prompt_tokens: Some(99), ..Context::default() };
    let answer = Answer { completion_tokens: Some(9), verifier_score: None };
    let mut scratch = Vec::new();
    let mut columns = vec![0.0; accept.width()];
    accept.encode(&context, &answer, &mut columns);
    let log_odds = 0.5 + 1.0 + 0.4 * (100.0_f64.ln() - 5.0) / 1.5 + 0.8 * (10.0_f64.ln() - 2.0) / 0.5 + 0.3;
    let raw = 1.0 / (1.0 + (-log_odds).exp());
    assert!((accept.raw(&columns) - raw).abs() < 1e-6, "{} by hand {raw}", accept.raw(&columns));
    // On the line from (0.2, 0.1) to (0.9, 0.8), and a hundredth of itself.
    let calibrated = 0.99 * (raw - 0.1) + 0.01 * raw;
    assert!((accept.score(&context, &answer, &mut scratch) - calibrated).abs() < 1e-6);
    for (raw, on_the_line) in [(0.0, 0.1), (0.2, 0.1), (0.9, 0.8), (1.0, 0.8)] {
        assert!((accept.calibrated(raw) - 0.99 * on_the_line - 0.01 * raw).abs() < 1e-12, "flat beyond the ends");
    }
}

#[test]
fn a_bundle_brings_it_and_what_makes_no_sense_is_refused() {
    let plain = bundle();
    assert!(Cascade::of_bundle(&plain).unwrap().is_none());
    let json = cascade().to_json().unwrap();
    let mut files: BTreeMap<String, Vec<u8>> = plain.files.clone();
    files.insert(CASCADE_FILE.to_owned(), json);
    let with_it = Bundle::build(plain.manifest.clone(), files).unwrap();
    let carried = Bundle::from_tar(&with_it.to_tar()).unwrap();
    assert_eq!(Cascade::of_bundle(&carried).unwrap(), Some(cascade()));

    type Spoil = fn(&mut Cascade);
    let spoilt: [(Spoil, &str); 10] = [
        (|c| c.schema = 2, "schema 2"),
        (|c| c.threshold = Some(1.5), "threshold"),
        (|c| c.evidence.alpha = -0.1, "alpha"),
        (|c| c.accept.weights.truncate(3), "3 weights"),
        (|c| c.accept.bias = f64::NAN, "not finite"),
        (|c| c.accept.calibration = vec![(0.2, 0.5), (0.4, 0.4)], "never fall"),
        (|c| c.limits.engine_waiting_resume = 99.0, "resume"),
        (|c| c.limits.grace_ms = -1, "grace_ms"),
        (|c| c.mid_tier = None, "there is none"),
        (|c| c.fallbacks = vec![Fallback::ServeCheap; 2], "twice"),
    ];
    for (spoil, expected) in spoilt {
        let mut bad = cascade();
        spoil(&mut bad);
        let written = bad.to_json().unwrap_err().to_string();
        assert!(written.contains(expected), "{written} lacks {expected}");
        if let Ok(bytes) = serde_json::to_vec(&bad) {
            assert!(Cascade::from_json(&bytes).is_err(), "{expected}");
        }
    }
}

fn any_measure() -> impl Strategy<Value = Option<f64>> {
    prop::option::of(prop_oneof![4 => 0.0..2_000.0, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(-1.0)])
}

prop_compose! {
    fn any_pool()(
        age_ms in 0i64..8_000, engine_waiting in any_measure(), queue_wait_ms in any_measure(),
        ttft_base_ms in any_measure(), prefill_tokens_per_s in any_measure(),
    ) -> (i64, PoolState) {
        (age_ms, PoolState { as_of_ms: 0, engine_waiting, queue_wait_ms, ttft_base_ms, prefill_tokens_per_s })
    }
}

prop_compose! {
    fn any_request()(
        accept_score in prop_oneof![0.0..=1.0, Just(f64::NAN)],
        ttft_budget_left_ms in prop_oneof![-100.0..3_000.0, Just(f64::NAN)],
        prompt_tokens in prop::option::of(0u32..200_000), compressible_tokens in prop::option::of(0u32..200_000),
        mid_accept_score in prop::option::of(0.0..=1.0),
    ) -> CascadeRequest {
        CascadeRequest { accept_score, ttft_budget_left_ms, prompt_tokens, compressible_tokens, mid_accept_score }
    }
}

proptest! {
    /// The laws, whatever the order of events: only what is trusted is accepted, nothing escalates through a closed gate or with too
    /// little time, and what falls back meets its conditions.
    #[test]
    fn every_decision_keeps_the_laws(steps in prop::collection::vec((0i64..3_000, any_pool(), any_pool(), any_request()), 1..60)) {
        let cascade = cascade();
        let (mut gate, mut now_ms) = (EscalationGate::default(), 0);
        for (wait_ms, (age_ms, strong), (mid_age_ms, mid), request) in steps {
            now_ms += wait_ms;
            let (strong, mid) = (at(strong, now_ms - age_ms), at(mid, now_ms - mid_age_ms));
            let CascadeDecision { action, reason } = cascade.decide(&mut gate, &request, &strong, Some(&mid), now_ms);
            prop_assert_eq!(reason == CascadeReason::Accepted, request.accept_score >= 0.6);
            prop_assert!(reason != CascadeReason::Accepted || action == CascadeAction::ServeCheap);
            let escalates = [CascadeReason::InTime, CascadeReason::TimeUnknown, CascadeReason::WithinGrace];
            prop_assert_eq!(action == CascadeAction::Escalate, escalates.contains(&reason));
            let ttft = |pool: &PoolState, tokens: Option<u32>| tokens.and_then(|tokens| pool.expected_ttft_ms(tokens));
            match action {
                CascadeAction::Escalate => {
                    prop_assert!(gate.is_open());
                    prop_assert!(request.ttft_budget_left_ms >= 0.0, "no time is left");
                    if reason == CascadeReason::InTime {
                        prop_assert!(ttft(&strong, request.prompt_tokens).is_some_and(|ms| ms <= request.ttft_budget_left_ms));
                    }
                }
                CascadeAction::CompressAndRetry => {
                    let left = request.prompt_tokens.zip(request.compressible_tokens).map(|(all, off)| all.saturating_sub(off));
                    prop_assert!(ttft(&strong, left).is_some_and(|ms| ms <= request.ttft_budget_left_ms));
                    prop_assert!(request.compressible_tokens > Some(0));
                }
                CascadeAction::MidTier => {
                    prop_assert!(request.mid_accept_score >= Some(0.7));
                    prop_assert!(ttft(&mid, request.prompt_tokens).is_some_and(|ms| ms <= request.ttft_budget_left_ms));
                }
                CascadeAction::ServeCheap => {}
            }
        }
    }

    /// An overload that never lasts as long as the grace period never closes the gate; once closed it stays so until the pool has been
    /// fine, or unknown, for the whole recovery period. Two states with a longer gap than a state lives make no period.
    #[test]
    fn the_gate_keeps_its_periods(
        steps in prop::collection::vec((prop_oneof![5 => 0i64..1_500, 1 => 3_000i64..9_000], 0usize..4), 1..200),
    ) {
        let limits = cascade().limits;
        let unknown = PoolState::default();
        let pools = [FINE, PoolState { engine_waiting: Some(5.0), ..FINE }, OVER, unknown];
        let (mut gate, mut now_ms) = (EscalationGate::default(), 0);
        let mut known_ms = 0;
        // Since when the pool has been over, and fine, on end.
        let (mut over_since, mut fine_since) = (None, None);
        for (wait_ms, kind) in steps {
            now_ms += wait_ms;
            let before = gate.is_open();
            gate.observe(&limits, &at(pools[kind], now_ms), now_ms);
            if kind == 3 {
                prop_assert_eq!(gate.is_open(), before || now_ms - known_ms >= limits.recovery_ms);
                if before != gate.is_open() {
                    (over_since, fine_since) = (None, None);
                }
                continue;
            }
            if now_ms - known_ms > limits.stale_after_ms {
                (over_since, fine_since) = (None, None);
            }
            known_ms = now_ms;
            over_since = (kind == 2).then(|| over_since.unwrap_or(now_ms));
            fine_since = (kind == 0).then(|| fine_since.unwrap_or(now_ms));
            let lasted = |since: Option<i64>, period| since.is_some_and(|since| now_ms - since >= period);
            match (before, gate.is_open()) {
                (true, false) => prop_assert!(lasted(over_since, limits.grace_ms)),
                (true, true) => prop_assert!(!lasted(over_since, limits.grace_ms)),
                (false, true) => prop_assert!(lasted(fine_since, limits.recovery_ms)),
                (false, false) => prop_assert!(!lasted(fine_since, limits.recovery_ms)),
            }
            if before != gate.is_open() {
                (over_since, fine_since) = (None, None);
            }
        }
    }

    #[test]
    fn a_score_rises_with_its_probability_and_stays_in_range(a in 0.0..=1.0, b in 0.0..=1.0) {
        let accept = cascade().accept;
        let (low, high) = if a < b { (a, b) } else { (b, a) };
        prop_assert!(accept.calibrated(low) < accept.calibrated(high) || high - low < 1e-12);
        prop_assert!((0.0..=1.0).contains(&accept.calibrated(a)));
    }

    #[test]
    fn any_bytes_are_a_cascade_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(Cascade::from_json(&bytes));
    }
}
