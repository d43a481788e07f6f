//! A learned session policy: a state in, scores and exact probabilities out.

use weir_policy_runtime::{Exploration, Mlp, MlpScratch, inverse_gap_weights};

use super::config::Algorithm;
use super::trajectory::SessionLog;
use crate::error::{LearnError, Result};

/// What a log makes often enough to choose from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Imitated {
    /// Logits of `G(a|s)`.
    pub logits: Mlp,
    /// Least `G(a|s) / max_a' G(a'|s)`.
    pub threshold: f64,
}

impl Imitated {
    /// Which of the allowed actions the log makes often enough; the likeliest always is.
    pub(super) fn allows(&self, state: &[f32], allowed: &[bool], scratch: &mut MlpScratch) -> Vec<bool> {
        let logits = self.logits.forward(state, scratch);
        let possible = logits.iter().zip(allowed).filter(|(_, allowed)| **allowed);
        let most = possible.map(|(logit, _)| *logit).fold(f32::NEG_INFINITY, f32::max);
        let often = |logit: &f32| f64::from(logit - most).exp() > self.threshold || *logit == most;
        logits.iter().zip(allowed).map(|(logit, allowed)| *allowed && often(logit)).collect()
    }
}

/// A policy over the actions of the log that it was learned from.
///
/// Scores are in units of utility, so `γ` of inverse-gap weighting is per unit of utility: for implicit Q-learning advantages, cut at
/// `ln(weight_max) / β`, with a little of how often a choice was logged; `Q` for the other two, expected rewards of a turn for the
/// bandit. Differences between actions are what counts.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionPolicy {
    actions: Vec<String>,
    algorithm: Algorithm,
    pub(super) scores: Mlp,
    pub(super) imitated: Option<Imitated>,
}

impl SessionPolicy {
    pub(super) fn new(log: &SessionLog, algorithm: Algorithm, scores: Mlp, imitated: Option<Imitated>) -> Self {
        Self { actions: log.actions().to_vec(), algorithm, scores, imitated }
    }

    /// Names of what can be chosen, in the order of the scores.
    #[must_use]
    pub fn actions(&self) -> &[String] {
        &self.actions
    }

    /// How it was learned.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The network that scores, from a state to one number per action: what a runtime needs beside the list of actions. A batch-constrained
    /// policy also needs to know what the log makes often enough; [`SessionPolicy::published`] gives all that a runtime needs.
    #[must_use]
    pub fn network(&self) -> &Mlp {
        &self.scores
    }

    /// Probability of every action: inverse-gap weighting of the scores over what is allowed ([`inverse_gap_weights`]); exactly 0
    /// elsewhere.
    /// [`Exploration::NONE`] takes what scores best.
    ///
    /// # Errors
    /// [`LearnError::BadSessions`] where the state or the flags have another length than those learned from, a number of the state is not
    /// finite, or nothing is allowed.
    pub fn probabilities(&self, state: &[f32], allowed: &[bool], exploration: Exploration) -> Result<Vec<f64>> {
        self.probabilities_with(state, allowed, exploration, &mut MlpScratch::default())
    }

    pub(super) fn probabilities_with(
        &self,
        state: &[f32],
        allowed: &[bool],
        Exploration { gamma, floor }: Exploration,
        scratch: &mut MlpScratch,
    ) -> Result<Vec<f64>> {
        let (width, actions) = (self.scores.inputs(), self.actions.len());
        if state.len() != width || allowed.len() != actions {
            let (found, flags) = (state.len(), allowed.len());
            let why = format!("the policy takes {width} numbers and {actions} flags, not {found} and {flags}");
            return Err(LearnError::BadSessions(why));
        }
        if !state.iter().all(|number| number.is_finite()) {
            return Err(LearnError::BadSessions("a state holds a number that is not finite".to_owned()));
        }
        if !allowed.contains(&true) {
            return Err(LearnError::BadSessions("no action is allowed: a turn needs at least one".to_owned()));
        }
        let considered = match &self.imitated {
            Some(imitated) => imitated.allows(state, allowed, scratch),
            None => allowed.to_vec(),
        };
        let scores: Vec<f64> = self.scores.forward(state, scratch).iter().map(|score| f64::from(*score)).collect();
        let mut probabilities = vec![0.0; actions];
        inverse_gap_weights(&scores, &considered, gamma, floor, &mut probabilities);
        Ok(probabilities)
    }

    /// The probabilities of every action at every turn of a log, session by session, turn by turn.
    ///
    /// # Errors
    /// As [`SessionPolicy::probabilities`], and where the log's actions are others.
    pub fn on(&self, log: &SessionLog, exploration: Exploration) -> Result<Vec<Vec<f64>>> {
        if log.actions() != self.actions {
            return Err(LearnError::BadSessions("the log's models are not those of the policy".to_owned()));
        }
        let mut scratch = MlpScratch::default();
        let mut of =
            |state: &[f32], allowed: &[bool]| self.probabilities_with(state, allowed, exploration, &mut scratch);
        let mut found = Vec::with_capacity(log.trajectories().len());
        for session in log.trajectories() {
            let mut probabilities = Vec::with_capacity(session.turns.len() * self.actions.len());
            for turn in &session.turns {
                probabilities.extend(of(&turn.state, &turn.allowed)?);
            }
            found.push(probabilities);
        }
        Ok(found)
    }
}
