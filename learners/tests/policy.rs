//! From logged decisions to a candidate policy.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use weir_learners::ope::Verdict;
use weir_learners::{LearnError, Sample, TrainConfig, TrainingSet, evaluate_policy, train_policy};
use weir_policy_runtime::{Action, Mlp, Objective, OwnedContext, Policy, Scratch};

const DOMAINS: [&str; 3] = ["law", "code", "chat"];
const MODELS: [&str; 3] = ["large", "medium", "small"];

/// Mean quality of a model on a domain: each domain has a best model of its own, unless the world has no gain.
fn mean_quality(domain: usize, model: usize, gain: bool) -> f64 {
    match (gain, domain == model) {
        (false, _) => 0.6,
        (true, true) => 0.85,
        (true, false) => 0.5,
    }
}

/// Uniformly logged sessions of one to three decisions; the cost of a model is ten times that of the next.
fn logs(seed: u64, sessions: usize, gain: bool) -> TrainingSet {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut samples = Vec::new();
    for session in 0..sessions {
        let domain = rng.random_range(0..3);
        for turn in 0..rng.random_range(1..4_u32) {
            let action = rng.random_range(0..3);
            let good = rng.random::<f64>() < mean_quality(domain, action, gain);
            let prompt_tokens = rng.random_range(50..2000);
            samples.push(Sample {
                context: OwnedContext {
                    domain: Some(DOMAINS[domain].to_owned()),
                    prompt_tokens: Some(prompt_tokens),
                    turn: Some(turn),
                    ..OwnedContext::default()
                },
                action,
                executed_as_intended: true,
                propensity: Some(1.0 / 3.0),
                logged_distribution: None,
                allowed: None,
                quality: Some(f64::from(u8::from(good))),
                cost_usd: Some(f64::from(prompt_tokens) * 1e-6 / 10_f64.powi(action as i32)),
                completion_tokens: None,
                cluster: format!("session-{session}"),
                time_ms: i64::from(turn) + 1000 * session as i64,
            });
        }
    }
    TrainingSet { actions: actions(), samples, tables: [("requests".to_owned(), 7)].into() }
}

fn actions() -> Vec<Action> {
    let action =
        |model: &&str| Action { model: (*model).to_owned(), input_usd_per_mtok: None, output_usd_per_mtok: None };
    MODELS.iter().map(action).collect()
}

#[test]
fn a_world_with_a_best_model_per_domain_is_learned_and_shown_to_be_better() {
    let candidate = train_policy(&logs(1, 3000, true), &TrainConfig::default()).expect("training succeeds");
    println!("{}", candidate.report.to_markdown());
    let lineup = &candidate.report.lineup;
    assert_eq!(lineup.candidate.verdict, Verdict::Better);
    // Closed form: 0.85 at the best model; the floor's share of decisions earns the uniform 0.6167 instead.
    let spec = &candidate.spec;
    let best_possible = 0.85 - spec.exploration.floor * (0.85 - 0.6167);
    let estimates = lineup.candidate.estimates.as_ref().expect("support is ample");
    assert!((estimates.dr.value - best_possible).abs() < 0.04, "{:?}, best possible {best_possible}", estimates.dr);
    assert!(estimates.logging.covers(0.6167), "{:?}", estimates.logging);
    // The reward model knows more than each model's mean.
    let errors = candidate.report.reward_model;
    assert!(errors.quality_log_loss < errors.quality_log_loss_of_means - 0.02, "{errors:?}");
    assert!(errors.cost_rmse_usd < 0.5 * errors.cost_rmse_usd_of_means, "{errors:?}");
}

#[test]
fn a_world_without_gain_ends_with_not_shown() {
    for seed in 10..13 {
        let candidate = train_policy(&logs(seed, 2000, false), &TrainConfig::default()).expect("training succeeds");
        assert_eq!(candidate.report.lineup.candidate.verdict, Verdict::NotShown, "seed {seed}");
    }
}

#[test]
fn too_few_sessions_give_a_candidate_without_numbers() {
    let candidate = train_policy(&logs(2, 60, true), &TrainConfig::default()).expect("training succeeds");
    let evaluation = &candidate.report.lineup.candidate;
    assert!(matches!(evaluation.verdict, Verdict::InsufficientSupport { .. }), "{evaluation:?}");
    assert!(evaluation.estimates.is_none());
    // What was logged is known all the same: 0.6167 by closed form.
    let logging = candidate.report.lineup.logging.expect("there are sessions");
    assert!(logging.covers(0.6167) && logging.high - logging.low > 0.1, "{logging:?}");
    assert!(candidate.report.to_markdown().contains("insufficient support"));
}

