//! A policy that completes as many sessions as the logging router does.
//!
//! The constraint `completion(π) ≥ completion(logged) - margin` has a price λ, its Lagrange multiplier: the policy that is best when
//! each completed session is worth λ more is the best one that completes as many as it does (Everett 1963; for decision processes
//! Altman 1999, chapter 3). So λ is raised until sessions that were not learned from say that the constraint holds. They are asked
//! once for each price, so each bound has its part of the confidence (Bonferroni): all of them hold together at the configured one.

use weir_policy_runtime::Exploration;

use super::config::{Algorithm, SessionLearnerConfig, learn_sessions};
use super::judge::{SessionJudgeConfig, SessionVerdict, judge_sessions};
use super::policy::SessionPolicy;
use super::trajectory::SessionLog;
use crate::error::{LearnError, Result};
use crate::ope::EvaluationConfig;

/// Prices that are tried at most: none, the first one, then twice the one before.
const PRICES_MAX: u32 = 6;

/// The first policy that keeps completion, and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct ConstrainedPolicy {
    /// The policy.
    pub policy: SessionPolicy,
    /// λ: utility of a completed session beyond what the log says.
    pub completion_price: f64,
}

/// Learns from `train`, asks `validation` whether the lower bound of the loss of completion stays within the margin, and raises the
/// price of completion from 0 over `first_price` by doubling until it does. Where `validation` cannot carry an answer, a price has not
/// kept completion. The policy was chosen with `validation`, so it is to be judged on other sessions still.
///
/// # Errors
/// [`LearnError::NotEnoughData`] where no price keeps completion; as [`learn_sessions`] and [`judge_sessions`].
pub fn learn_constrained(
    (train, validation): (&SessionLog, &SessionLog),
    algorithm: Algorithm,
    (learner, judge): (&SessionLearnerConfig, &SessionJudgeConfig),
    published: Exploration,
    first_price: f64,
) -> Result<ConstrainedPolicy> {
    if !(first_price > 0.0 && first_price.is_finite()) {
        return Err(LearnError::Config("the first price of completion must be above 0".to_owned()));
    }
    let confidence = 1.0 - (1.0 - judge.evaluation.confidence) / f64::from(PRICES_MAX);
    let each =
        SessionJudgeConfig { evaluation: EvaluationConfig { confidence, ..judge.evaluation.clone() }, ..judge.clone() };
    let mut last = String::new();
    for attempt in 0..PRICES_MAX {
        let price = if attempt == 0 { 0.0 } else { first_price * f64::from(1 << (attempt - 1)) };
        let config = SessionLearnerConfig { completion_worth: learner.completion_worth + price, ..learner.clone() };
        let policy = learn_sessions(train, algorithm, &config)?;
        let judged = judge_sessions(validation, &policy.on(validation, published)?, &each)?;
        let low = judged.completion.difference.low;
        last = match judged.verdict {
            // Estimates without support fall back on what a model guesses, which keeps no promise.
            SessionVerdict::InsufficientSupport { reasons } => {
                format!("the sessions to validate on cannot carry an answer ({})", reasons.join("; "))
            }
            _ if low > -judge.completion_margin => return Ok(ConstrainedPolicy { policy, completion_price: price }),
            _ => format!("the lower bound of its change is {low:.3}, and {:.3} is allowed", -judge.completion_margin),
        };
    }
    Err(LearnError::NotEnoughData(format!(
        "no price of completion up to {} is shown to keep it: at that price {last}; log more sessions, or allow a larger margin",
        first_price * f64::from(1 << (PRICES_MAX - 2)),
    )))
}
