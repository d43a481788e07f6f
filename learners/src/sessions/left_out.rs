//! Stored sessions that cannot be used, and why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Sessions that were read but cannot be used, by reason; each is counted once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeftOut {
    /// Nobody said whether the task was done.
    pub unjudged: usize,
    /// Of a turn it is not known what was chosen among what: a cache answered it, the model that was chosen is not logged or was no
    /// candidate, or another model answered and the probability of the choice is not logged.
    pub not_as_chosen: usize,
    /// A turn lacks something that the reward weighs: nothing is imputed.
    pub reward_unknown: usize,
    /// Neither a turn's prompt nor any before it was counted, in a log that counts prompts: such a call mostly failed, so a state that
    /// shows it would tell the outcome of its own choice.
    pub prompt_unknown: usize,
    /// Sessions of the last three kinds by the model that was chosen at the first turn that is such a one, where it is known. A model that
    /// loses far more than its share has outcomes that the log hides.
    pub by_model: BTreeMap<String, usize>,
}

impl LeftOut {
    /// Sessions that were left out for what their turns did or did not log, which can depend on what was chosen. That nobody judged a
    /// session is not among it.
    #[must_use]
    pub fn for_their_turns(&self) -> usize {
        self.not_as_chosen + self.reward_unknown + self.prompt_unknown
    }

    /// The share of those among judged sessions, where `kept` of these were used.
    #[must_use]
    pub fn share(&self, kept: usize) -> f64 {
        let left_out = self.for_their_turns();
        left_out as f64 / (left_out + kept).max(1) as f64
    }
}
