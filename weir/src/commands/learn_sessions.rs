//! `weir learn sessions`: a policy for whole sessions, from logged ones, as a bundle that `weir decide` serves.

use std::collections::BTreeMap;

use weir_learners::sessions::{
    Algorithm, Handoff, SessionCandidate, SessionJudgeConfig, SessionLearnerConfig, SessionReward, SessionTrainConfig,
    SessionsInForce, session_trajectories, train_sessions,
};
use weir_learners::{Outcome, Part};
use weir_policy_publisher::Registry;
use weir_policy_publisher::keys::SigningKey;
use weir_policy_runtime::{
    Bundle, Exploration, KnobTable, Lineage, Manifest, POLICY_FILE, Policy, REPORT_JSON_FILE, REPORT_MARKDOWN_FILE,
    WEIGHTS_FILE, knob_path,
};

use super::{configuration, existing_store, print_json};
use crate::cli::{Common, SessionAlgorithm, SessionArgs};
use crate::error::{Failure, Result};
use crate::progress::Progress;
use crate::training::{CODE_VERSION, HOLDOUT_SHARE};
use crate::{outcome, services, training};

/// The table, and the view, of what switches of models do to the length of sessions.
const HANDOFFS: &str = "handoff_penalties";

/// Tables that sessions come from.
const SOURCE_TABLES: [&str; 2] = ["requests", "feedback"];

/// Learns, judges, packs and proposes.
pub async fn run(common: &Common, args: &SessionArgs) -> Result<()> {
    let key = SigningKey::read(&args.key)?;
    let config = configuration(common)?;
    let store = existing_store(&config).await?;
    let outcome::InForce { outcome, source } = outcome::of(&config)?;
    let registry = Registry::open(&store, services::trust_in(&config, &key)?).await?;
    let reward = reward(args, &outcome);
    let (session, mut tables) = weir_features::session_with_versions(&store).await?;
    tables.retain(|name, _| SOURCE_TABLES.contains(&name.as_str()));
    let progress = Progress::wait("learning from sessions and judging on others", common.json);
    let stored = session_trajectories(&session, &reward).await?;
    let mut files = crate::knobs::files(&store, None).await?;
    let handoffs = files.get(&knob_path(HANDOFFS)).map(|bytes| shown_handoffs(bytes)).transpose()?.unwrap_or_default();
    let short_sighted = if handoffs.is_empty() || reward.turn == 0.0 {
        None
    } else {
        Some(SessionReward { handoffs, ..reward.clone() })
    };
    let charged = match &short_sighted {
        Some(reward) => Some(session_trajectories(&session, reward).await?.log),
        None => None,
    };
    let train = SessionTrainConfig {
        algorithm: algorithm(args.algorithm),
        learner: SessionLearnerConfig { seed: args.seed, ..SessionLearnerConfig::default() },
        published: Exploration {
            gamma: config.objective.gamma.unwrap_or(SessionTrainConfig::default().published.gamma),
            floor: config.objective.floor,
        },
        judge: SessionJudgeConfig { completion_margin: args.completion_margin, ..SessionJudgeConfig::default() },
        ..SessionTrainConfig::default()
    };
    let in_force = in_force(&registry).await?;
    let held = in_force.as_ref().map(|(id, policy)| SessionsInForce { id, policy });
    let mut candidate = train_sessions(&stored, charged.as_ref(), held, &reward, &train)?;
    drop(progress);
    candidate.report.reward.handoffs = short_sighted.map(|reward| reward.handoffs).unwrap_or_default();
    candidate.report.not_priced = not_priced(&outcome);
    let mut data = BTreeMap::from([(HOLDOUT_SHARE.to_owned(), train.holdout_share.to_string())]);
    data.extend(source.iter().flat_map(outcome::Source::lineage));
    let lineage = Lineage { tables, code_version: CODE_VERSION.into(), seed: args.seed, data };
    pack(&candidate, &mut files)?;
    let metrics = serde_json::to_value(&candidate.report.arms).map_err(Failure::ours)?;
    let manifest = Manifest::routing_policy(&args.name, training::now_ms(), lineage, metrics);
    let bundle = Bundle::build(manifest, files).map_err(Failure::ours)?;
    training::propose(&registry, &bundle, &key, "weir learn sessions").await?;
    let (id, report) = (&bundle.id, &candidate.report);
    if common.json {
        return print_json(&serde_json::json!({ "policy_id": id, "verdict": report.verdict, "report": report }));
    }
    println!("{}", report.to_markdown());
    training::say_what_next(id, &report.verdict);
    Ok(())
}

