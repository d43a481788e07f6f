//! From logged decisions to a candidate policy.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use weir_learners::ope::{Estimate, Verdict};
use weir_learners::{
    LearnError, Outcome, Part, PartJudged, PolicyInForce, Report, RewardModelConfig, Sample, Standing, TrainConfig,
    TrainingSet, evaluate_policy, train_policy,
};
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
                quality: Some(f64::from(u8::from(good))),
                cost_usd: Some(f64::from(prompt_tokens) * 1e-6 / 10_f64.powi(action as i32)),
                cluster: format!("session-{session}"),
                time_ms: i64::from(turn) + 1000 * session as i64,
                ..Sample::default()
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
    let candidate = train_policy(&logs(1, 3000, true), &TrainConfig::default(), None).expect("training succeeds");
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

/// At 95 %, two-sided, a candidate that is no better is called so in one case of forty at most. Of 40 worlds, five or
/// more would be a chance of 1 in 300.
#[test]
fn a_world_without_gain_hardly_ever_ends_with_better() {
    let reward_model = RewardModelConfig { epochs: 8, hidden: vec![16], ..RewardModelConfig::default() };
    let config = TrainConfig { reward_model, ..TrainConfig::default() };
    let verdicts = (10..50).map(|seed| {
        let candidate = train_policy(&logs(seed, 1200, false), &config, None).expect("training succeeds");
        candidate.report.lineup.candidate.verdict
    });
    let verdicts: Vec<Verdict> = verdicts.collect();
    let better = verdicts.iter().filter(|verdict| **verdict == Verdict::Better).count();
    let not_shown = verdicts.iter().filter(|verdict| **verdict == Verdict::NotShown).count();
    assert!(better <= 4, "{better} of 40 worlds without gain");
    assert!(not_shown >= 30, "an exam that mostly refuses to answer tests nothing: {verdicts:?}");
}

#[test]
fn a_candidate_that_is_worse_than_the_policy_in_force_is_so_although_it_is_better_than_the_log() {
    let config = TrainConfig::default();
    let first = train_policy(&logs(1, 3000, true), &config, None).expect("training succeeds");
    assert_eq!(first.report.lineup.candidate.verdict, Verdict::Better, "it is better than the uniform log");
    // Half of the next one's decisions are spread evenly: better than the uniform log too, but that one is in force now.
    let in_force = PolicyInForce { id: "sha256:0123456789abcdef", policy: &first.policy };
    let wasteful = TrainConfig { floor: 0.5, ..config };
    let second = train_policy(&logs(1, 3000, true), &wasteful, Some(in_force)).expect("training succeeds");
    let lineup = &second.report.lineup;
    let estimates = lineup.candidate.estimates.as_ref().expect("support is ample");
    assert!(estimates.difference.low > 0.05, "{:?}", estimates.difference);
    assert_eq!(lineup.candidate.verdict, Verdict::Worse);
    let held = lineup.in_force.as_ref().expect("there was one");
    let difference = held.difference.expect("both are known");
    let by_hand = estimates.dr.value - held.evaluation.estimates.as_ref().expect("support is ample").dr.value;
    assert!((difference.value - by_hand).abs() < 1e-12, "{difference:?}");
    // Closed form: half of 0.85 - 0.6167, but for the first one's own exploration.
    assert!(difference.high < -0.05 && (difference.value + 0.1167).abs() < 0.03, "{difference:?}");
    let shown = second.report.to_markdown();
    assert!(shown.contains("| policy in force (0123456789ab) | 0."), "{shown}");
    assert!(shown.contains("Difference to the policy in force: "), "{shown}");
}

/// The default explores by `sqrt(K n)`, and more where the policy's own logs would else leave nothing to judge the next one by.
#[test]
fn a_policy_explores_as_much_as_the_next_verdict_needs() {
    let trained = |sessions: usize, gamma: Option<f64>| {
        let set = logs(1, sessions, true);
        let config = TrainConfig { gamma, ..TrainConfig::default() };
        let report = train_policy(&set, &config, None).expect("training succeeds").report;
        let usual = (3.0 * report.train_decisions as f64).sqrt();
        let warning = report.next.expect("it is foreseen").warning();
        (report.exploration.gamma, usual, warning)
    };
    let (gamma, usual, warning) = trained(3000, None);
    assert_eq!((gamma, warning), (usual, None), "long logs carry it as it is");

    let (gamma, usual, warning) = trained(1500, None);
    assert_eq!(warning, None);
    assert!(gamma < usual, "{gamma} of {usual}");
    let halvings = (usual / gamma).log2();
    assert!((halvings - halvings.round()).abs() < 1e-9, "{usual} to {gamma}");
    let (given, _, warning) = trained(1500, Some(2.0 * gamma));
    assert!(given == 2.0 * gamma && warning.is_some(), "a given gamma stays, and is warned of");

    // Fewer sessions to judge by than are asked for: no exploration mends that.
    let (gamma, usual, warning) = trained(300, None);
    assert_eq!(gamma, usual);
    assert!(warning.is_some_and(|warning| warning.contains("Log for longer")));
}

