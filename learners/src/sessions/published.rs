//! A session policy as the runtime serves it: `policy.json` and one network.

use weir_policy_runtime::{Action, Exploration, Heads, Layer, Mlp, Objective, PolicySpec, Strategy};

use super::policy::{Imitated, SessionPolicy};
use super::state::StateLayout;
use super::tables::SessionReward;
use crate::error::{LearnError, Result};

impl SessionPolicy {
    /// `policy.json` and the weights of this policy. A runtime that encodes a turn by the spec's features draws with the very probabilities
    /// of [`SessionPolicy::probabilities`], anew at every turn.
    ///
    /// # Errors
    /// [`LearnError::BadSessions`] where the layout is not that of the states learned from; [`LearnError::Artefact`] where the networks
    /// cannot be put into one.
    pub fn published(
        &self,
        layout: &StateLayout,
        reward: &SessionReward,
        exploration: Exploration,
    ) -> Result<(PolicySpec, Mlp)> {
        let features = layout.features();
        if features.width() != self.scores.inputs() {
            let (has, takes) = (features.width(), self.scores.inputs());
            let why = format!("the layout has {has} numbers, and the policy takes {takes}");
            return Err(LearnError::BadSessions(why));
        }
        let (heads, network, logged_share_min) = match &self.imitated {
            None => (Heads::Utilities, self.scores.clone(), None),
            Some(Imitated { logits, threshold }) => {
                (Heads::UtilitiesThenLoggedLogits, side_by_side(&self.scores, logits)?, Some(*threshold))
            }
        };
        let action =
            |model: &String| Action { model: model.clone(), input_usd_per_mtok: None, output_usd_per_mtok: None };
        let spec = PolicySpec {
            features,
            actions: self.actions().iter().map(action).collect(),
            exploration,
            // For people: scores hold what they were learned with.
            objective: Objective { quality: reward.completion, usd: reward.usd },
            heads,
            strategy: Strategy::InverseGap,
            preference: None,
            probation: Vec::new(),
            utility_per_s: Some(reward.second).filter(|price| *price > 0.0),
            per_turn: true,
            logged_share_min,
        };
        Ok((spec, network))
    }
}

/// Two networks of as many layers as one: both get the input, and the second's outputs come after the first's.
fn side_by_side(first: &Mlp, second: &Mlp) -> Result<Mlp> {
    let unusable = |error: weir_policy_runtime::PolicyError| LearnError::Artefact(error.to_string());
    if first.layers().len() != second.layers().len() || first.inputs() != second.inputs() {
        return Err(LearnError::Artefact("the two networks of a policy have not the same shape".to_owned()));
    }
    let joined = first.layers().iter().zip(second.layers()).enumerate().map(|(place, (first, second))| {
        let (a, b) = (first.inputs(), second.inputs());
        // After the first layer each goes on with its own units: what the other would add is 0.
        let (left, right) = if place == 0 { (0, 0) } else { (a, b) };
        let mut weight = Vec::new();
        for row in first.weight().chunks_exact(a) {
            weight.extend_from_slice(row);
            weight.resize(weight.len() + right, 0.0);
        }
        for row in second.weight().chunks_exact(b) {
            weight.resize(weight.len() + left, 0.0);
            weight.extend_from_slice(row);
        }
        let inputs = if place == 0 { a } else { a + b };
        Layer::new(inputs, weight, [first.bias(), second.bias()].concat()).map_err(unusable)
    });
    Mlp::new(joined.collect::<Result<Vec<_>>>()?).map_err(unusable)
}
