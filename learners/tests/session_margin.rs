//! Implicit Q-learning beside the policy that is known to be best, on five seeds, all of them reported.

use weir_learners::sessions::{
    Algorithm, SessionExperimentConfig, SessionLearnerConfig, SessionVerdict, Simulator, learn_sessions, learned_table,
    session_experiment,
};
use weir_policy_runtime::Exploration;

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

/// The same policy of seed 1, drawing as it is published and taking what scores best: what is missing without a draw is the learner's.
#[test]
fn what_the_draw_costs_and_what_was_not_learned() {
    let config = SessionExperimentConfig::default();
    let simulator = Simulator::new(config.simulator.clone()).unwrap();
    let logging = simulator.exploring(config.logging, config.stays);
    let train = simulator.draw(&logging, config.train_sessions, config.seed).unwrap().log;
    let learner = SessionLearnerConfig { seed: config.seed, ..config.learner.clone() };
    let policy = learn_sessions(&train, Algorithm::ImplicitQ, &learner).unwrap();
    let value = |exploration| simulator.truth(&learned_table(&simulator, &policy, exploration).unwrap()).value;
    let (drawn, best) = (value(config.published), value(Exploration::NONE));
    let always = (0..simulator.actions()).map(|model| simulator.truth(&simulator.always(model)).value);
    let base = always.fold(simulator.truth(&simulator.greedy_per_turn()).value, f64::max);
    let optimal = simulator.truth(&simulator.optimal()).value;
    let share = |value: f64| 100.0 * (value - base) / (optimal - base);
    println!("share of the margin: drawn {:.1} %, what scores best {:.1} %", share(drawn), share(best));
    assert!(drawn < best && best <= optimal, "{drawn}, {best}, {optimal}");
}