/// An operator's file says what counts and what must not become worse; the same candidate is better or not by it.
#[test]
fn every_gain_is_told_in_its_parts_and_guardrails_decide() {
    let with = |guardrails: &str| {
        let outcome =
            Outcome::from_toml(&format!("[weights]\nquality = 1\nusd = 0.001\n[guardrails]\n{guardrails}")).unwrap();
        let config = TrainConfig { outcome, ..TrainConfig::default() };
        train_policy(&logs(1, 3000, true), &config, None).expect("training succeeds").report
    };
    let generous = with("quality = 0.05\nusd = 0.01");
    let lineup = &generous.lineup;
    assert_eq!(lineup.candidate.verdict, Verdict::Better);
    let part = |wanted: Part| lineup.parts.iter().find(|part| part.part == wanted).expect("it weighs something");
    let (quality, usd) = (part(Part::Quality), part(Part::Usd));
    let standing = |part: &PartJudged| part.guardrail.as_ref().unwrap().standing;
    assert_eq!((standing(quality), standing(usd)), (Standing::Kept, Standing::Kept));
    // The value is the sum of its parts, on the same decisions.
    let (value, parts) = (
        lineup.candidate.estimates.as_ref().unwrap().dr.value,
        quality.value.unwrap().value - 0.001 * usd.value.unwrap().value,
    );
    assert!((value - parts).abs() < 1e-9, "{value} and {parts}");
    let shown = generous.to_markdown();
    assert!(shown.contains("Value is 1 x quality - 0.001 x USD per request."), "{shown}");
    assert!(
        shown.contains("- guardrail: usd may become worse by 0.01: difference 0.0") && shown.contains(", kept"),
        "{shown}"
    );
    assert_eq!(Report::clone(&generous), serde_json::from_slice(&generous.to_json().unwrap()).unwrap());

    // Nobody can show that quality rises by nothing less than 0; cost, of a policy that chooses what is good, moves by chance too.
    let strict = with("latency_s = 1.0");
    assert_eq!(strict.lineup.candidate.verdict, Verdict::NotShown, "no log tells latency");
    assert!(strict.to_markdown().contains("latency_s may become worse by 1: difference unknown, not shown to be kept"));
}

#[test]
fn a_broken_guardrail_makes_a_gain_worse() {
    // Cost weighs nothing, and the best model is the dearest everywhere.
    let mut set = logs(1, 3000, true);
    for sample in &mut set.samples {
        sample.quality = Some(if sample.action == 0 { 1.0 } else { 0.0 });
    }
    let outcome = Outcome::from_toml("[weights]\nquality = 1\n[guardrails]\nusd = 0.00001").unwrap();
    let config = TrainConfig { outcome, ..TrainConfig::default() };
    let report = train_policy(&set, &config, None).expect("training succeeds").report;
    let estimates = report.lineup.candidate.estimates.as_ref().expect("support is ample");
    assert!(estimates.difference.low > 0.5, "{:?}", estimates.difference);
    assert_eq!(report.lineup.candidate.verdict, Verdict::Worse);
    assert!(report.to_markdown().contains(", broken"), "{}", report.to_markdown());
}

#[test]
fn a_policy_in_force_that_the_logs_cannot_judge_leaves_no_verdict_on_another() {
    let config = TrainConfig::default();
    let mut elsewhere = logs(1, 3000, true);
    elsewhere.actions.iter_mut().for_each(|action| action.model.push_str("-of-another-house"));
    let other = train_policy(&elsewhere, &config, None).expect("training succeeds");
    let in_force = PolicyInForce { id: "sha256:0123456789abcdef", policy: &other.policy };
    let candidate = train_policy(&logs(1, 3000, true), &config, Some(in_force)).expect("training succeeds");
    let evaluation = &candidate.report.lineup.candidate;
    let Verdict::InsufficientSupport { reasons } = &evaluation.verdict else { panic!("{:?}", evaluation.verdict) };
    assert!(reasons[0].starts_with("the policy in force cannot be judged: "), "{reasons:?}");
    assert!(evaluation.estimates.is_none());
}

