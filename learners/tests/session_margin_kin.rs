//! Conservative and batch-constrained Q-learning and the bandit per turn, beside the policy that is known to be best.

use weir_learners::sessions::{Algorithm, SessionExperimentConfig, session_experiment};

#[test]
fn the_others_look_ahead_too_and_the_bandit_does_not() {
    for seed in 1..=2 {
        let algorithms = vec![Algorithm::ConservativeQ, Algorithm::BatchConstrainedQ, Algorithm::TurnBandit];
        let config = SessionExperimentConfig { seed, algorithms, ..SessionExperimentConfig::default() };
        let report = session_experiment(&config).unwrap();
        println!("{}", report.to_markdown());
        for algorithm in [Algorithm::ConservativeQ, Algorithm::BatchConstrainedQ] {
            let share = report.share_of_margin(report.arm(algorithm.words()).unwrap());
            assert!((0.9..=1.0).contains(&share), "seed {seed}, {algorithm:?}: {share} of the margin");
        }
        let bandit = &report.arm(Algorithm::TurnBandit.words()).unwrap().truth;
        let greedy = &report.arm("greedy per turn, exact").unwrap().truth;
        // It has learned what it was to learn: nearly what greedy selection earns that knows every turn's expected reward.
        assert!((bandit.value - greedy.value).abs() < 0.03, "bandit {}, greedy {}", bandit.value, greedy.value);
        assert!(bandit.value < report.best_baseline());
    }
}
