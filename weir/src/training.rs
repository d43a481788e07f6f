//! From tables to a proposed policy: training set, candidate, bundle, signature, registry.
//!
//! `weir learn policy` and the demo take this same path.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use weir_learners::length::fit_output_length;
use weir_learners::{Candidate, LearnError, TrainConfig, TrainingSet};
use weir_policy_publisher::Registry;
use weir_policy_publisher::keys::SigningKey;
use weir_policy_runtime::{
    Bundle, Lineage, Manifest, POLICY_FILE, REPORT_JSON_FILE, REPORT_MARKDOWN_FILE, WEIGHTS_FILE,
};

use crate::error::{Failure, Result};

/// Where a bundle's output-length quantiles lie.
const OUTPUT_LENGTH_FILE: &str = "knobs/output_length.json";

/// Key of the lineage's data under which the share of held-out sessions stands.
const HOLDOUT_SHARE: &str = "holdout_share";

/// A candidate with the bundle made of it.
pub struct Proposal {
    pub candidate: Candidate,
    pub bundle: Bundle,
}

/// Trains and packs; writes nothing.
pub fn train(set: &TrainingSet, config: &TrainConfig, name: &str, tag: Option<&(String, String)>) -> Result<Proposal> {
    let candidate = weir_learners::train_policy(set, config)?;
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    files.insert(POLICY_FILE.into(), candidate.spec.to_json().map_err(Failure::ours)?);
    files.insert(WEIGHTS_FILE.into(), candidate.weights.clone());
    files.insert(REPORT_JSON_FILE.into(), candidate.report.to_json().map_err(Failure::ours)?);
    files.insert(REPORT_MARKDOWN_FILE.into(), candidate.report.to_markdown().into_bytes());
    match fit_output_length(set) {
        Ok(lengths) => {
            files.insert(OUTPUT_LENGTH_FILE.into(), lengths.to_json().map_err(Failure::ours)?);
        }
        // Logs without token counts make a policy all the same; the bundle then says nothing about lengths.
        Err(LearnError::NotEnoughData(_)) => {}
        Err(error) => return Err(error.into()),
    }
    // What a later evaluation needs to stay off the sessions that this policy was trained on.
    let mut data = BTreeMap::from([(HOLDOUT_SHARE.to_owned(), config.holdout_share.to_string())]);
    if let Some((name, value)) = tag {
        data.insert("tag".into(), format!("{name}={value}"));
    }
    let lineage =
        Lineage { tables: set.tables.clone(), code_version: env!("CARGO_PKG_VERSION").into(), seed: config.seed, data };
    let metrics = serde_json::to_value(&candidate.report.lineup).map_err(Failure::ours)?;
    let manifest = Manifest::routing_policy(name, now_ms(), lineage, metrics);
    let bundle = Bundle::build(manifest, files).map_err(Failure::ours)?;
    Ok(Proposal { candidate, bundle })
}

/// Leaves only the samples that the policy of this lineage was not trained on.
///
/// # Errors
/// When the lineage does not say which those are.
pub fn keep_unseen(set: &mut TrainingSet, lineage: &Lineage) -> Result<()> {
    let share = lineage.data.get(HOLDOUT_SHARE).and_then(|share| share.parse::<f64>().ok());
    let share = share.ok_or_else(|| {
        Failure::user(
            "this bundle does not say which sessions it was trained on (lineage.data.holdout_share), so logs cannot judge it; \
             train it with `weir learn policy`",
        )
    })?;
    set.samples.retain(|sample| weir_learners::is_holdout(lineage.seed, &sample.cluster, share));
    Ok(())
}

/// Signs the bundle and hands it to the registry.
pub async fn propose(registry: &Registry, proposal: &Proposal, key: &SigningKey, actor: &str) -> Result<()> {
    let signature = key.sign(&proposal.bundle.id);
    registry.propose(&proposal.bundle, Some(&signature), actor).await?;
    Ok(())
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
