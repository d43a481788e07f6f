//! `weir learn`: train a policy or an estimator.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_learners::cascade::{CascadeLearning, learn_cascade};
use weir_learners::{
    ActionPart, Learning, NewModel, PolicyGradientConfig, RewardModelConfig, TrainConfig, UpdateConfig, Wanted,
    hallucination,
};
use weir_policy_publisher::Registry;
use weir_policy_publisher::keys::SigningKey;
use weir_policy_runtime::{
    ActionParts, CASCADE_FILE, CASCADE_SCHEMA, Cascade, Fallback, Policy as RuntimePolicy, PolicyId, PoolLimits,
    Support,
};
use weir_store::Store;

use super::{configuration, existing_store, print_json};
use crate::cli::{CascadeArgs, Common, LearnArgs, LearnKind, LearnerArgs, LearnerName};
use crate::config::Config;
use crate::error::{Failure, Result};
use crate::progress::Progress;
use crate::retention::KvCache;
use crate::training::{Beside, InForce};
use crate::{energy, outcome, services, training};

/// Trains what was asked for.
pub async fn run(common: &Common, args: LearnArgs) -> Result<()> {
    match args.kind {
        LearnKind::Policy {
            key,
            name,
            seed,
            tag,
            vllm_sr,
            estimate_propensities,
            learner,
            kv_blocks,
            kv_pool,
            kv_pinned,
            cascade,
        } => {
            let key = SigningKey::read(&key)?;
            let kv_pinned = kv_pinned.unwrap_or(KV_PINNED);
            let with = With {
                cascade: cascade.as_deref().map(read_cascade).transpose()?,
                cache: kv_blocks.map(|blocks| KvCache { pool: kv_pool, blocks, pinned_share: kv_pinned }),
                vllm_sr,
            };
            let logs = Logs { tag: tag.as_deref(), estimate_propensities };
            policy(common, &key, &name, (seed, &learner), logs, with).await
        }
        LearnKind::Update { key, policy, half_life_days, settled_share, every } => {
            let key = SigningKey::read(&key)?;
            let every = every.map(Duration::from_secs);
            update(common, &key, policy, Update { half_life_days, settled_share, every }).await
        }
        LearnKind::Cascade(args) => cascade(common, &args).await,
        LearnKind::Sessions(args) => super::learn_sessions::run(common, &args).await,
        LearnKind::Hallucination { labelled, out, seed } => {
            hallucination_estimator(common, &labelled, &out, seed).await
        }
    }
}

/// Share of a prefix cache's blocks that may be pinned, where nobody says.
const KV_PINNED: f64 = 0.5;
/// Standard deviations of upper bounds, where nobody says.
const BOUND_WIDTH: f64 = 1.0;

/// Which logs to learn from.
struct Logs<'a> {
    tag: Option<&'a str>,
    estimate_propensities: bool,
}

/// What the bundle is to bring beside the policy.
struct With {
    cache: Option<KvCache>,
    cascade: Option<Cascade>,
    /// Dimensions of a vLLM Semantic Router's embeddings.
    vllm_sr: Option<u32>,
}

