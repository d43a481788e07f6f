//! The trained estimator as one file: JSON, named by the hash of its bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use weir_policy_runtime::{Mlp, MlpScratch, canonical_json};

use super::features::{COUNT, FEATURE_NAMES, features};
use super::metrics::DetectionMetrics;
use crate::error::{LearnError, Result};
use crate::network::{PlainLayer, runtime_network};
use crate::report::EstimatorSummary;

const KIND: &str = "weir-hallucination-1";

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    pub kind: String,
    /// Features in the network's order: a build with other features must refuse the file.
    pub features: Vec<String>,
    /// Standardisation: `(x - mean) / std`.
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
    pub layers: Vec<PlainLayer>,
    /// Probability from which on a response is labelled hallucinated.
    pub threshold: f64,
    pub seed: u64,
    /// Labelled pairs trained on, by corpus.
    pub trained_on: BTreeMap<String, usize>,
    /// On source documents that training has not seen.
    pub metrics: DetectionMetrics,
    /// Trivial baselines on the same documents, by name.
    #[serde(default)]
    pub baselines: BTreeMap<String, DetectionMetrics>,
}

/// A verdict on one response.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Probability that the response holds a hallucination.
    pub probability: f64,
    /// At or above the threshold.
    pub hallucinated: bool,
}

/// A trained estimator, ready to score. Needs no training framework.
#[derive(Debug, Clone)]
pub struct Estimator {
    id: String,
    bytes: Vec<u8>,
    content: Content,
    network: Mlp,
}

impl Estimator {
    pub(super) fn new(content: Content) -> Result<Self> {
        let value = serde_json::to_value(&content).map_err(|error| LearnError::Artefact(error.to_string()))?;
        Self::from_bytes(&canonical_json(&value))
    }

    /// Reads an estimator's file.
    ///
    /// # Errors
    /// When it is not one, or was made for other features than this build computes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let refuse = |why: String| LearnError::Unreadable { what: "the hallucination estimator".to_owned(), why };
        let content: Content = serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
        if content.kind != KIND || content.features != FEATURE_NAMES {
            return Err(refuse("it was made for other features; train it again".to_owned()));
        }
        let network = runtime_network(&content.layers)?;
        let sound = |x: &&f32| x.is_finite() && **x > 0.0;
        let widths = [content.mean.len(), content.std.iter().filter(sound).count(), network.inputs()];
        if widths != [COUNT; 3] || network.outputs() != 1 {
            return Err(refuse("its sizes do not fit each other".to_owned()));
        }
        let id = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        Ok(Self { id, bytes: bytes.to_vec(), content, network })
    }

    pub(super) fn kind() -> String {
        KIND.to_owned()
    }

    /// `sha256:` and the hash of the file.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How well it does on source documents that training has not seen.
    #[must_use]
    pub fn metrics(&self) -> &DetectionMetrics {
        &self.content.metrics
    }

    /// Its metrics beside those of trivial baselines, as a candidate's report shows them.
    #[must_use]
    pub fn summary(&self) -> EstimatorSummary {
        let shown = |m: &DetectionMetrics| {
            [("auroc", m.auroc), ("auprc", m.auprc), ("f1", m.f1), ("brier", m.brier), ("ece", m.calibration_error)]
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        };
        let own = ("estimator".to_owned(), shown(&self.content.metrics));
        let baselines = self.content.baselines.iter().map(|(name, metrics)| (name.clone(), shown(metrics)));
        EstimatorSummary { artifact: self.id.clone(), metrics: baselines.chain([own]).collect() }
    }

    /// Judges one response; `None` when there is nothing to judge it by.
    #[must_use]
    pub fn score(&self, context: &str, response: &str) -> Option<Verdict> {
        if context.trim().is_empty() || response.trim().is_empty() {
            return None;
        }
        let mut input = features(context, response);
        for ((x, mean), std) in input.iter_mut().zip(&self.content.mean).zip(&self.content.std) {
            *x = (*x - mean) / std;
        }
        let logit = self.network.forward(&input, &mut MlpScratch::default())[0];
        let probability = 1.0 / (1.0 + (-f64::from(logit)).exp());
        Some(Verdict { probability, hallucinated: probability >= self.content.threshold })
    }
}
