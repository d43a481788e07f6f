//! What a policy's network says of each action.

use serde::{Deserialize, Serialize};

/// What the outputs of the K actions mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heads {
    /// First K logits of the quality (sigmoid gives q̂), then K natural logarithms of the cost in USD (exp gives ĉ).
    QualityLogitsThenLnCostUsd,
    /// The same, then K corrections of the utility, in units of its [scale](crate::Preference): what policy learning found beyond quality
    /// and cost that each is predicted by itself. One more input comes after the features, the [preference](crate::Preference::input).
    QualityLogitsThenLnCostUsdThenCorrections,
    /// K scores in units of utility, under the policy's own objective: what is still to come of a session, not what one answer is worth. A
    /// request cannot ask for another trade-off.
    Utilities,
    /// The same, then K logits of what the logs chose that the policy was learned from (their softmax is the probability): only what they
    /// make often enough is chosen, by [`crate::PolicySpec::logged_share_min`].
    UtilitiesThenLoggedLogits,
}

impl Heads {
    /// Number of outputs for `actions` actions.
    #[must_use]
    pub fn outputs(self, actions: usize) -> usize {
        match self {
            Self::Utilities => actions,
            Self::QualityLogitsThenLnCostUsd | Self::UtilitiesThenLoggedLogits => 2 * actions,
            Self::QualityLogitsThenLnCostUsdThenCorrections => 3 * actions,
        }
    }

    /// Number of inputs beside the features.
    #[must_use]
    pub fn extra_inputs(self) -> usize {
        usize::from(self.has_corrections())
    }

    /// Are utilities predicted as they are, and neither quality nor cost?
    #[must_use]
    pub fn are_utilities(self) -> bool {
        matches!(self, Self::Utilities | Self::UtilitiesThenLoggedLogits)
    }

    pub(crate) fn has_corrections(self) -> bool {
        self == Self::QualityLogitsThenLnCostUsdThenCorrections
    }
}
