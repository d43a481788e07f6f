//! What a loaded policy promises.
#![allow(missing_docs)]

mod common;

use common::{network, policy, spec};
use weir_policy_runtime::{
    Context, Exploration, Layer, Mlp, OwnedContext, Policy, PolicyError, PolicySpec, Scratch, inverse_gap_weights,
    sticky_uniform,
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
