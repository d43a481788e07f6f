//! Cutting a session back as a choice, where its worth is known.

use weir_learners::sessions::{
    Algorithm, CutBack, SessionExperimentConfig, SimulatedModel, Simulator, SimulatorConfig, session_experiment,
};

/// One step, two turns, every turn that takes no step fails, nobody leaves, and nothing but the cut costs: with the chance `s` of a step and
/// the share `a` of it that a failure leaves, the optimum is `s + (1 - s) s a` without cuts and `s + (1 - s) max(s a, s - price)` with them.
#[test]
fn the_optimum_with_cuts_is_the_closed_form() {
    let (s, a) = (0.6, 0.5);
    let model = |name: &str| SimulatedModel {
        name: name.to_owned(),
        succeeds: vec![s],
        lost_per_context: 0.0,
        fails: 1.0,
        price: 0.0,
        wait: 0.0,
    };
    let of = |price: f64| {
        let config = SimulatorConfig {
            models: vec![model("first"), model("second")],
            domains: 1,
            steps: (1, 1),
            contexts: 1,
            turns_max: 2,
            after_failure: a,
            after_switch: 1.0,
            leaves: (0.0, 0.0),
            step_worth: 0.0,
            restricted: 0.0,
            cut_back: Some(CutBack { price, contexts: 1 }),
            ..SimulatorConfig::default()
        };
        Simulator::new(config).unwrap()
    };
    for price in [0.0, 0.1, 0.29, 0.31, 2.0] {
        let simulator = of(price);
        assert_eq!(simulator.action_names(), ["first", "second", "cut back, first", "cut back, second"]);
        let value = |policy: &[f64]| simulator.truth(policy).value;
        let best = s + (1.0 - s) * (s * a).max(s - price);
        assert!((value(&simulator.optimal()) - best).abs() < 1e-12, "at a price of {price}");
        let plain = value(&simulator.optimal_without_cuts().unwrap());
        assert!((plain - (s + (1.0 - s) * s * a)).abs() < 1e-12);
    }
}

/// Nothing is cut where no turn failed, and the chances of every end sum to 1 after a cut too.
#[test]
fn only_failed_turns_are_cut_off() {
    let simulator =
        Simulator::new(SimulatorConfig { cut_back: Some(CutBack::default()), ..SimulatorConfig::default() }).unwrap();
    for index in 0..simulator.states() {
        let state = simulator.state(index);
        assert_eq!(simulator.index(&state), index);
        let allowed = simulator.allowed(&state);
        for (action, allowed) in allowed.into_iter().enumerate() {
            let (model, cuts) = simulator.parts(action);
            assert_eq!(allowed, (!cuts || state.failed) && !(state.restricted && model == 2));
            if allowed {
                let chances: f64 = simulator.ends(&state, action).iter().map(|end| end.chance).sum();
                assert!((chances - 1.0).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn what_cuts_add_stands_beside_what_a_learner_gains_with_them() {
    let config = SessionExperimentConfig {
        simulator: SimulatorConfig { cut_back: Some(CutBack::default()), ..SimulatorConfig::default() },
        algorithms: vec![Algorithm::ImplicitQ],
        ..SessionExperimentConfig::default()
    };
    let report = session_experiment(&config).unwrap();
    println!("{}", report.to_markdown());
    let added = report.cuts_add().expect("cuts are a choice");
    assert!(added > 0.0, "{added}");
    let plain = report.arm("optimal without cutting back").unwrap().truth.value;
    let learned = report.arm(Algorithm::ImplicitQ.words()).unwrap();
    println!("cuts add {added:.4}; learned {:.4} above the optimum without them", learned.truth.value - plain);
    assert!(report.share_of_margin(learned) > 0.8, "{}", report.share_of_margin(learned));
}
