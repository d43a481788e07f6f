//! From tables to a proposed policy: training set, candidate, bundle, signature, registry.
//!
//! `weir learn policy` and the demo take this same path.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use weir_learners::exports::vllm_sr::DistilConfig;
use weir_learners::length::{OutputLength, fit_output_length};
use weir_learners::ope::Verdict;
use weir_learners::{
    ActionPart, Candidate, Checkpoints, EstimatorSummary, LearnError, LearnedUntil, PolicyInForce, TrainConfig,
    TrainingSet, UpdateConfig,
};
use weir_policy_publisher::Registry;
use weir_policy_publisher::keys::SigningKey;
use weir_policy_runtime::{
    Bundle, Lineage, Manifest, POLICY_FILE, POSTERIOR_FILE, Policy, PolicyId, REPORT_JSON_FILE, REPORT_MARKDOWN_FILE,
    WEIGHTS_FILE,
};

use crate::error::{Failure, Result};
use crate::outcome;

/// The release, and the commit that it was built from (`unknown` outside a checkout; see `build.rs`).
pub const CODE_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("WEIR_COMMIT"));

/// Key of the lineage's data under which the share of held-out sessions stands.
pub const HOLDOUT_SHARE: &str = "holdout_share";

/// Key of the lineage's data under which the arrival of the newest decision stands that a policy was learned from, ms since the epoch.
const UNTIL_MS: &str = "until_ms";

/// Key of the lineage's data under which the gateway tag of the requests trained on stands, as `NAME=VALUE`.
const TAG: &str = "tag";

/// What a candidate is held against, and what its report shows beside it.
#[derive(Default)]
pub struct Beside {
    pub in_force: Option<InForce>,
    /// The hallucination estimator that runs in the stream.
    pub estimator: Option<EstimatorSummary>,
    /// Files that the bundle holds beside the policy: tables for other knobs.
    pub knobs: BTreeMap<String, Vec<u8>>,
    /// The signed file that says what an outcome is worth.
    pub outcome: Option<outcome::Source>,
    /// Dimensions of the embeddings of the vLLM Semantic Router that is to load the policy too.
    pub vllm_sr: Option<u32>,
}

/// The policy that decides now.
pub struct InForce {
    id: String,
    policy: Policy,
}

impl InForce {
    /// The registry's active policy, unless that is `candidate` itself, or one for whole sessions: what it decides by (the model before,
    /// failures so far) is not in single requests. Nor is one whose actions are models only where `parts` say that they are more now, or the
    /// other way round: none of its choices would be one that the log names.
    pub async fn of(
        registry: &Registry,
        candidate: Option<&PolicyId>,
        parts: &BTreeSet<ActionPart>,
    ) -> Result<Option<Self>> {
        let loaded = registry.load().await?;
        let Some(id) = loaded.state.active().filter(|id| Some(*id) != candidate) else { return Ok(None) };
        let policy = Policy::load(&registry.bundle(id).await?.0).map_err(Failure::ours)?;
        if policy.spec().per_turn {
            tracing::warn!(policy_id = %id, "the policy in force decides turn by turn of sessions: candidates for requests are not held against it");
            return Ok(None);
        }
        if ActionPart::of_actions(policy.actions()).is_empty() != parts.is_empty() {
            tracing::warn!(policy_id = %id, "the policy in force chooses other parts of actions (objective.action_parts): candidates are not held against it");
            return Ok(None);
        }
        Ok(Some(Self { id: id.to_string(), policy }))
    }

    pub fn as_learners_see_it(&self) -> PolicyInForce<'_> {
        PolicyInForce { id: &self.id, policy: &self.policy }
    }
}

/// A candidate with the bundle made of it.
pub struct Proposal {
    pub candidate: Candidate,
    pub bundle: Bundle,
}

/// Trains and packs; writes nothing.
pub fn train(
    set: &TrainingSet,
    config: &TrainConfig,
    name: &str,
    tag: Option<&(String, String)>,
    beside: &Beside,
    checkpoint: Option<&Path>,
) -> Result<Proposal> {
    let checkpoints = checkpoint.map(|folder| Checkpoints::open(folder, &fingerprint(set, config, tag)));
    let checkpoints = checkpoints.transpose()?;
    let in_force = beside.in_force.as_ref().map(InForce::as_learners_see_it);
    let mut candidate = weir_learners::train_policy_from(set, config, in_force, checkpoints.as_ref())?;
    let estimators = &mut candidate.report.estimators;
    estimators.extend(beside.estimator.clone().map(|estimator| ("hallucination".to_owned(), estimator)));
    let mut files: BTreeMap<String, Vec<u8>> = beside.knobs.clone();
    if let Some(dimensions) = beside.vllm_sr {
        let distil = DistilConfig::of(dimensions as usize, config.seed);
        files.extend(weir_learners::export_vllm_sr(set, &mut candidate, config, &distil)?);
    }
    match fit_output_length(set) {
        Ok(lengths) => {
            files.insert(OutputLength::FILE.into(), lengths.to_json().map_err(Failure::ours)?);
            candidate.report.estimators.insert("output length".into(), lengths.summary());
        }
        // Logs without token counts make a policy all the same; the bundle then says nothing about lengths.
        Err(LearnError::NotEnoughData(_)) => {}
        Err(error) => return Err(error.into()),
    }
    // What a later evaluation needs to stay off the sessions that this policy was trained on.
    let mut data = BTreeMap::from([(HOLDOUT_SHARE.to_owned(), config.holdout_share.to_string())]);
    if let Some((name, value)) = tag {
        data.insert(TAG.to_owned(), format!("{name}={value}"));
    }
    data.extend(beside.outcome.iter().flat_map(outcome::Source::lineage));
    data.extend(learned_until(set).map(|until_ms| (UNTIL_MS.to_owned(), until_ms.to_string())));
    let lineage = Lineage { tables: set.tables.clone(), code_version: CODE_VERSION.into(), seed: config.seed, data };
    packed(candidate, name, lineage, files)
}

