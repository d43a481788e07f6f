//! Ways to learn a policy, in worlds whose truth is known.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use weir_learners::exports::vllm_sr::DistilConfig;
use weir_learners::{
    Checkpoints, LearnError, LearnedUntil, Learning, NewModel, Outcome, PolicyGradientConfig, RewardModelConfig,
    Sample, TrainConfig, TrainingSet, UpdateConfig, export_vllm_sr, is_holdout, train_policy, train_policy_from,
    update_policy,
};
use weir_policy_runtime::{Action, Exploration, Objective, OwnedContext, Policy, Scratch, Terms};

const MODELS: [&str; 3] = ["large", "medium", "small"];
/// Fresh requests that a policy is tried on.
const REQUESTS: usize = 2000;
/// Cost of a call, USD.
const USD: [f64; 3] = [0.010, 0.004, 0.001];

/// Long prompts need the large model, short ones do not: what a table by domain cannot know.
fn mean_quality(prompt_tokens: u32, model: usize) -> f64 {
    let long = prompt_tokens > 1000;
    match (model, long) {
        (0, _) => 0.85,
        (1, false) => 0.8,
        (1, true) => 0.5,
        (2, false) => 0.75,
        (_, _) => 0.2,
    }
}

fn context(rng: &mut ChaCha8Rng) -> OwnedContext {
    OwnedContext {
        domain: Some("chat".to_owned()),
        prompt_tokens: Some(rng.random_range(50..2000)),
        turn: Some(0),
        ..OwnedContext::default()
    }
}

fn logs(seed: u64, decisions: usize, mean: impl Fn(&OwnedContext, usize, usize) -> f64) -> TrainingSet {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let samples = (0..decisions).map(|place| {
        let context = context(&mut rng);
        let action = rng.random_range(0..3);
        let good = rng.random::<f64>() < mean(&context, action, place);
        Sample {
            context,
            action,
            executed_as_intended: true,
            propensity: Some(1.0 / 3.0),
            quality: Some(f64::from(u8::from(good))),
            cost_usd: Some(USD[action]),
            cluster: format!("session-{place}"),
            time_ms: place as i64 * 60_000,
            ..Sample::default()
        }
    });
    let action =
        |model: &&str| Action { model: (*model).to_owned(), input_usd_per_mtok: None, output_usd_per_mtok: None };
    TrainingSet { actions: MODELS.iter().map(action).collect(), samples: samples.collect(), ..TrainingSet::default() }
}

fn long_prompts_need_the_large_one(context: &OwnedContext, model: usize, _: usize) -> f64 {
    mean_quality(context.prompt_tokens.unwrap_or(0), model)
}

/// True quality and cost of a policy's draws under an objective, over fresh requests.
fn truth(policy: &Policy, exploration: Exploration, objective: &Objective) -> (f64, f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(99);
    let mut scratch = Scratch::default();
    let allowed = vec![true; policy.actions().len()];
    let (mut quality, mut usd) = (0.0, 0.0);
    for _ in 0..REQUESTS {
        let context = context(&mut rng);
        let p = policy
            .propensities_under(
                &Terms { exploration, objective: *objective, wait_s: &[] },
                &context.as_context(),
                &allowed,
                &mut scratch,
            )
            .expect("something is allowed");
        for model in 0..3 {
            quality += p[model] * mean_quality(context.prompt_tokens.unwrap_or(0), model) / REQUESTS as f64;
            usd += p[model] * USD[model] / REQUESTS as f64;
        }
    }
    (quality, usd)
}

/// The most that can be had of the same requests.
fn most(objective: &Objective) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(99);
    let best = |tokens: u32| {
        let of = |model: usize| objective.utility(mean_quality(tokens, model), USD[model]);
        (0..3).map(of).fold(f64::NEG_INFINITY, f64::max)
    };
    (0..REQUESTS).map(|_| best(context(&mut rng).prompt_tokens.unwrap_or(0))).sum::<f64>() / REQUESTS as f64
}

