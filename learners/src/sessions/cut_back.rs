//! Cutting a session back as a choice: the turn that failed is taken out of the context, and a model answers from before it.
//!
//! What a failure does to the turn after it is then gone, and so is what it added to the context. It costs a price of its own (somebody or
//! something must undo what the turn did), the context that is left is read anew even by the same model, and another model than the one
//! before still finds a context that it did not write. All three are known, so the best use of cuts comes from the same backward
//! induction as everything else.

use serde::{Deserialize, Serialize};

use super::simulator::{SimulatedState, Simulator, SimulatorConfig};
use crate::error::Result;

/// What a cut costs, and what it takes away.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutBack {
    /// Utility that it costs by itself.
    pub price: f64,
    /// Buckets of context that it takes away.
    pub contexts: usize,
}

impl Default for CutBack {
    fn default() -> Self {
        Self { price: 0.02, contexts: 1 }
    }
}

impl Simulator {
    /// The model that an action asks, and whether the session is cut back first.
    #[must_use]
    pub fn parts(&self, action: usize) -> (usize, bool) {
        (action % self.models(), action >= self.models())
    }

    /// Names of the actions.
    #[must_use]
    pub fn action_names(&self) -> Vec<String> {
        let name = |(model, cuts): (usize, bool)| {
            let model = &self.config().models[model].name;
            if cuts { format!("cut back, {model}") } else { model.clone() }
        };
        (0..self.actions()).map(|action| name(self.parts(action))).collect()
    }

    /// The state after a cut, and what the cut costs.
    pub(super) fn cut(&self, state: &SimulatedState) -> (SimulatedState, f64) {
        let CutBack { price, contexts } = self.config().cut_back.unwrap_or(CutBack { price: 0.0, contexts: 0 });
        (SimulatedState { failed: false, context: state.context.saturating_sub(contexts), ..*state }, price)
    }

    /// The best policy among those that never cut back, with this simulator's actions; shape `[states, actions]`.
    ///
    /// # Errors
    /// As [`Simulator::new`].
    pub fn optimal_without_cuts(&self) -> Result<Vec<f64>> {
        let plain = Self::new(SimulatorConfig { cut_back: None, ..self.config().clone() })?;
        let cuts = vec![0.0; self.actions() - self.models()];
        // The states are the same.
        let rows = plain.optimal();
        Ok(rows.chunks_exact(self.models()).flat_map(|row| row.iter().chain(&cuts).copied()).collect())
    }
}
