//! Session policies.

use weir_learners::sessions::{Algorithm, SessionExperimentConfig, session_experiment};

#[test]
fn trial() {
    for seed in 1..=1 {
        for algorithm in
            [Algorithm::ImplicitQ, Algorithm::ConservativeQ, Algorithm::BatchConstrainedQ, Algorithm::TurnBandit]
        {
            let start = std::time::Instant::now();
            let config = SessionExperimentConfig { seed, algorithms: vec![algorithm], ..Default::default() };
            let report = session_experiment(&config).unwrap();
            println!("{:?}\n{}", start.elapsed(), report.to_markdown());
        }
    }
}