fn gradient(quality_at_least: Option<f64>) -> TrainConfig {
    let config = PolicyGradientConfig { learning_rate: 3e-3, ..PolicyGradientConfig::default() };
    TrainConfig {
        learning: Learning::PolicyGradient { config, quality_at_least },
        floor: 0.02,
        ..TrainConfig::default()
    }
}

/// A reward model that stays at each model's mean: all that is known of prompts has to come from the gradient.
fn blind() -> RewardModelConfig {
    RewardModelConfig { epochs: 0, hidden: vec![32], ..RewardModelConfig::default() }
}

#[test]
fn the_gradient_corrects_a_reward_model_that_is_wrong() {
    let set = logs(1, 6000, long_prompts_need_the_large_one);
    let objective = Objective { quality: 1.0, usd: 30.0 };
    let of = |learning: Learning| {
        let config = TrainConfig {
            learning,
            reward_model: blind(),
            outcome: objective.into(),
            floor: 0.02,
            ..TrainConfig::default()
        };
        let candidate = train_policy(&set, &config, None).expect("training succeeds");
        let (quality, usd) = truth(&candidate.policy, candidate.spec.exploration, &objective);
        (objective.utility(quality, usd), candidate)
    };
    let (blind, _) = of(Learning::InverseGap);
    let (corrected, candidate) = of(gradient(None).learning);
    // Every call to the large one alone earns 0.55.
    let best = most(&objective);
    println!("blind {blind:.4}, corrected {corrected:.4}, best {best:.4}\n{}", candidate.report.to_markdown());
    assert!(blind < 0.57, "{blind}");
    assert!(corrected > best - 0.03, "{corrected} of {best}");
    // What was promised beforehand holds.
    let estimates = candidate.report.lineup.candidate.estimates.expect("support is ample");
    assert!(estimates.dr.low <= corrected && corrected <= estimates.dr.high, "{:?}, truth {corrected}", estimates.dr);
}

#[test]
fn one_network_serves_every_trade_off() {
    let candidate =
        train_policy(&logs(2, 6000, long_prompts_need_the_large_one), &gradient(None), None).expect("it trains");
    let mut before = f64::INFINITY;
    for usd in [0.0, 5.0, 30.0, 100.0, 1000.0] {
        let objective = Objective { quality: 1.0, usd };
        let (quality, cost) = truth(&candidate.policy, Exploration::NONE, &objective);
        let best = most(&objective);
        let reached = objective.utility(quality, cost);
        println!("at {usd} a dollar: {quality:.4} for {cost:.5} USD, {reached:.4} of {best:.4}");
        assert!(cost <= before + 2e-4, "dearer dollars must not cost more");
        assert!(reached > best - 0.02 * (1.0 + usd * 0.004), "{reached} of {best} at {usd}");
        before = cost;
    }
}

#[test]
fn a_wanted_quality_is_reached_at_less_than_full_cost_or_refused() {
    let set = logs(3, 8000, long_prompts_need_the_large_one);
    let candidate = train_policy(&set, &gradient(Some(0.78)), None).expect("training succeeds");
    let spec = &candidate.spec;
    let (quality, usd) = truth(&candidate.policy, spec.exploration, &spec.objective);
    println!("quality {quality:.4} for {usd:.5} USD at a weight of {:.1}", spec.objective.usd);
    // The best for 0.80 takes the small model for short prompts: 0.80 for 0.0056 USD; the large one for all costs 0.01.
    assert!(quality > 0.76, "{quality}");
    assert!(usd < 0.0085 && spec.objective.usd > 0.0, "{usd}");
    let error = train_policy(&set, &gradient(Some(0.99)), None).expect_err("no model is as good");
    assert!(error.to_string().contains("ask for less"), "{error}");
}

#[test]
fn the_same_seed_gives_the_same_policy() {
    let set = logs(4, 1500, long_prompts_need_the_large_one);
    for learning in [gradient(None).learning, Learning::Thompson] {
        let bytes = |seed| {
            let candidate =
                train_policy(&set, &TrainConfig { seed, learning: learning.clone(), ..TrainConfig::default() }, None);
            let candidate = candidate.expect("training succeeds");
            (candidate.weights, candidate.posterior, candidate.spec.to_json().expect("a sound policy"))
        };
        assert!(bytes(5) == bytes(5), "the same seed, another policy");
        assert!(bytes(5).0 != bytes(6).0, "another seed, the same policy");
    }
}

