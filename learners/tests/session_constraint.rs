//! When completion is cheap to lose, and when a learner does not see how far a task is.

use weir_learners::LearnError;
use weir_learners::sessions::{
    Algorithm, SessionExperimentConfig, SessionJudgeConfig, SessionLearnerConfig, Simulator, SimulatorConfig,
    learn_constrained, learned_table, session_experiment,
};
use weir_policy_runtime::Exploration;

#[test]
fn a_price_of_completion_keeps_what_the_reward_alone_would_give_up() {
    // The large model costs more than a task is worth, nearly.
    let mut config = SimulatorConfig { completion_worth: 0.3, ..SimulatorConfig::default() };
    config.models[2].price = 0.25;
    let simulator = Simulator::new(config).unwrap();
    let logging = simulator.exploring(Exploration { gamma: 5.0, floor: 0.3 }, 0.6);
    let logged = simulator.truth(&logging);
    let best = simulator.truth(&simulator.optimal());
    assert!(
        best.completion_rate < logged.completion_rate - 0.1,
        "{} of {}",
        best.completion_rate,
        logged.completion_rate
    );

    let draw = |seed| simulator.draw(&logging, 6000, seed).unwrap().log;
    let (train, validation) = (draw(1), draw(2));
    let learner = SessionLearnerConfig { steps: 1000, ..SessionLearnerConfig::default() };
    let judge = SessionJudgeConfig::default();
    let published = Exploration { gamma: 1000.0, floor: 0.0 };
    let both = (&learner, &judge);
    let found = learn_constrained((&train, &validation), Algorithm::ImplicitQ, both, published, 0.4).unwrap();
    let truth = simulator.truth(&learned_table(&simulator, &found.policy, published).unwrap());
    println!(
        "completed: logged {:.3}, best by reward {:.3}, constrained {:.3} at a price of {}",
        logged.completion_rate, best.completion_rate, truth.completion_rate, found.completion_price
    );
    assert!(found.completion_price > 0.0 && truth.completion_rate > logged.completion_rate - judge.completion_margin);
    assert!(truth.value > logged.value, "a price that costs more than the router gives away");
    let refused = learn_constrained((&train, &validation), Algorithm::ImplicitQ, both, published, 0.0);
    assert!(matches!(refused, Err(LearnError::Config(_))));
}

#[test]
fn intervals_hold_also_where_the_state_hides_how_far_the_task_is() {
    let config = SessionExperimentConfig {
        simulator: SimulatorConfig { steps_are_seen: false, ..SimulatorConfig::default() },
        algorithms: vec![Algorithm::ImplicitQ],
        ..SessionExperimentConfig::default()
    };
    let report = session_experiment(&config).unwrap();
    println!("{}", report.to_markdown());
    let learned = report.arm(Algorithm::ImplicitQ.words()).unwrap();
    assert!(learned.judgement.value.weighted_doubly_robust.covers(learned.truth.value));
    assert!(report.share_of_margin(learned) > 0.0, "worse than the best baseline");
}
