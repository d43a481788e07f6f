//! What a loaded policy promises.
#![allow(missing_docs)]

mod common;

use common::{network, policy, spec};
use weir_policy_runtime::{
    Context, Exploration, Heads, Layer, Mlp, Objective, OwnedContext, Policy, PolicyError, PolicySpec, Preference,
    Scratch, Strategy, Terms, inverse_gap_weights, sticky_uniform,
};

fn context() -> Context<'static> {
    Context { domain: Some("math"), prompt_tokens: Some(300), multimodal: Some(false), ..Context::default() }
}

/// Chi-square with 2 degrees of freedom: the 0.999 quantile is -2 ln(0.001) = 13.8155, a closed form.
#[test]
fn choices_come_as_often_as_their_propensities_say() {
    let policy = policy(20.0, 0.1);
    let mut scratch = policy.scratch();
    let expected = policy.propensities(&context(), &[true; 3], &mut scratch).unwrap().to_vec();
    let draws = 200_000u32;
    let mut counts = [0u32; 3];
    for i in 0..draws {
        let u = sticky_uniform(b"frequencies", &i.to_string());
        let decision = policy.decide(&context(), &[true; 3], u, &mut scratch).unwrap();
        assert_eq!(decision.propensity, expected[decision.action]);
        counts[decision.action] += 1;
    }
    let chi_square: f64 = (0..3)
        .map(|a| {
            let mean = expected[a] * f64::from(draws);
            (f64::from(counts[a]) - mean).powi(2) / mean
        })
        .sum();
    assert!(chi_square < 13.8155, "chi-square {chi_square}: {counts:?} against {expected:?}");
}

#[test]
fn outputs_mean_what_the_heads_say() {
    // One linear layer with zero weights: the outputs are the biases, whatever the request.
    let spec = spec(20.0, 0.0);
    let width = spec.features.width();
    let bias = vec![0.0, 3.0f32.ln(), -1000.0, 0.01f32.ln(), 0.02f32.ln(), 1000.0];
    let network = Mlp::new(vec![Layer::new(width, vec![0.0; 6 * width], bias).unwrap()]).unwrap();
    let policy = Policy::new(spec, network).unwrap();
    let mut scratch = Scratch::default();
    let predicted = policy.predict(&context(), &mut scratch);
    let near = |x: f64, y: f64| (x - y).abs() < 1e-6;
    // sigmoid(0) = 1/2, sigmoid(ln 3) = 3/4; utility = q - 10 USD^-1 · cost
    assert!(near(predicted.quality[0], 0.5) && near(predicted.quality[1], 0.75) && near(predicted.quality[2], 0.0));
    assert!(near(predicted.cost_usd[0], 0.01) && near(predicted.cost_usd[1], 0.02));
    assert!(near(predicted.utility[0], 0.4) && near(predicted.utility[1], 0.55));
    // e^1000 USD is no number to compare: that action is left with the floor, which is 0 here
    let p = policy.propensities(&context(), &[true; 3], &mut scratch).unwrap();
    assert!(near(p[0], 1.0 / (3.0 + 20.0 * 0.15)) && near(p[1], 1.0 - p[0]) && p[2] == 0.0, "{p:?}");
}

#[test]
fn propensities_are_inverse_gap_weights_of_the_predicted_utilities() {
    let policy = policy(35.0, 0.2);
    let mut scratch = policy.scratch();
    let utility = policy.predict(&context(), &mut scratch).utility.to_vec();
    let allowed = [true, false, true];
    let mut expected = [0.0; 3];
    inverse_gap_weights(&utility, &allowed, 35.0, 0.2, &mut expected);
    assert_eq!(policy.propensities(&context(), &allowed, &mut scratch).unwrap(), expected);
}