async fn policy(
    common: &Common,
    key: &SigningKey,
    name: &str,
    (seed, learner): (u64, &LearnerArgs),
    logs: Logs<'_>,
    with: With,
) -> Result<()> {
    let learning = learning(learner)?;
    let config = configuration(common)?;
    if with.vllm_sr.is_some() && !config.objective.action_parts.is_empty() {
        return Err(Failure::user(
            "vLLM Semantic Router's selectors choose a model and nothing else: leave out --vllm-sr, or objective.action_parts",
        ));
    }
    let new_models = learner.new_model.iter().map(|text| new_model(text)).collect::<Result<Vec<_>>>()?;
    let store = existing_store(&config).await?;
    let trust = services::trust_in(&config, key)?;
    let tag = logs.tag.map(parse_tag).transpose()?;
    let outcome::InForce { outcome, source } = outcome::of(&config)?;
    let wanted = Wanted {
        tag: tag.clone(),
        risk: outcome.looks_at_risk(),
        settled_share: settled_share(learner),
        action_parts: config.objective.action_parts.clone(),
    };
    let mut set = weir_learners::training_set_of(&store, &wanted).await?;
    some_have(logs.tag, set.samples.len())?;
    if logs.estimate_propensities {
        weir_learners::estimate_propensities(&mut set);
    }
    energy::fill(&mut set, &config.energy)?;
    let train = TrainConfig {
        seed,
        outcome,
        gamma: config.objective.gamma,
        floor: config.objective.floor,
        learning,
        new_models,
        reward_model: RewardModelConfig { half_life_days: learner.half_life_days, ..RewardModelConfig::default() },
        ..TrainConfig::default()
    };
    let registry = Registry::open(&store, trust).await?;
    let estimator =
        config.estimators.hallucination.as_ref().map(|section| super::run::read_estimator(&section.artifact));
    let mut knobs = crate::knobs::files(&store, with.cache).await?;
    if let Some(cascade) = &with.cascade {
        known_to(
            cascade,
            set.actions.iter().map(|action| &*action.model).chain(train.new_models.iter().map(|new| &*new.model)),
        )?;
        knobs.insert(CASCADE_FILE.to_owned(), cascade.to_json().map_err(Failure::user)?);
    }
    let beside = Beside {
        in_force: InForce::of(&registry, None, &ActionPart::of_actions(&set.actions)).await?,
        estimator: estimator.transpose()?.map(|estimator| estimator.summary()),
        knobs,
        vllm_sr: with.vllm_sr,
        outcome: source,
    };
    let progress = Progress::wait("training and judging a candidate", common.json);
    let proposal = training::train(&set, &train, name, tag.as_ref(), &beside, learner.checkpoint.as_deref())?;
    drop(progress);
    training::propose(&registry, &proposal.bundle, key, "weir learn").await?;
    let report = &proposal.candidate.report;
    if common.json {
        return print_json(&serde_json::json!({
            "policy_id": proposal.bundle.id,
            "verdict": report.verdict,
            "report": report,
        }));
    }
    println!("{}", report.to_markdown());
    training::say_what_next(&proposal.bundle.id, &report.verdict);
    Ok(())
}

/// How a policy learns on.
struct Update {
    half_life_days: Option<f64>,
    settled_share: f64,
    every: Option<Duration>,
}

/// Proposes what the policy has become, once or again and again. Where each stands is in its bundle: whoever names the last one proposed
/// with --policy goes on from there.
async fn update(common: &Common, key: &SigningKey, named: Option<String>, how: Update) -> Result<()> {
    let config = configuration(common)?;
    let store = existing_store(&config).await?;
    let registry = Registry::open(&store, services::trust_in(&config, key)?).await?;
    let mut from = match named {
        Some(named) => registry.resolve(&named).await?,
        None => registry.load().await?.state.active().cloned().ok_or_else(|| {
            Failure::user("no policy is active: name one with --policy, or approve one with `weir policy approve`")
        })?,
    };
    let mut stop = how.every.map(|_| super::stop_on_signal());
    loop {
        let once = update_once(common, &config, (&store, &registry), (key, &from), &how).await;
        let (Some(every), Some(stop)) = (how.every, &mut stop) else { return once.map(drop) };
        match once {
            Ok(next) => from = next.unwrap_or(from),
            Err(failure) if failure.is_users() => return Err(failure),
            Err(failure) => tracing::warn!(%failure, "this time the policy did not learn on; it is tried again"),
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            _ = stop.changed() => return Ok(()),
        }
    }
}

async fn update_once(
    common: &Common,
    config: &Config,
    (store, registry): (&Store, &Registry),
    (key, from): (&SigningKey, &PolicyId),
    how: &Update,
) -> Result<Option<PolicyId>> {
    let bundle = registry.bundle(from).await?.0;
    let outcome::InForce { outcome, source } = outcome::of(config)?;
    let wanted = Wanted {
        tag: training::tag_of(&bundle.manifest.lineage),
        risk: outcome.looks_at_risk(),
        settled_share: Some(how.settled_share),
        action_parts: ActionPart::of_actions(RuntimePolicy::load(&bundle).map_err(Failure::user)?.actions()),
    };
    let mut set = weir_learners::training_set_of(store, &wanted).await?;
    energy::fill(&mut set, &config.energy)?;
    let in_force = InForce::of(registry, None, &ActionPart::of_actions(&set.actions)).await?;
    let update = UpdateConfig { half_life_days: how.half_life_days, outcome, ..UpdateConfig::default() };
    let Some(proposal) = training::learn_on(&set, &bundle, in_force.as_ref(), (&update, source.as_ref()))? else {
        eprintln!("weir: nothing has come since {} that is old enough to learn from", from.short());
        return Ok(None);
    };
    training::propose(registry, &proposal.bundle, key, "weir learn update").await?;
    let (id, report) = (proposal.bundle.id, proposal.candidate.report);
    if common.json {
        print_json(
            &serde_json::json!({ "policy_id": id, "from": from, "verdict": report.verdict, "decisions": report.train_decisions }),
        )?;
    } else {
        println!(
            "proposed {id}, learned on from {} by {} decisions: {}",
            from.short(),
            report.train_decisions,
            report.verdict
        );
    }
    Ok(Some(id))
}