#[test]
fn a_model_that_the_logs_never_show_is_no_support() {
    let config = TrainConfig::default();
    let candidate = train_policy(&logs(1, 3000, true), &config, None).expect("training succeeds");
    // The log of a router that knows two models: what the policy gives to the third is nowhere in it.
    let mut fresh = logs(9, 2000, true);
    fresh.samples.retain(|sample| sample.action != 2);
    fresh.samples.iter_mut().for_each(|sample| sample.propensity = Some(0.5));
    let refused = evaluate_policy(&fresh, &candidate.policy, None, &config.outcome, &config.evaluation, None)
        .expect("it scores")
        .candidate;
    let Verdict::InsufficientSupport { reasons } = &refused.verdict else { panic!("{:?}", refused.verdict) };
    assert!(reasons.iter().any(|reason| reason.contains("or never")), "{reasons:?}");
    assert!((refused.support.unsupported_mass - 1.0 / 3.0).abs() < 0.1, "{:?}", refused.support);
}

/// Sessions that start as `law` and go on as `code`; the model is drawn uniformly at the first turn and kept.
fn sticky_logs(seed: u64, sessions: usize) -> TrainingSet {
    let mut set = logs(seed, 0, true);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for session in 0..sessions {
        let action = rng.random_range(0..3);
        for (turn, domain) in [0, 1, 1, 1].into_iter().enumerate() {
            let good = rng.random::<f64>() < mean_quality(domain, action, true);
            set.samples.push(Sample {
                context: OwnedContext {
                    domain: Some(DOMAINS[domain].to_owned()),
                    prompt_tokens: Some(500),
                    turn: Some(turn as u32),
                    ..OwnedContext::default()
                },
                action,
                executed_as_intended: true,
                propensity: Some(1.0 / 3.0),
                quality: Some(f64::from(u8::from(good))),
                cost_usd: Some(1e-4),
                policy: Some("uniform".to_owned()),
                cluster: format!("session-{session}"),
                time_ms: turn as i64 + 1000 * session as i64,
                ..Sample::default()
            });
        }
    }
    set
}

#[test]
fn a_policy_on_a_log_of_kept_models_is_judged_as_drawing_at_the_first_turn() {
    let config = TrainConfig { floor: 0.01, ..TrainConfig::default() };
    let candidate = train_policy(&logs(1, 3000, true), &config, None).expect("training succeeds");
    let lineup =
        evaluate_policy(&sticky_logs(2, 3000), &candidate.policy, None, &config.outcome, &config.evaluation, None)
            .expect("it scores");
    let estimates = lineup.candidate.estimates.as_ref().expect("support is ample");
    // Closed form: the best model for law, kept for all four turns, is worth (0.85 + 3 * 0.5) / 4 = 0.5875; a draw at
    // every turn would be worth 0.85. The policy is not quite greedy.
    assert!(estimates.dr.covers(0.5875) || (estimates.dr.value - 0.5875).abs() < 0.02, "{:?}", estimates.dr);
    assert!(lineup.data.kept_for_session > 3000, "{:?}", lineup.data.kept_for_session);
    assert!(lineup.data.notes().iter().any(|note| note.contains("drawing once for a session")));
}

#[test]
fn probabilities_that_contradict_each_other_are_counted_and_left_out() {
    let mut set = logs(7, 3000, true);
    for (index, sample) in set.samples.iter_mut().enumerate() {
        let mut distribution = vec![1.0 / 3.0; 3];
        match index % 10 {
            // They sum to more than one.
            0 => distribution[(sample.action + 1) % 3] = 0.5,
            // They sum to one, but the propensity is another model's.
            1 => {
                distribution = vec![0.1; 3];
                distribution[sample.action] = 0.8;
            }
            _ => {}
        }
        sample.logged_distribution = Some(distribution);
    }
    let candidate = train_policy(&set, &TrainConfig::default(), None).expect("training succeeds");
    let data = &candidate.report.lineup.data;
    assert_eq!(data.evaluated + data.inconsistent_propensity, data.decisions);
    // A fifth of some 1,800 decisions; its binomial standard deviation is 17.
    assert!((data.inconsistent_propensity as f64 - 0.2 * data.decisions as f64).abs() < 90.0, "{data:?}");
    assert!(candidate.report.to_markdown().contains("had probabilities that contradict each other"));
}

