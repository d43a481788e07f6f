//! Policies in the forms that other routers load.

pub mod vllm_sr;

use serde::{Deserialize, Serialize};

use crate::ope::{Estimate, Estimates};

/// What became of a policy in another router's form. What is judged are the exported bytes, read back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExportSummary {
    /// Path in the bundle.
    pub file: String,
    /// Decisions that it was distilled from.
    pub decisions: usize,
    /// On decisions that it was not distilled from: share on which it chooses what its parent likes best.
    pub agreement: f64,
    /// There, mean utility by its parent's own predictions that its choices lose beside its parent's best.
    pub predicted_loss: f64,
    /// What it would have earned, off-policy, on held-out decisions; none where support is insufficient. No verdict: that is its parent's.
    pub estimates: Option<Estimates>,
    /// Its value minus its parent's, decision by decision; none where one of them is not known.
    pub difference_to_parent: Option<Estimate>,
}