#[test]
fn one_scratch_serves_policies_of_different_sizes() {
    let small = policy(20.0, 0.1);
    let mut big_spec = spec(20.0, 0.1);
    big_spec.actions.push(weir_policy_runtime::Action {
        model: "huge".into(),
        input_usd_per_mtok: None,
        output_usd_per_mtok: None,
    });
    let big = Policy::new(big_spec, network(&[small.spec().features.width(), 64, 8])).unwrap();
    let mut shared = Scratch::default();
    for _ in 0..2 {
        let alone = small.decide(&context(), &[true; 3], 0.4, &mut small.scratch()).unwrap();
        assert_eq!(small.decide(&context(), &[true; 3], 0.4, &mut shared).unwrap(), alone);
        let alone = big.decide(&context(), &[true; 4], 0.4, &mut big.scratch()).unwrap();
        assert_eq!(big.decide(&context(), &[true; 4], 0.4, &mut shared).unwrap(), alone);
    }
}

#[test]
fn impossible_questions_are_refused_in_one_sentence() {
    let policy = policy(20.0, 0.1);
    let mut scratch = policy.scratch();
    let mut refuse = |allowed: &[bool], u: f64| policy.decide(&context(), allowed, u, &mut scratch).unwrap_err();
    let errors =
        [refuse(&[true; 2], 0.5), refuse(&[false; 3], 0.5), refuse(&[true; 3], 1.0), refuse(&[true; 3], f64::NAN)];
    insta::assert_snapshot!(errors.map(|e| e.to_string()).join("\n"), @r"
    2 allowed flags for 3 actions: give one flag per action of the policy, in its order
    no action is allowed: let at least one model of the policy through the filters
    draw 1 is not in [0, 1): pass a uniform random number or sticky_uniform
    draw NaN is not in [0, 1): pass a uniform random number or sticky_uniform
    ");
}

#[test]
fn a_bundle_gives_back_the_policy_that_went_in() {
    let loaded = Policy::load(&common::bundle()).unwrap();
    assert_eq!(loaded, policy(20.0, 0.06));
}

#[test]
fn a_bundle_of_another_kind_is_not_scored() {
    let bundle = common::bundle();
    let mut manifest = bundle.manifest.clone();
    manifest.kind = "token-budgets".to_owned();
    let other = weir_policy_runtime::Bundle::build(manifest, bundle.files).unwrap();
    let error = Policy::load(&other).unwrap_err();
    assert!(matches!(error, PolicyError::Kind { .. }), "{error}");
}

#[test]
fn specs_and_weights_that_do_not_fit_are_refused() {
    let width = spec(1.0, 0.0).features.width();
    let error = Policy::new(spec(1.0, 0.0), network(&[width, 5])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "weights.safetensors is not usable (they map 11 to 5 numbers, policy.json needs 12 to 6): rebuild the bundle"
            .replace("11 to 5", &format!("{width} to 5"))
            .replace("12 to 6", &format!("{width} to 6"))
    );
    for (gamma, floor) in [(-1.0, 0.1), (f64::INFINITY, 0.1), (1.0, 1.5), (1.0, f64::NAN)] {
        let mut illegal = spec(1.0, 0.0);
        illegal.exploration = Exploration { gamma, floor };
        assert!(matches!(illegal.to_json(), Err(PolicyError::Spec { .. })), "{gamma} {floor}");
    }
    let mut twice = spec(1.0, 0.0);
    twice.actions[1].model = "large".to_owned();
    assert!(twice.to_json().unwrap_err().to_string().contains("\"large\" is listed twice"));
}

#[test]
fn policy_json_survives_a_round_trip_and_is_canonical() {
    let bytes = spec(20.0, 0.06).to_json().unwrap();
    let read = PolicySpec::from_json(&bytes).unwrap();
    assert_eq!(read, spec(20.0, 0.06));
    assert_eq!(read.to_json().unwrap(), bytes);
    insta::assert_snapshot!(String::from_utf8(bytes).unwrap());
}

#[test]
fn an_owned_context_borrows_as_what_it_was() {
    let embedding = [1.0, 2.0];
    let context = Context { embedding: Some(&embedding), turn: Some(3), ..context() };
    let owned = OwnedContext::from(context);
    assert_eq!(owned.as_context(), context);
    let json = serde_json::to_string(&owned).unwrap();
    assert_eq!(serde_json::from_str::<OwnedContext>(&json).unwrap(), owned);
}

/// Two models whose scores are the biases, whatever the request.
fn scores(heads: Heads, biases: Vec<f32>, logged_share_min: Option<f64>) -> Result<Policy, PolicyError> {
    let mut spec = PolicySpec { heads, logged_share_min, per_turn: true, ..spec(20.0, 0.0) };
    spec.actions.truncate(2);
    let width = spec.features.width();
    let network = Mlp::new(vec![Layer::new(width, vec![0.0; biases.len() * width], biases).unwrap()]).unwrap();
    Policy::new(spec, network)
}

/// Closed form of inverse-gap weighting for two actions: the worse one gets 1 / (2 + γ gap).
#[test]
fn scores_of_utility_are_drawn_from_as_they_are() {
    let policy = scores(Heads::Utilities, vec![0.5, 0.25], None).unwrap();
    let mut scratch = policy.scratch();
    let predicted = policy.predict(&context(), &mut scratch);
    assert_eq!(predicted.utility, [0.5, 0.25]);
    assert!(predicted.quality.iter().chain(predicted.cost_usd).all(|number| number.is_nan()), "nothing is made up");
    let worse = 1.0 / (2.0 + 20.0 * 0.25);
    assert_eq!(policy.propensities(&context(), &[true; 2], &mut scratch).unwrap(), [1.0 - worse, worse]);
    let dearer = Objective { usd: 99.0, ..policy.spec().objective };
    let terms = Terms { objective: dearer, ..policy.terms() };
    let refused = policy.propensities_under(&terms, &context(), &[true; 2], &mut scratch).unwrap_err();
    assert!(matches!(refused, PolicyError::FixedObjective), "{refused}");
}

#[test]
fn what_the_logs_make_too_seldom_is_not_chosen_unless_nothing_else_is_allowed() {
    // The second is the better one, and e^-4 = 0.018 as likely in the logs.
    let seldom = vec![0.0, 1.0, 4.0, 0.0];
    let of = |share| scores(Heads::UtilitiesThenLoggedLogits, seldom.clone(), share);
    let mut scratch = Scratch::default();
    let strict = of(Some(0.02)).unwrap();
    assert_eq!(strict.propensities(&context(), &[true; 2], &mut scratch).unwrap(), [1.0, 0.0]);
    assert_eq!(strict.propensities(&context(), &[false, true], &mut scratch).unwrap(), [0.0, 1.0]);
    let lenient = of(Some(0.018)).unwrap();
    let worse = 1.0 / (2.0 + 20.0);
    assert_eq!(lenient.propensities(&context(), &[true; 2], &mut scratch).unwrap(), [worse, 1.0 - worse]);
    let why = |result: Result<Policy, PolicyError>| result.unwrap_err().to_string();
    assert!(why(of(None)).contains("logged_share_min"));
    assert!(why(of(Some(1.5))).contains("[0, 1]"));
    assert!(why(scores(Heads::Utilities, vec![0.0; 2], Some(0.1))).contains("logged_share_min"));
    let softmax = PolicySpec {
        heads: Heads::Utilities,
        strategy: Strategy::Softmax { temperature: 1.0 },
        preference: Some(Preference { usd_scale: 1.0 }),
        ..spec(20.0, 0.0)
    };
    assert!(softmax.to_json().unwrap_err().to_string().contains("inverse_gap"));
}

#[test]
fn a_policy_of_requests_says_nothing_of_turns_and_keeps_its_bytes() {
    let json = String::from_utf8(spec(20.0, 0.0).to_json().unwrap()).unwrap();
    assert!(!json.contains("per_turn") && !json.contains("logged_share_min"), "{json}");
    let per_turn = PolicySpec { per_turn: true, ..spec(20.0, 0.0) };
    assert_eq!(PolicySpec::from_json(&per_turn.to_json().unwrap()).unwrap(), per_turn);
}