#[test]
fn rewards_that_are_missing_more_often_for_one_model_are_warned_of() {
    let apart = |missing: fn(usize) -> usize| {
        let mut set = logs(7, 3000, true);
        let rows = set.samples.iter_mut().enumerate();
        rows.filter(|(index, sample)| index % 10 < missing(sample.action))
            .for_each(|(_, sample)| sample.quality = None);
        let report = train_policy(&set, &TrainConfig::default(), None).expect("training succeeds").report;
        let named = report.lineup.data.kept_apart().map(|pair| pair.map(|share| share.model.clone()));
        assert_eq!(report.to_markdown().contains("Warning: more of "), named.is_some());
        named
    };
    assert_eq!(apart(|_| 5), None, "half is missing, whatever was chosen");
    let [least, most] = apart(|action| if action == 0 { 7 } else { 4 }).expect("30 % and 60 % are apart");
    assert_eq!(least, "large");
    assert_ne!(most, "large");
}

#[test]
fn a_report_reads_back_as_itself_and_one_that_could_not_is_not_written() {
    let mut report =
        train_policy(&logs(5, 400, true), &TrainConfig::default(), None).expect("training succeeds").report;
    let reread: Report = serde_json::from_slice(&report.to_json().expect("finite")).expect("its own file");
    assert_eq!((&reread.verdict, &reread.lineup.data), (&report.verdict, &report.lineup.data));
    assert_eq!(reread.lineup.candidate.verdict, report.lineup.candidate.verdict);
    report.lineup.logging = report.lineup.logging.map(|estimate| Estimate { high: f64::INFINITY, ..estimate });
    assert!(report.to_json().is_err(), "JSON has no infinity");
}

#[test]
fn too_few_sessions_give_a_candidate_without_numbers() {
    let candidate = train_policy(&logs(2, 60, true), &TrainConfig::default(), None).expect("training succeeds");
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
    let config = TrainConfig { outcome: objective.into(), ..TrainConfig::default() };
    let candidate = train_policy(&logs(3, 1500, true), &config, None).expect("training succeeds");
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
    let run =
        |seed| train_policy(&set, &TrainConfig { seed, ..TrainConfig::default() }, None).expect("training succeeds");
    let (first, second, other) = (run(1), run(1), run(2));
    assert!(first.weights == second.weights, "the same seed gave other weights");
    assert_eq!(first.spec.to_json().unwrap(), second.spec.to_json().unwrap());
    assert_eq!(first.report.to_json().unwrap(), second.report.to_json().unwrap());
    assert!(first.weights != other.weights, "another seed gave the same weights");
}

#[test]
fn the_files_score_like_the_trained_policy() {
    let candidate = train_policy(&logs(5, 400, true), &TrainConfig::default(), None).expect("training succeeds");
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
    let candidate = train_policy(&set, &TrainConfig::default(), None).expect("training succeeds");
    let data = &candidate.report.lineup.data;
    assert!(data.without_propensity > 0 && data.fallbacks > 0 && data.without_reward > 0);
    let left_out = data.without_propensity + data.fallbacks + data.without_reward;
    assert_eq!(data.evaluated + left_out, data.decisions);
    assert_eq!(data.tables["requests"], 7);
}

#[test]
fn an_older_policy_is_evaluated_on_new_logs_whatever_order_their_models_have() {
    let config = TrainConfig::default();
    let candidate = train_policy(&logs(8, 2000, true), &config, None).expect("training succeeds");
    let fresh = logs(9, 2000, true);
    let straight =
        evaluate_policy(&fresh, &candidate.policy, None, &config.outcome, &config.evaluation, None).expect("it scores");
    assert_eq!(straight.candidate.verdict, Verdict::Better);
    let mut turned = fresh.clone();
    turned.actions.reverse();
    turned.samples.iter_mut().for_each(|sample| sample.action = 2 - sample.action);
    assert_eq!(
        evaluate_policy(&turned, &candidate.policy, None, &config.outcome, &config.evaluation, None)
            .expect("it scores"),
        straight
    );
}

#[test]
fn nothing_to_choose_from_and_nothing_to_learn_from_are_said_so() {
    let mut one_model = logs(1, 50, true);
    one_model.actions.truncate(1);
    one_model.samples.retain(|sample| sample.action == 0);
    let mut unrated = logs(1, 50, true);
    unrated.samples.iter_mut().for_each(|sample| sample.quality = None);
    for set in [one_model, unrated, TrainingSet::default()] {
        let refused = train_policy(&set, &TrainConfig::default(), None);
        assert!(matches!(refused, Err(LearnError::NotEnoughData(_))), "{refused:?}");
    }
}
