//! How often intervals from a router's sessions hold what is true of another policy, in the simulator.

use weir_learners::sessions::{
    Algorithm, SessionJudgeConfig, SessionLearnerConfig, Simulator, SimulatorConfig, judge_sessions, learn_sessions,
    learned_table, table_on,
};
use weir_policy_runtime::Exploration;

#[test]
fn intervals_of_values_completion_and_lengths_hold_the_truth() {
    let simulator = Simulator::new(SimulatorConfig::default()).unwrap();
    let logging = simulator.exploring(Exploration { gamma: 5.0, floor: 0.3 }, 0.6);
    let train = simulator.draw(&logging, 8000, 1 << 32).unwrap().log;
    let learner = SessionLearnerConfig { steps: 1000, ..SessionLearnerConfig::default() };
    let learned = learn_sessions(&train, Algorithm::ImplicitQ, &learner).unwrap();
    let published = Exploration { gamma: 1000.0, floor: 0.0 };
    let policies = [
        ("implicit Q", learned_table(&simulator, &learned, published).unwrap()),
        ("optimal", simulator.optimal()),
        ("greedy per turn", simulator.greedy_per_turn()),
        ("always large", simulator.always(2)),
    ];
    let (seeds, sessions) = (100, 3000);
    let judge = SessionJudgeConfig::default();
    // Value, completion, median, value by fitted Q.
    let mut held = [[0_u32; 4]; 4];
    for seed in 0..seeds {
        let log = simulator.draw(&logging, sessions, seed).unwrap();
        for (held, (_, table)) in held.iter_mut().zip(&policies) {
            let truth = simulator.truth(table);
            let found = judge_sessions(&log.log, &table_on(&simulator, table, &log), &judge).unwrap();
            let holds = [
                found.value.weighted_doubly_robust.covers(truth.value),
                found.completion.weighted_doubly_robust.covers(truth.completion_rate),
                found.lengths.unwrap().target.covers(truth.median_completed_turns as f64),
                found.value.direct.covers(truth.value),
            ];
            held.iter_mut().zip(holds).for_each(|(held, holds)| *held += u32::from(holds));
        }
    }
    println!("{sessions} sessions, {seeds} seeds; intervals of 95 % that hold the truth, of a hundred:");
    for ((name, _), [value, completion, median, fitted_q]) in policies.iter().zip(held) {
        println!("{name:<16} value {value}, completion {completion}, median {median}, value by fitted Q {fitted_q}");
        // Four binomial standard deviations below 95 of 100.
        assert!(value.min(completion).min(median) >= 87, "{name}");
    }
}