/// The policy of sessions that is active; one for single requests knows things of a request that sessions do not tell.
async fn in_force(registry: &Registry) -> Result<Option<(String, Policy)>> {
    let loaded = registry.load().await?;
    let Some(id) = loaded.state.active() else { return Ok(None) };
    let policy = Policy::load(&registry.bundle(id).await?.0).map_err(Failure::ours)?;
    if !policy.spec().per_turn {
        tracing::warn!(policy_id = %id, "the policy in force decides single requests: candidates for sessions are not held against it");
        return Ok(None);
    }
    Ok(Some((id.to_string(), policy)))
}

/// Prices by the command line, or else by the operator's outcome: a task that is done is worth what quality is.
fn reward(args: &SessionArgs, outcome: &Outcome) -> SessionReward {
    SessionReward {
        completion: args.completion.unwrap_or_else(|| outcome.weight(Part::Quality)),
        quality: args.quality,
        usd: args.usd.unwrap_or_else(|| outcome.weight(Part::Usd)),
        second: args.second.unwrap_or_else(|| outcome.weight(Part::LatencyS)),
        turn: args.turn,
        switch_mtok: args.switch_mtok,
        handoffs: Vec::new(),
    }
}

/// What the outcome weighs beside what turns of sessions carry.
fn not_priced(outcome: &Outcome) -> Vec<Part> {
    let priced = [Part::Quality, Part::Usd, Part::LatencyS];
    Part::ALL.into_iter().filter(|part| !priced.contains(part) && outcome.weight(*part) != 0.0).collect()
}

fn algorithm(named: SessionAlgorithm) -> Algorithm {
    match named {
        SessionAlgorithm::ImplicitQ => Algorithm::ImplicitQ,
        SessionAlgorithm::ConservativeQ => Algorithm::ConservativeQ,
        SessionAlgorithm::BatchConstrainedQ => Algorithm::BatchConstrainedQ,
        SessionAlgorithm::TurnBandit => Algorithm::TurnBandit,
    }
}

/// Switches that are shown to make sessions longer or shorter: those whose interval lies off 0.
fn shown_handoffs(table: &[u8]) -> Result<Vec<Handoff>> {
    let table = KnobTable::from_json(&knob_path(HANDOFFS), table).map_err(Failure::ours)?;
    let handoff = |row: &weir_policy_runtime::KnobRow| {
        let [Some(from), Some(to)] = row.key.as_slice() else { return None };
        let [Some(extra_turns), Some(low), Some(high), ..] = row.values.as_slice() else { return None };
        let is_shown = *low > 0.0 || *high < 0.0;
        is_shown.then(|| Handoff { from: from.clone(), to: to.clone(), extra_turns: *extra_turns })
    };
    Ok(table.rows.iter().filter_map(handoff).collect())
}

/// Puts the policy and its report beside the tables.
fn pack(candidate: &SessionCandidate, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    files.insert(POLICY_FILE.into(), candidate.spec.to_json().map_err(Failure::ours)?);
    files.insert(WEIGHTS_FILE.into(), candidate.weights.clone());
    files.insert(REPORT_JSON_FILE.into(), candidate.report.to_json().map_err(Failure::ours)?);
    files.insert(REPORT_MARKDOWN_FILE.into(), candidate.report.to_markdown().into_bytes());
    Ok(())
}