/// Arrival of the newest decision whose quality counts.
fn learned_until(set: &TrainingSet) -> Option<i64> {
    set.samples.iter().filter(|sample| !sample.is_unsettled).map(|sample| sample.time_ms).max()
}

/// The candidate with its bundle, which also holds `files`.
fn packed(
    candidate: Candidate,
    name: &str,
    lineage: Lineage,
    mut files: BTreeMap<String, Vec<u8>>,
) -> Result<Proposal> {
    files.insert(POLICY_FILE.into(), candidate.spec.to_json().map_err(Failure::ours)?);
    files.insert(WEIGHTS_FILE.into(), candidate.weights.clone());
    files.extend(candidate.posterior.clone().map(|posterior| (POSTERIOR_FILE.to_owned(), posterior)));
    files.insert(REPORT_JSON_FILE.into(), candidate.report.to_json().map_err(Failure::ours)?);
    files.insert(REPORT_MARKDOWN_FILE.into(), candidate.report.to_markdown().into_bytes());
    let metrics = serde_json::to_value(&candidate.report.lineup).map_err(Failure::ours)?;
    let manifest = Manifest::routing_policy(name, now_ms(), lineage, metrics);
    let bundle = Bundle::build(manifest, files).map_err(Failure::ours)?;
    Ok(Proposal { candidate, bundle })
}

/// A policy of the registry that learned on from what came since; none where nothing came. Its other files come along unchanged.
///
/// # Errors
/// When the bundle does not say until when it has learned, or cannot learn on.
pub fn learn_on(
    set: &TrainingSet,
    parent: &Bundle,
    in_force: Option<&InForce>,
    (config, source): (&UpdateConfig, Option<&outcome::Source>),
) -> Result<Option<Proposal>> {
    let lineage = &parent.manifest.lineage;
    let number = |key: &str| lineage.data.get(key);
    let known =
        number(UNTIL_MS).and_then(|ms| ms.parse().ok()).zip(number(HOLDOUT_SHARE).and_then(|share| share.parse().ok()));
    let (until_ms, holdout_share) = known.ok_or_else(|| {
        Failure::user("this bundle does not say until when it has learned (lineage.data.until_ms): learn one anew with `weir learn policy`")
    })?;
    let policy = Policy::load(parent).map_err(Failure::user)?;
    let from = LearnedUntil { policy: &policy, until_ms, holdout_share };
    let in_force = in_force.map(InForce::as_learners_see_it);
    let Some((candidate, until_ms)) = weir_learners::update_policy(set, from, in_force, config)? else {
        return Ok(None);
    };
    let mut data = lineage.data.clone();
    data.insert(UNTIL_MS.to_owned(), until_ms.to_string());
    data.insert("learned_on_from".to_owned(), parent.id.to_string());
    // Judged by what is in force now, whatever its parent was judged by.
    data.retain(|key, _| !key.starts_with("outcome"));
    data.extend(source.into_iter().flat_map(outcome::Source::lineage));
    let lineage = Lineage { tables: set.tables.clone(), code_version: CODE_VERSION.into(), seed: lineage.seed, data };
    // What was distilled from the parent is not the new one.
    let files = parent.files.iter().filter(|(path, _)| !path.starts_with("exports/"));
    let files = files.map(|(path, bytes)| (path.clone(), bytes.clone())).collect();
    packed(candidate, &parent.manifest.name, lineage, files).map(Some)
}

/// What a training's checkpoints are good for: these decisions, these settings, this code and backend.
fn fingerprint(set: &TrainingSet, config: &TrainConfig, tag: Option<&(String, String)>) -> String {
    let backend = weir_learners::training_backend();
    format!("{CODE_VERSION} {backend} {:?} {} {config:?} {tag:?}", set.tables, set.fingerprint())
}

/// The share of sessions that the policy of this lineage was not trained on.
///
/// # Errors
/// When the lineage does not say which those are.
pub fn holdout_share(lineage: &Lineage) -> Result<f64> {
    let share = lineage.data.get(HOLDOUT_SHARE).and_then(|share| share.parse::<f64>().ok());
    share.ok_or_else(|| {
        Failure::user(
            "this bundle does not say which sessions it was trained on (lineage.data.holdout_share), so logs cannot judge it; \
             train it with `weir learn policy`",
        )
    })
}

/// Was the policy of this lineage trained on requests with that gateway tag only?
pub fn trained_on_tag(lineage: &Lineage, name: &str, value: &str) -> bool {
    lineage.data.get(TAG).is_some_and(|tag| tag.split_once('=') == Some((name, value)))
}

/// The gateway tag that the policy of this lineage was trained on.
pub fn tag_of(lineage: &Lineage) -> Option<(String, String)> {
    let (name, value) = lineage.data.get(TAG)?.split_once('=')?;
    Some((name.to_owned(), value.to_owned()))
}

/// Signs the bundle and hands it to the registry.
pub async fn propose(registry: &Registry, bundle: &Bundle, key: &SigningKey, actor: &str) -> Result<()> {
    let signature = key.sign(&bundle.id);
    registry.propose(bundle, Some(&signature), actor).await?;
    Ok(())
}

/// What a person does with a proposal, for them.
pub fn say_what_next(id: &PolicyId, verdict: &str) {
    if verdict == Verdict::Better.words() {
        println!("proposed {id}; `weir policy approve {}` makes it the active one", id.short());
    } else {
        println!("proposed {id}; with the verdict \"{verdict}\" it takes --force and a reason to approve it");
    }
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
