//! What session judges must not conclude: from logs that cannot carry it, from a median that is itself a guess, from bad input.

use weir_learners::LearnError;
use weir_learners::ope::{EndedSession, EvaluationConfig, estimate_lengths};
use weir_learners::sessions::{
    Algorithm, SessionJudgeConfig, SessionLearnerConfig, SessionLog, SessionTurn, SessionVerdict, Trajectory,
    judge_sessions, learn_constrained,
};
use weir_policy_runtime::Exploration;

/// Sessions of one turn: action 1 in 1 of 50, which always completes; action 0 completes in 7 of 10.
fn rarely(sessions: usize) -> SessionLog {
    let of = |session: usize| {
        let action = usize::from(session.is_multiple_of(50));
        let propensity = Some(if action == 1 { 0.02 } else { 0.98 });
        let turn = SessionTurn { state: vec![1.0], allowed: vec![true; 2], action, propensity, reward: 0.0 };
        Trajectory { turns: vec![turn], completed: action == 1 || session % 10 < 7 }
    };
    SessionLog::new(vec!["a".into(), "b".into()], (0..sessions).map(of).collect()).unwrap()
}

/// The policy always takes action 1. Ten sessions of five hundred count then, all of them completed: the doubly robust estimate is what
/// fitted Q guesses, without a gap to correct, and its interval lies far above the margin.
#[test]
fn a_constraint_is_not_kept_by_logs_that_cannot_carry_an_answer() {
    let (train, validation) = (rarely(2000), rarely(500));
    let always = vec![vec![0.0, 1.0]; 500];
    let judge = SessionJudgeConfig::default();
    let judged = judge_sessions(&validation, &always, &judge).unwrap();
    assert!(matches!(judged.verdict, SessionVerdict::InsufficientSupport { .. }), "{judged:?}");
    assert!(judged.completion.difference.low > -judge.completion_margin, "{judged:?}");

    let learner =
        SessionLearnerConfig { completion_worth: 1.0, hidden: vec![8], steps: 300, ..SessionLearnerConfig::default() };
    let found =
        learn_constrained((&train, &validation), Algorithm::TurnBandit, (&learner, &judge), Exploration::NONE, 0.1);
    assert!(
        matches!(&found, Err(LearnError::NotEnoughData(why)) if why.contains("cannot carry an answer")),
        "{found:?}"
    );
}

/// 24 sessions of four turns and 26 of five: their median is 5, and 4 in the four of ten resamples in which those of four turns are at
/// least half. The target weighs those of four turns thrice as much, and its median is 4 nearly always.
#[test]
fn the_logged_median_is_an_estimate_too() {
    let session = |turns: usize, first: f64| {
        let ratios = (0..turns).map(|turn| if turn == 0 { first } else { 1.0 }).collect();
        EndedSession { ratios, completed: true }
    };
    let sessions: Vec<EndedSession> =
        (0..50).map(|at| if at < 24 { session(4, 1.5) } else { session(5, 0.5) }).collect();
    let found = estimate_lengths(&sessions, &EvaluationConfig::default()).unwrap();
    assert_eq!((found.logged, found.target.value, found.target.high), (5.0, 4.0, 4.0));
    assert_eq!((found.difference.value, found.difference.low, found.difference.high), (-1.0, -1.0, 0.0));
    // Twice as many of five turns leave no doubt.
    let sessions: Vec<EndedSession> =
        (0..300).map(|at| if at < 100 { session(4, 2.4) } else { session(5, 0.3) }).collect();
    let found = estimate_lengths(&sessions, &EvaluationConfig::default()).unwrap();
    assert_eq!((found.difference.value, found.difference.high), (-1.0, -1.0));
}

#[test]
fn sessions_that_were_left_out_bound_what_can_be_said() {
    let own = vec![vec![0.98, 0.02]; 500];
    let verdict = |share: f64| {
        let log = rarely(500).with_left_out_share(share).unwrap();
        judge_sessions(&log, &own, &SessionJudgeConfig::default()).unwrap().verdict
    };
    assert_eq!(verdict(0.02), SessionVerdict::NotShown);
    let SessionVerdict::InsufficientSupport { reasons } = verdict(0.03) else { panic!("an answer") };
    assert!(matches!(&reasons[..], [why] if why.starts_with("3.0 % of sessions were left out")), "{reasons:?}");
    assert!(rarely(500).with_left_out_share(f64::NAN).is_err());
}

#[test]
fn what_makes_no_sense_is_refused_in_a_sentence() {
    let log = rarely(50);
    let own = vec![vec![0.98, 0.02]; 50];
    for config in [
        SessionJudgeConfig { discount: 0.0, ..SessionJudgeConfig::default() },
        SessionJudgeConfig { discount: 1.5, ..SessionJudgeConfig::default() },
        SessionJudgeConfig { discount: f64::NAN, ..SessionJudgeConfig::default() },
        SessionJudgeConfig { completion_margin: -0.1, ..SessionJudgeConfig::default() },
        SessionJudgeConfig { completion_margin: f64::NAN, ..SessionJudgeConfig::default() },
    ] {
        assert!(matches!(judge_sessions(&log, &own, &config), Err(LearnError::Config(_))), "{config:?}");
    }
    for bad in [[0.98, 0.03], [1.5, -0.5], [f64::NAN, 0.02]] {
        let error = judge_sessions(&log, &vec![bad.to_vec(); 50], &SessionJudgeConfig::default()).unwrap_err();
        assert!(error.to_string().contains("turn 1 of session 1: the target policy's probabilities sum to"), "{error}");
    }
    let turn = |state: Vec<f32>, allowed: Vec<bool>| SessionTurn {
        state,
        allowed,
        action: 0,
        propensity: Some(0.5),
        reward: 0.0,
    };
    let of = |turn| {
        let sessions = vec![Trajectory { turns: vec![turn], completed: true }];
        SessionLog::new(vec!["a".into(), "b".into()], sessions)
    };
    let forbidding = of(turn(vec![1.0], vec![true, false])).unwrap();
    let error = judge_sessions(&forbidding, &[vec![0.5, 0.5]], &SessionJudgeConfig::default()).unwrap_err();
    assert!(error.to_string().contains("not allowed there"), "{error}");
    assert!(matches!(of(turn(vec![], vec![true; 2])), Err(LearnError::BadSessions(why)) if why.contains("one number")));
}