/// What learns on takes each decision once, so it has to wait for its opinions from the first.
fn settled_share(args: &LearnerArgs) -> Option<f64> {
    const OF_WHAT_LEARNS_ON: f64 = 0.95;
    let learns_on = matches!(args.learner, LearnerName::Thompson | LearnerName::UpperBound);
    args.settled_share.or(learns_on.then_some(OF_WHAT_LEARNS_ON))
}

fn learning(args: &LearnerArgs) -> Result<Learning> {
    if args.quality_at_least.is_some() && args.learner != LearnerName::PolicyGradient {
        return Err(Failure::user("--quality-at-least takes --learner policy-gradient"));
    }
    if args.bound_width.is_some() && args.learner != LearnerName::UpperBound {
        return Err(Failure::user("--bound-width takes --learner upper-bound"));
    }
    Ok(match args.learner {
        LearnerName::InverseGap => Learning::InverseGap,
        LearnerName::Thompson => Learning::Thompson,
        LearnerName::UpperBound => Learning::UpperBound { width: args.bound_width.unwrap_or(BOUND_WIDTH) },
        LearnerName::PolicyGradient => Learning::PolicyGradient {
            config: PolicyGradientConfig::default(),
            quality_at_least: args.quality_at_least,
        },
    })
}

/// `MODEL=LIKE:SHARE`. Names may hold colons (a tag of a local model), so the share comes after the last one; the equals
/// sign after `;provider` or `;reasoning` belongs to an action's name.
fn new_model(text: &str) -> Result<NewModel> {
    let is_of_part = |at: &usize| [";provider", ";reasoning"].iter().any(|part| text[..*at].ends_with(part));
    let equals = text.match_indices('=').map(|(at, _)| at).find(|at| !is_of_part(at));
    let parts =
        equals.map(|at| (&text[..at], &text[at + 1..])).and_then(|(model, rest)| Some((model, rest.rsplit_once(':')?)));
    let parts = parts.and_then(|(model, (like, share))| Some((model, like, share.parse::<f64>().ok()?)));
    match parts {
        Some((model, like, share)) if !model.is_empty() && !like.is_empty() && share > 0.0 && share < 0.5 => {
            Ok(NewModel { model: model.to_owned(), like: like.to_owned(), share })
        }
        _ => Err(Failure::user(format!(
            "--new-model {text} is not MODEL=LIKE:SHARE with a share above 0 and below 0.5, for example --new-model qwen4-32b=qwen3-32b:0.02"
        ))),
    }
}

fn parse_tag(tag: &str) -> Result<(String, String)> {
    tag.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| Failure::user(format!("--tag {tag} is not NAME=VALUE, for example --tag split=train")))
}

/// Refuses a tag that no request has.
fn some_have(tag: Option<&str>, requests: usize) -> Result<()> {
    match tag {
        Some(tag) if requests == 0 => {
            Err(Failure::user(format!("no logged request that a model answered has the gateway tag {tag}")))
        }
        _ => Ok(()),
    }
}

/// A cascade that an operator may have changed.
fn read_cascade(file: &Path) -> Result<Cascade> {
    let unusable = |why: String| Failure::user(format!("{}: {why}", file.display()));
    let bytes = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    Cascade::from_json(&bytes).map_err(|error| unusable(error.to_string()))
}

