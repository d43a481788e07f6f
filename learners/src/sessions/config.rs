//! How session policies are learned.

use serde::{Deserialize, Serialize};

use super::trajectory::SessionLog;
use crate::error::{LearnError, Result};

/// Ways to learn a policy from logged sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Implicit Q-learning: asks for the worth of logged choices only.
    ImplicitQ,
    /// Discrete conservative Q-learning.
    ConservativeQ,
    /// Discrete batch-constrained Q-learning.
    BatchConstrainedQ,
    /// The baseline: a doubly robust bandit on each turn's own reward.
    TurnBandit,
}

impl Algorithm {
    /// The algorithm in words, as reports print it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::ImplicitQ => "implicit Q-learning",
            Self::ConservativeQ => "conservative Q-learning",
            Self::BatchConstrainedQ => "batch-constrained Q-learning",
            Self::TurnBandit => "doubly robust bandit per turn",
        }
    }
}

/// How to learn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionLearnerConfig {
    /// Seed of weights and batches.
    pub seed: u64,
    /// γ, 0 to 1: what a turn later is worth.
    pub discount: f64,
    /// Utility of a session that ends with its task done, added to what the log says: the price of a constraint on completion.
    pub completion_worth: f64,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Gradient steps of each network.
    pub steps: usize,
    /// Rows of a step.
    pub batch_rows: usize,
    /// Step size of AdamW at the start; it falls to nothing.
    pub learning_rate: f64,
    /// Weight decay of AdamW.
    pub weight_decay: f32,
    /// Steps after which the network that gives targets is brought up to date.
    pub target_every: usize,
    /// Implicit Q-learning: the expectile τ, 0.5 (the mean over logged choices) to below 1 (the best of them).
    pub expectile: f64,
    /// Implicit Q-learning: β, per unit of utility; larger follows advantages and smaller what was logged.
    pub inverse_temperature: f64,
    /// Implicit Q-learning: largest weight `exp(β A)`.
    pub weight_max: f64,
    /// Conservative Q-learning: α, weight of what keeps the worth of untried choices low.
    pub conservatism: f64,
    /// Batch-constrained Q-learning: least probability of a choice in the log, as a share of the likeliest one's.
    pub threshold: f64,
}

impl Default for SessionLearnerConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            discount: 1.0,
            completion_worth: 0.0,
            hidden: vec![64, 64],
            steps: 2000,
            batch_rows: 256,
            learning_rate: 3e-3,
            weight_decay: 1e-4,
            target_every: 50,
            expectile: 0.9,
            inverse_temperature: 30.0,
            weight_max: 100.0,
            conservatism: 0.02,
            threshold: 0.05,
        }
    }
}

impl SessionLearnerConfig {
    pub(super) fn check(&self) -> Result<()> {
        let positive = |number: f64| number.is_finite() && number > 0.0;
        let problem = if self.steps == 0 || self.batch_rows == 0 || self.target_every == 0 {
            "steps, batch_rows and target_every must be above 0"
        } else if !(0.0..=1.0).contains(&self.discount) {
            "discount must lie in [0, 1]"
        } else if !(0.5..1.0).contains(&self.expectile) {
            "expectile must lie in [0.5, 1)"
        } else if !(0.0..=1.0).contains(&self.threshold) {
            "threshold must lie in [0, 1]"
        } else if ![self.learning_rate, self.inverse_temperature, self.weight_max].into_iter().all(positive) {
            "learning_rate, inverse_temperature and weight_max must be above 0"
        } else if !self.completion_worth.is_finite() || !self.conservatism.is_finite() || self.conservatism < 0.0 {
            "completion_worth and conservatism must be finite, and conservatism not below 0"
        } else {
            return Ok(());
        };
        Err(LearnError::Config(format!("session learner: {problem}")))
    }
}

/// Learns a policy from logged sessions. The same log, configuration and seed give the same bytes on a CPU.
///
/// # Errors
/// [`LearnError::Config`] where the configuration makes no sense, [`LearnError::BadSessions`] where a bandit meets a turn without a
/// propensity.
pub fn learn_sessions(
    log: &SessionLog,
    algorithm: Algorithm,
    config: &SessionLearnerConfig,
) -> Result<super::SessionPolicy> {
    config.check()?;
    match algorithm {
        Algorithm::ImplicitQ => super::implicit_q::learn(log, config),
        Algorithm::ConservativeQ => super::conservative_q::learn(log, config),
        Algorithm::BatchConstrainedQ => super::batch_constrained_q::learn(log, config),
        Algorithm::TurnBandit => super::turn_bandit::learn(log, config),
    }
}