#[test]
fn thompson_and_upper_bounds_explore_what_is_not_known() {
    // Nobody has tried the small model but a dozen times.
    let mut set = logs(5, 3000, long_prompts_need_the_large_one);
    let mut seen = 0;
    set.samples.retain(|sample| {
        seen += usize::from(sample.action == 2);
        sample.action != 2 || seen <= 12
    });
    let linear = RewardModelConfig { hidden: vec![], ..RewardModelConfig::default() };
    let share_of_small = |learning: Learning, set: &TrainingSet| {
        let config = TrainConfig { learning, reward_model: linear.clone(), floor: 0.0, ..TrainConfig::default() };
        let candidate = train_policy(set, &config, None).expect("training succeeds");
        let mut scratch = Scratch::default();
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let shares = (0..500).map(|_| {
            let context = context(&mut rng);
            let p = candidate.policy.propensities(&context.as_context(), &[true; 3], &mut scratch).expect("all may");
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            p[2]
        });
        shares.sum::<f64>() / 500.0
    };
    let unknown = share_of_small(Learning::Thompson, &set);
    let known = share_of_small(Learning::Thompson, &logs(5, 3000, long_prompts_need_the_large_one));
    println!("Thompson: {unknown:.4} where little is known of it, {known:.4} where much is");
    assert!(unknown > 2.0 * known && unknown > 0.02, "{unknown} and {known}");
    let bound = |width| share_of_small(Learning::UpperBound { width }, &set);
    let (none, wide) = (bound(0.0), bound(3.0));
    println!("upper bound: {none:.4} at width 0, {wide:.4} at 3");
    assert!(wide > none + 0.05, "{none} and {wide}");
}

