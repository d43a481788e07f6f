//! Implicit Q-learning beside the policy that is known to be best, on five seeds, all of them reported.

use weir_learners::sessions::{Algorithm, SessionExperimentConfig, SessionVerdict, session_experiment};

#[test]
fn implicit_q_learning_gains_nine_tenths_of_what_can_be_gained_and_logs_say_so_beforehand() {
    let seeds = 5;
    let (mut value_held, mut completion_held) = (0, 0);
    for seed in 1..=seeds {
        let config = SessionExperimentConfig {
            seed,
            algorithms: vec![Algorithm::ImplicitQ],
            ..SessionExperimentConfig::default()
        };
        let report = session_experiment(&config).unwrap();
        println!("{}", report.to_markdown());
        let logging = &report.arm("logging router").unwrap().truth;
        let learned = report.arm(Algorithm::ImplicitQ.words()).unwrap();
        let share = report.share_of_margin(learned);
        assert!((0.9..=1.0).contains(&share), "seed {seed}: {share} of the margin");
        assert!(learned.truth.median_completed_turns < logging.median_completed_turns);
        assert!(learned.truth.completion_rate > logging.completion_rate - config.judge.completion_margin);
        let judged = &learned.judgement;
        assert_eq!(judged.verdict, SessionVerdict::Shorter, "seed {seed}");
        let turns = judged.lengths.unwrap().target;
        assert!(turns.covers(learned.truth.median_completed_turns as f64), "seed {seed}: {turns:?}");
        value_held += u32::from(judged.value.weighted_doubly_robust.covers(learned.truth.value));
        completion_held += u32::from(judged.completion.weighted_doubly_robust.covers(learned.truth.completion_rate));
    }
    println!("intervals of 95 % that hold the truth, of {seeds}: value {value_held}, completion {completion_held}");
    // Two or more of five miss with probability 0.02.
    assert!(value_held >= 4 && completion_held >= 4);
}