/// A cascade of models that the policy does not know would send requests to nobody.
fn known_to<'a>(cascade: &Cascade, actions: impl Iterator<Item = &'a str>) -> Result<()> {
    let known: BTreeSet<&str> = actions.map(|action| ActionParts::of(action).model).collect();
    let middle = cascade.mid_tier.as_ref().map(|tier| &tier.model);
    match [&cascade.cheap_model, &cascade.strong_model]
        .into_iter()
        .chain(middle)
        .find(|name| !known.contains(name.as_str()))
    {
        None => Ok(()),
        Some(stranger) => Err(Failure::user(format!(
            "the cascade names the model {stranger:?}, which the logs do not; they name {}: mend the cascade's file",
            Vec::from_iter(known).join(", ")
        ))),
    }
}

/// Where an operator says nothing: ten waiting requests an instance or a second of waiting are an overload, half of that is fine again;
/// five seconds of overload are borne, and half a minute without one is asked for.
const LIMITS: PoolLimits = PoolLimits {
    engine_waiting_max: 10.0,
    engine_waiting_resume: 5.0,
    queue_wait_ms_max: 1_000.0,
    queue_wait_ms_resume: 500.0,
    grace_ms: 5_000,
    recovery_ms: 30_000,
    stale_after_ms: 60_000,
};

async fn cascade(common: &Common, args: &CascadeArgs) -> Result<()> {
    let config = configuration(common)?;
    if args.out.exists() && !args.overwrite {
        return Err(Failure::user(format!(
            "{} is there already, perhaps with limits that somebody changed: give another name, or --overwrite",
            args.out.display()
        )));
    }
    let store = existing_store(&config).await?;
    let wanted = Wanted { tag: args.tag.as_deref().map(parse_tag).transpose()?, ..Wanted::default() };
    let set = weir_learners::training_set_of(&store, &wanted).await?;
    some_have(args.tag.as_deref(), set.samples.len())?;
    let learning = CascadeLearning {
        alpha: args.alpha,
        delta: args.delta,
        weight_max: args.weight_max,
        ..CascadeLearning::default()
    };
    let progress = Progress::wait("learning when a cheap answer will do", common.json);
    let learned = learn_cascade(&set, &args.cheap, &args.strong, &learning)?;
    drop(progress);
    let routers = [("vllm-semantic-router", Support::Unsupported), ("weir-decide", Support::Enforced)];
    let cascade = Cascade {
        schema: CASCADE_SCHEMA,
        routers: routers.into_iter().map(|(router, support)| (router.to_owned(), support)).collect(),
        cheap_model: learned.cheap.clone(),
        strong_model: learned.strong.clone(),
        accept: learned.accept.clone(),
        threshold: learned.choice.threshold,
        evidence: learned.evidence(),
        limits: LIMITS,
        mid_tier: None,
        fallbacks: vec![Fallback::CompressAndRetry, Fallback::ServeCheap],
    };
    let json = cascade.to_json().map_err(Failure::ours)?;
    write_whole(&args.out, &json)?;
    if common.json {
        return print_json(&learned);
    }
    print!("{}", learned.to_text());
    println!("written to {}; its limits and fallbacks are yours to change", args.out.display());
    Ok(())
}

/// Written whole or not at all: a reader must never see half an artifact.
fn write_whole(out: &Path, bytes: &[u8]) -> Result<()> {
    let partial = out.with_extension("partial");
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, out))
        .map_err(|error| Failure::user(format!("cannot write {}: {error}", out.display())))
}

async fn hallucination_estimator(common: &Common, labelled: &[PathBuf], out: &Path, seed: u64) -> Result<()> {
    let mut pairs = hallucination::Labelled::default();
    for path in labelled {
        if !path.exists() {
            return Err(Failure::user(format!("there is no labelled set at {}", path.display())));
        }
        pairs.append(hallucination::read_labelled(path).await?);
    }
    let config = hallucination::HallucinationConfig { seed, ..Default::default() };
    let progress = Progress::wait("training and judging the estimator", common.json);
    let (estimator, report) = hallucination::train_on_labelled(&pairs, &config)?;
    drop(progress);
    write_whole(out, estimator.bytes())?;
    if common.json {
        return print_json(&report);
    }
    println!("judged on documents that training has not seen:");
    for (method, found) in &report.overall {
        println!(
            "  {method:<16} AUROC {:.3}  AUPRC {:.3}  F1 {:.3}  Brier {:.3}",
            found.auroc, found.auprc, found.f1, found.brier
        );
    }
    for warning in &report.warnings {
        println!("warning: {warning}");
    }
    println!("estimator {} in {}", estimator.id(), out.display());
    Ok(())
}