#[test]
fn a_new_model_gets_its_share_and_the_rest_is_judged() {
    let set = logs(6, 3000, long_prompts_need_the_large_one);
    let new = NewModel { model: "newest".to_owned(), like: "medium".to_owned(), share: 0.03 };
    for learning in [Learning::InverseGap, Learning::Thompson, gradient(None).learning] {
        let config = TrainConfig { learning, new_models: vec![new.clone()], ..TrainConfig::default() };
        let candidate = train_policy(&set, &config, None).expect("training succeeds");
        let (policy, mut scratch) = (&candidate.policy, Scratch::default());
        let context = context(&mut ChaCha8Rng::seed_from_u64(1));
        let p = policy.propensities(&context.as_context(), &[true; 4], &mut scratch).expect("all may").to_vec();
        assert!((p[3] - 0.03).abs() < 1e-12 && (p.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{p:?}");
        let only =
            policy.propensities(&context.as_context(), &[false, false, false, true], &mut scratch).expect("one may");
        assert_eq!(only, [0.0, 0.0, 0.0, 1.0]);
        let none = policy
            .propensities_under(
                &Terms { exploration: Exploration::NONE, ..policy.terms() },
                &context.as_context(),
                &[true; 4],
                &mut scratch,
            )
            .expect("all may");
        assert_eq!(none[3], 0.0, "where nothing is explored, nothing new is tried");
        assert!(candidate.report.lineup.candidate.estimates.is_some(), "{:?}", candidate.report.lineup.candidate);
    }
    let wrong = NewModel { like: "unheard-of".to_owned(), ..new };
    let error = train_policy(&set, &TrainConfig { new_models: vec![wrong], ..TrainConfig::default() }, None)
        .expect_err("no such model");
    assert!(error.to_string().contains("is not in the logs"), "{error}");
}

#[test]
fn energy_and_seconds_move_the_policy_where_they_weigh_something() {
    // Quality is the same everywhere; the large model takes more energy, the small one more time.
    let mut set = logs(9, 3000, |_, _, _| 0.8);
    for sample in &mut set.samples {
        sample.energy_wh = Some([0.9, 0.3, 0.1][sample.action]);
        sample.latency_s = Some([2.0, 4.0, 9.0][sample.action]);
    }
    let favourite = |weights: &str| {
        let outcome = Outcome::from_toml(&format!("[weights]\nquality = 1\n{weights}")).expect("a sound file");
        let candidate =
            train_policy(&set, &TrainConfig { outcome, ..TrainConfig::default() }, None).expect("it trains");
        let mut scratch = Scratch::default();
        let context = context(&mut ChaCha8Rng::seed_from_u64(1));
        let utility = candidate.policy.predict(&context.as_context(), &mut scratch).utility.to_vec();
        (0..3).max_by(|a, b| utility[*a].total_cmp(&utility[*b])).expect("three")
    };
    assert_eq!(favourite("energy_wh = 1"), 2, "energy alone");
    assert_eq!(favourite("latency_s = 0.1"), 0, "time alone");
    // By hand, units of value: 0.9 + 0.16 = 1.06, 0.3 + 0.32 = 0.62, 0.1 + 0.72 = 0.82.
    assert_eq!(favourite("energy_wh = 1\nlatency_s = 0.08"), 1, "both");
    assert_eq!(favourite("energy_wh = 1\nlatency_s = 0.08\nusd = 0.001"), 1, "and dollars that hardly count");

    // A pool that would let the request wait for five seconds more is no favourite any longer.
    let outcome = Outcome::from_toml("[weights]\nquality = 1\nenergy_wh = 1\nlatency_s = 0.08").expect("a sound file");
    let policy =
        train_policy(&set, &TrainConfig { outcome, ..TrainConfig::default() }, None).expect("it trains").policy;
    let mut scratch = Scratch::default();
    let context = context(&mut ChaCha8Rng::seed_from_u64(1));
    let mut choice = |wait_s: &[f64]| {
        let terms = Terms { exploration: Exploration::NONE, wait_s, ..policy.terms() };
        policy
            .decide_under(&terms, &context.as_context(), &[true; 3], 0.5, &mut scratch)
            .map(|decision| decision.action)
    };
    assert_eq!(choice(&[]).expect("all may"), 1);
    // By hand: 0.62 + 5 · 0.08 = 1.02 is more than the small model's 0.82.
    assert_eq!(choice(&[0.0, 5.0, 0.0]).expect("all may"), 2);
    assert!(choice(&[0.0]).is_err(), "a wait for each, or none");
}

#[test]
fn what_has_changed_is_forgotten_by_half_lives() {
    // For a week the medium model is best, and then the small one is. A decision a minute: 10,080 of them a week.
    let drifting = |_: &OwnedContext, model: usize, place: usize| match (model, place < 9000) {
        (1, true) | (2, false) => 0.9,
        _ => 0.5,
    };
    let set = logs(7, 10_080, drifting);
    let best = |half_life_days| {
        let reward_model = RewardModelConfig { half_life_days, ..RewardModelConfig::default() };
        let candidate =
            train_policy(&set, &TrainConfig { reward_model, ..TrainConfig::default() }, None).expect("it trains");
        let mut scratch = Scratch::default();
        let context = context(&mut ChaCha8Rng::seed_from_u64(1));
        let guessed = candidate.policy.predict(&context.as_context(), &mut scratch).quality.to_vec();
        (0..3).max_by(|a, b| guessed[*a].total_cmp(&guessed[*b])).expect("three")
    };
    assert_eq!(best(None), 1, "nine tenths of the log say so");
    assert_eq!(best(Some(0.2)), 2, "the last five hours say so");
}

#[test]
fn what_cannot_be_learned_from_is_refused_with_what_to_do() {
    let mut set = logs(8, 600, long_prompts_need_the_large_one);
    set.samples.iter_mut().for_each(|sample| sample.propensity = None);
    let error = train_policy(&set, &gradient(None), None).expect_err("nothing can be corrected");
    assert!(matches!(error, LearnError::NotEnoughData(_)) && error.to_string().contains("log propensities"), "{error}");
    let nonsense = PolicyGradientConfig { temperature: 0.0, ..PolicyGradientConfig::default() };
    let learning = Learning::PolicyGradient { config: nonsense, quality_at_least: None };
    let set = logs(8, 600, long_prompts_need_the_large_one);
    let error =
        train_policy(&set, &TrainConfig { learning, ..TrainConfig::default() }, None).expect_err("no temperature");
    assert!(error.to_string().contains("above 0"), "{error}");
    let mut wild = logs(8, 600, long_prompts_need_the_large_one);
    wild.samples[7].quality = Some(f64::NAN);
    let error = train_policy(&wild, &TrainConfig::default(), None).expect_err("NaN is no quality");
    assert!(error.to_string().contains("not a number"), "{error}");
    let reward_model = RewardModelConfig { learning_rate: 1e30, ..RewardModelConfig::default() };
    let error =
        train_policy(&set, &TrainConfig { reward_model, ..TrainConfig::default() }, None).expect_err("it explodes");
    assert!(matches!(error, LearnError::Diverged { .. }), "{error}");
    let empty = TrainingSet { samples: Vec::new(), ..set.clone() };
    assert!(matches!(train_policy(&empty, &TrainConfig::default(), None), Err(LearnError::NotEnoughData(_))));
    let alone = TrainingSet { actions: set.actions[..1].to_vec(), ..set.clone() };
    let error = train_policy(&alone, &TrainConfig::default(), None).expect_err("nothing to choose");
    assert!(error.to_string().contains("at least two"), "{error}");
    let half_life = RewardModelConfig { half_life_days: Some(0.0), ..RewardModelConfig::default() };
    let error = train_policy(&set, &TrainConfig { reward_model: half_life, ..TrainConfig::default() }, None)
        .expect_err("no time");
    assert!(error.to_string().contains("half_life_days"), "{error}");
}

/// Every fit of a training has its own checkpoint: whichever of them a stop leaves, the rest is done again to the same bytes.
#[test]
fn a_stopped_training_of_several_networks_goes_on() {
    let set = logs(10, 1500, long_prompts_need_the_large_one);
    let config = gradient(None);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoints = || Checkpoints::open(folder.path(), "these data and settings").expect("the folder opens");
    let whole = train_policy(&set, &config, None).expect("training succeeds").weights;
    let kept = train_policy_from(&set, &config, None, Some(&checkpoints())).expect("training succeeds").weights;
    assert!(whole == kept, "checkpoints change nothing");
    let files = std::fs::read_dir(folder.path()).expect("a folder").map(|file| file.expect("a file").path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "checkpoint")).collect();
    files.sort();
    // The reward model, five of the others' folds, two halves, everything.
    assert_eq!(files.len(), 9);
    for left in [0, 1, 4, 7] {
        files[left..].iter().for_each(|file| drop(std::fs::remove_file(file)));
        let again = train_policy_from(&set, &config, None, Some(&checkpoints())).expect("training succeeds").weights;
        assert!(again == whole, "with {left} fits done");
    }
    let held = checkpoints();
    let other = Checkpoints::open(folder.path(), "others").unwrap_err().to_string();
    assert!(other.contains("another training keeps its checkpoints in"), "{other}");
    drop(held);
    let before = std::time::Instant::now();
    let done = train_policy_from(&set, &config, None, Some(&checkpoints())).expect("training succeeds").weights;
    println!("nothing left to do: {:?}", before.elapsed());
    assert!(done == whole);
}

/// What comes in small lots teaches as much as what comes at once, but for the linearisation of each lot.
#[test]
fn a_policy_learns_on_from_the_stream() {
    let all = logs(11, 9000, |_, model, place| match (model, place < 3000) {
        // At first the medium model is best, and from then on the small one.
        (1, true) | (2, false) => 0.9,
        _ => 0.5,
    });
    let first = TrainingSet { samples: all.samples[..3000].to_vec(), ..all.clone() };
    let config = TrainConfig { learning: Learning::Thompson, ..TrainConfig::default() };
    let parent = train_policy(&first, &config, None).expect("training succeeds");
    let guessed = |policy: &Policy| {
        let mut scratch = Scratch::default();
        policy.predict(&context(&mut ChaCha8Rng::seed_from_u64(1)).as_context(), &mut scratch).quality.to_vec()
    };
    let learned_on = |lots: usize, half_life_days| {
        let (mut policy, mut until_ms) = (parent.policy.clone(), first.samples[2999].time_ms);
        let config = UpdateConfig { half_life_days, ..UpdateConfig::default() };
        let mut decisions = 0;
        for lot in 1..=lots {
            let set = TrainingSet { samples: all.samples[..3000 + 6000 * lot / lots].to_vec(), ..all.clone() };
            let from = LearnedUntil { policy: &policy, until_ms, holdout_share: 0.3 };
            let (candidate, until) =
                update_policy(&set, from, None, &config).expect("it learns").expect("something came");
            decisions += candidate.report.train_decisions;
            (policy, until_ms) = (candidate.policy, until);
        }
        let nothing = LearnedUntil { policy: &policy, until_ms, holdout_share: 0.3 };
        assert!(update_policy(&all, nothing, None, &config).expect("it looks").is_none(), "nothing is learned twice");
        (guessed(&policy), decisions)
    };
    let (before, (at_once, once), (in_lots, lots)) =
        (guessed(&parent.policy), learned_on(1, None), learned_on(60, None));
    let (forgetful, _) = learned_on(60, Some(0.5));
    println!("before {before:?}\nat once {at_once:?}\nin 60 lots {in_lots:?}\nforgetful {forgetful:?}");
    // Each decision counts once, those kept for judging not at all.
    let kept = all.samples[3000..].iter().filter(|sample| !is_holdout(&sample.cluster, 0.3)).count();
    assert_eq!((once, lots), (kept, kept));
    assert!(before[1] > before[2] + 0.2, "{before:?}");
    for (a, b) in at_once.iter().zip(&in_lots) {
        assert!((a - b).abs() < 0.02, "{at_once:?} {in_lots:?}");
    }
    // By hand, with what was known as a parabola in the logit w: 0.09 (2.197 - w) = 2 (σ(w) - 0.5) for the medium model, whose 0.9 was
    // known with a curvature of 0.09, and 0.25 (0 - w) + 2 (0.9 - σ(w)) = 0 for the small one.
    assert!((in_lots[1] - 0.584).abs() < 0.05 && (in_lots[2] - 0.757).abs() < 0.05, "{in_lots:?}");
    // Half a day of half-life over 4.2 days leaves what is new.
    assert!(forgetful[2] > 0.83 && forgetful[1] < 0.57, "{forgetful:?}");
    let plain = train_policy(&first, &TrainConfig::default(), None).expect("training succeeds");
    let from = LearnedUntil { policy: &plain.policy, until_ms: 0, holdout_share: 0.3 };
    let error = update_policy(&all, from, None, &UpdateConfig::default()).expect_err("it cannot");
    assert!(error.to_string().contains("--learner thompson"), "{error}");
}

/// A new model starts out as sure as the prior, wherever its guess stands: its first bad answers must move it, and not past all bounds.
#[test]
fn a_new_model_that_disappoints_is_found_out() {
    let first = logs(12, 3000, |_, model, _| if model == 1 { 0.95 } else { 0.5 });
    let new_models = vec![NewModel { model: "newest".to_owned(), like: "medium".to_owned(), share: 0.03 }];
    let config = TrainConfig { learning: Learning::Thompson, new_models, ..TrainConfig::default() };
    let parent = train_policy(&first, &config, None).expect("training succeeds").policy;
    for lot in [30, 300, 3000] {
        let mut later = logs(13, lot, |_, _, _| 0.3);
        later.actions = parent.actions().to_vec();
        for (place, sample) in later.samples.iter_mut().enumerate() {
            sample.action = 3;
            sample.time_ms += first.samples[2999].time_ms + 60_000;
            sample.cluster = format!("later-{place}");
        }
        let from = LearnedUntil { policy: &parent, until_ms: first.samples[2999].time_ms, holdout_share: 0.3 };
        let (candidate, _) =
            update_policy(&later, from, None, &UpdateConfig::default()).expect("it learns").expect("it came");
        let mut scratch = Scratch::default();
        let guessed =
            candidate.policy.predict(&context(&mut ChaCha8Rng::seed_from_u64(1)).as_context(), &mut scratch).quality[3];
        println!("after {lot} answers of quality 0.3: {guessed:.3}");
        // Three decisions' worth of standard error for the smallest lot, and the prior's pull.
        assert!((0.1..0.6).contains(&guessed), "{guessed} after {lot}");
        assert!(lot < 3000 || (guessed - 0.3).abs() < 0.05, "{guessed} after {lot}");
    }
}

#[test]
fn a_cost_that_has_changed_is_forgotten_too() {
    let mut set = logs(14, 10_080, |_, _, _| 0.5);
    for (place, sample) in set.samples.iter_mut().enumerate() {
        sample.cost_usd = Some(if place < 9000 { 0.010 } else { 0.002 });
    }
    let guessed = |half_life_days| {
        let reward_model = RewardModelConfig { half_life_days, ..RewardModelConfig::default() };
        let policy = train_policy(&set, &TrainConfig { reward_model, ..TrainConfig::default() }, None)
            .expect("it trains")
            .policy;
        let mut scratch = Scratch::default();
        policy.predict(&context(&mut ChaCha8Rng::seed_from_u64(1)).as_context(), &mut scratch).cost_usd[0]
    };
    let (all, recent) = (guessed(None), guessed(Some(0.2)));
    println!("of all {all:.5}, of the last hours {recent:.5}");
    // Nine tenths at 0.010 and one at 0.002; the newest 18 hours, three half-lives and more, at 0.002: their part is 1 - 2^(-3.75).
    assert!((all - 0.00914).abs() < 0.001, "{all}");
    assert!((recent - (0.002 + 0.008 * 0.074)).abs() < 0.0008, "{recent}");
}

#[test]
fn a_wanted_quality_is_bought_with_watt_hours_where_dollars_weigh_nothing() {
    let mut set = logs(15, 8000, long_prompts_need_the_large_one);
    set.samples.iter_mut().for_each(|sample| sample.energy_wh = Some(1000.0 * USD[sample.action]));
    let outcome = Outcome::from_toml("[weights]\nquality = 1\nenergy_wh = 0.5").expect("a sound file");
    let candidate =
        train_policy(&set, &TrainConfig { outcome, ..gradient(Some(0.78)) }, None).expect("training succeeds");
    let spec = &candidate.spec;
    let (quality, usd) = truth(&candidate.policy, spec.exploration, &spec.objective);
    println!("quality {quality:.4} for {:.3} Wh at a weight of {:.4} of the price", 1000.0 * usd, spec.objective.usd);
    assert!(quality > 0.76 && usd < 0.0085, "{quality} for {usd}: the large model for all takes 10 Wh");
    assert!(spec.objective.usd > 0.0 && (spec.objective.usd - 1.0).abs() > 1e-6, "{:?}", spec.objective);
}

#[test]
fn a_router_that_tries_nothing_gets_no_model_on_probation() {
    let mut set = logs(16, 2000, long_prompts_need_the_large_one);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for sample in &mut set.samples {
        sample.context.embedding = Some((0..8).map(|_| rng.random_range(-1.0..1.0)).collect());
    }
    let new_models = vec![NewModel { model: "newest".to_owned(), like: "large".to_owned(), share: 0.03 }];
    let config = TrainConfig { new_models, ..TrainConfig::default() };
    let mut candidate = train_policy(&set, &config, None).expect("training succeeds");
    let files = export_vllm_sr(&set, &mut candidate, &config, &DistilConfig::of(8, 1)).expect("it is distilled");
    assert!(!files.is_empty());
    for (name, bytes) in files {
        assert!(!String::from_utf8_lossy(&bytes).contains("newest"), "{name} offers a model without evidence");
    }
}