#[test]
fn a_price_on_cost_moves_the_choice_to_cheaper_models() {
    let objective = Objective { quality: 0.0, usd: 1000.0 };
    let config = TrainConfig { objective, ..TrainConfig::default() };
    let candidate = train_policy(&logs(3, 1500, true), &config).expect("training succeeds");
    let context = OwnedContext { domain: Some("law".into()), prompt_tokens: Some(1000), ..OwnedContext::default() };
    let mut scratch = Scratch::default();
    let propensities = candidate.policy.propensities(&context.as_context(), &[true; 3], &mut scratch).unwrap().to_vec();
    assert!(propensities[2] > propensities[0], "small costs a hundredth of large: {propensities:?}");
    // Predicted costs have the scale of the observed ones: 1000 tokens at 1e-6 USD.
    let predicted = candidate.policy.predict(&context.as_context(), &mut scratch).cost_usd[0];
    assert!((predicted - 1e-3).abs() < 3e-4, "{predicted}");
}

#[test]
fn the_same_seed_gives_the_same_candidate_down_to_the_bytes() {
    let set = logs(4, 400, true);
    let run = |seed| train_policy(&set, &TrainConfig { seed, ..TrainConfig::default() }).expect("training succeeds");
    let (first, second, other) = (run(1), run(1), run(2));
    assert!(first.weights == second.weights, "the same seed gave other weights");
    assert_eq!(first.spec.to_json().unwrap(), second.spec.to_json().unwrap());
    assert_eq!(first.report.to_json().unwrap(), second.report.to_json().unwrap());
    assert!(first.weights != other.weights, "another seed gave the same weights");
}

#[test]
fn the_files_score_like_the_trained_policy() {
    let candidate = train_policy(&logs(5, 400, true), &TrainConfig::default()).expect("training succeeds");
    let spec = weir_policy_runtime::PolicySpec::from_json(&candidate.spec.to_json().unwrap()).unwrap();
    let reread = Policy::new(spec, Mlp::from_safetensors(&candidate.weights).unwrap()).unwrap();
    let (mut one, mut two) = (Scratch::default(), Scratch::default());
    for sample in &logs(6, 100, true).samples {
        let context = sample.context.as_context();
        let trained = candidate.policy.propensities(&context, &[true; 3], &mut one).unwrap();
        assert_eq!(trained, reread.propensities(&context, &[true; 3], &mut two).unwrap());
    }
}

#[test]
fn decisions_without_propensity_reward_or_with_a_fallback_are_counted_and_left_out() {
    let mut set = logs(7, 3000, true);
    for (index, sample) in set.samples.iter_mut().enumerate() {
        match index % 10 {
            0 => sample.propensity = None,
            1 => sample.quality = None,
            2 => sample.executed_as_intended = false,
            _ => {}
        }
    }
    let candidate = train_policy(&set, &TrainConfig::default()).expect("training succeeds");
    let data = &candidate.report.lineup.data;
    assert!(data.without_propensity > 0 && data.fallbacks > 0 && data.without_reward > 0);
    let left_out = data.without_propensity + data.fallbacks + data.without_reward;
    assert_eq!(data.evaluated + left_out, data.decisions);
    assert_eq!(data.tables["requests"], 7);
}

#[test]
fn an_older_policy_is_evaluated_on_new_logs_whatever_order_their_models_have() {
    let config = TrainConfig::default();
    let candidate = train_policy(&logs(8, 2000, true), &config).expect("training succeeds");
    let fresh = logs(9, 2000, true);
    let straight = evaluate_policy(&fresh, &candidate.policy, &config.evaluation).expect("it scores");
    assert_eq!(straight.candidate.verdict, Verdict::Better);
    let mut turned = fresh.clone();
    turned.actions.reverse();
    turned.samples.iter_mut().for_each(|sample| sample.action = 2 - sample.action);
    assert_eq!(evaluate_policy(&turned, &candidate.policy, &config.evaluation).expect("it scores"), straight);
}

#[test]
fn nothing_to_choose_from_and_nothing_to_learn_from_are_said_so() {
    let mut one_model = logs(1, 50, true);
    one_model.actions.truncate(1);
    one_model.samples.retain(|sample| sample.action == 0);
    let mut unrated = logs(1, 50, true);
    unrated.samples.iter_mut().for_each(|sample| sample.quality = None);
    for set in [one_model, unrated, TrainingSet::default()] {
        let refused = train_policy(&set, &TrainConfig::default());
        assert!(matches!(refused, Err(LearnError::NotEnoughData(_))), "{refused:?}");
    }
}
