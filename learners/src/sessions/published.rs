//! A session policy as the runtime serves it: `policy.json` and one network.

use weir_policy_runtime::{Action, Exploration, Heads, Mlp, Objective, PolicySpec};

use super::policy::{Imitated, SessionPolicy};
use super::state::StateLayout;
use super::tables::SessionReward;
use crate::error::{LearnError, Result};
use crate::side_by_side::side_by_side;

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
        let actions = self.actions().iter().map(action).collect();
        // For people: scores hold what they were learned with.
        let objective = Objective { quality: reward.completion, usd: reward.usd };
        let spec = PolicySpec {
            heads,
            utility_per_s: Some(reward.second).filter(|price| *price > 0.0),
            per_turn: true,
            logged_share_min,
            ..PolicySpec::of_guesses(features, actions, exploration, objective)
        };
        Ok((spec, network))
    }
}
