//! Off-policy evaluation: what a policy would have earned, from logs of another one.
//!
//! **In:** one [`Logged`] per decision: the logged probability of what was chosen, the reward that followed, the target
//! policy's probability of the same choice, and a reward model's guesses. **Out:** an [`Evaluation`]: estimates with
//! intervals and a [`Verdict`], or the reasons why these logs cannot carry an answer, and then no number at all.
//!
//! Notation: decisions `i = 1..n`, context `x_i`, choice `a_i` drawn with logged probability `p_i`, reward `r_i`, target
//! policy `π`, weight `w_i = π(a_i|x_i) / p_i`, reward model `q`.
//!
//! **Assumed by all of it:** the logged probabilities are the true ones; every choice that `π` makes had a logged
//! probability above zero (checked as far as logs can show it); the reward of a decision depends on its own context and
//! choice only; a reward is missing independently of its value given context and choice; clusters (sessions, or repeats
//! of one query) are independent of each other.

mod bernstein;
mod bootstrap;
mod catalogue;
mod cross_fit;
mod estimators;
mod fitted_q;
mod interval;
mod rounds;
mod sequence;
mod session_lengths;
mod sessions;
mod sheet;
mod support;
mod tuning;

pub use bernstein::empirical_bernstein;
pub use catalogue::{Method, MethodEstimate, Parameters, estimate_all};
pub use cross_fit::{ProgressiveTable, TableRow, cross_fitted_table, fold_of};
pub use estimators::{Estimates, Logged};
pub use fitted_q::{FittedQConfig, Transition, fitted_q};
pub(crate) use interval::percentile_estimate;
pub use interval::{Estimate, IntervalKind};
pub use rounds::Rounds;
pub use sequence::{ConfidenceSequence, PseudoOutcome, SequenceConfig};
pub use session_lengths::{EndedSession, SessionLengths, estimate_lengths};
pub use sessions::{SessionEstimates, SessionSupport, Turn, estimate_sessions, session_difference};
pub use support::{Support, SupportLimits};

use serde::{Deserialize, Serialize};

/// How to evaluate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Coverage that the intervals aim for, two-sided.
    pub confidence: f64,
    /// How intervals are made.
    pub interval: IntervalKind,
    /// Resamples of a bootstrap interval.
    pub bootstraps: usize,
    /// Seed of a bootstrap interval.
    pub seed: u64,
    /// `better` needs the lower bound of the difference above this, in units of reward.
    pub margin: f64,
    /// What the logs must offer before a number is given.
    pub limits: SupportLimits,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            confidence: 0.95,
            interval: IntervalKind::ClusterT,
            bootstraps: 1000,
            seed: 0,
            margin: 0.0,
            limits: SupportLimits::default(),
        }
    }
}

/// The answer to "is the target policy better than the one that logged, and than the one in force?".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// The lower bound of the paired difference lies above the margin; of both, where a policy is in force.
    Better,
    /// The upper bound of one of those differences lies below zero less the margin.
    Worse,
    /// Neither: the target may be as good, or the logs too few to tell.
    NotShown,
    /// The logs cannot carry an answer.
    InsufficientSupport {
        /// Why, one sentence each.
        reasons: Vec<String>,
    },
}

impl Verdict {
    /// The verdict in words, as reports and the command line print it.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NotShown => "not shown",
            Self::InsufficientSupport { .. } => "insufficient support",
        }
    }
}

/// What the logs say of one target policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What the logs offer.
    pub support: Support,
    /// The estimates; none where support is insufficient.
    pub estimates: Option<Estimates>,
}

/// Evaluates the target policy that `rows` describe.
///
/// The verdict rests on the doubly robust estimate of the paired difference (target minus logging policy on the same
/// rows): it is unbiased whatever the reward model says, as long as the logged probabilities are right.
#[must_use]
pub fn evaluate(rows: &[Logged], config: &EvaluationConfig) -> Evaluation {
    let sheet = estimators::sheet(rows);
    let (support, reasons) = support::assess(rows, &sheet, &config.limits);
    if !reasons.is_empty() {
        return Evaluation { verdict: Verdict::InsufficientSupport { reasons }, support, estimates: None };
    }
    let estimates = estimators::estimate(&sheet, config);
    let verdict = told_by(&estimates.difference, config.margin, &estimates);
    Evaluation { verdict, support, estimates: Some(estimates) }
}

/// Largest relative error that summing may leave in a difference: two equal policies differ by that much and no more.
const ROUNDING: f64 = 1e-9;

/// What summing may leave in a difference of values like these.
pub(crate) fn rounding(values: &[Estimate]) -> f64 {
    ROUNDING * values.iter().map(|value| value.value.abs()).sum::<f64>()
}

/// Does the whole interval lie above the margin, or below what is opposite of it, by more than rounding can do?
fn told_by(difference: &Estimate, margin: f64, estimates: &Estimates) -> Verdict {
    let bound = margin + rounding(&[estimates.dr, estimates.logging]);
    if difference.low > bound {
        Verdict::Better
    } else if difference.high < -bound {
        Verdict::Worse
    } else {
        Verdict::NotShown
    }
}

/// The target policy's value minus another's, both doubly robust, decision by decision on the same logs. The pairing
/// removes what both share. `rows` and `other` describe the same decisions in the same order.
#[must_use]
pub fn paired_difference(rows: &[Logged], other: &[Logged], config: &EvaluationConfig) -> Estimate {
    interval::intervals(&estimators::paired(rows, other), &[estimators::doubly_robust()], config)[0]
}

/// Holds a target policy against the one in force too: `better` then needs a `difference` to it above the margin too, and
/// logs that cannot judge the policy in force cannot say that another is better than it.
#[must_use]
pub fn held_against(
    target: Evaluation,
    in_force: &Evaluation,
    difference: Option<&Estimate>,
    config: &EvaluationConfig,
) -> Evaluation {
    let Some(estimates) = &target.estimates else { return target };
    if let Verdict::InsufficientSupport { reasons } = &in_force.verdict {
        let reasons = reasons.iter().map(|reason| format!("the policy in force cannot be judged: {reason}")).collect();
        return Evaluation { verdict: Verdict::InsufficientSupport { reasons }, estimates: None, ..target };
    }
    let verdict = match (&target.verdict, difference.map(|difference| told_by(difference, config.margin, estimates))) {
        (Verdict::Better, Some(Verdict::Better)) => Verdict::Better,
        (Verdict::Worse, _) | (_, Some(Verdict::Worse)) => Verdict::Worse,
        _ => Verdict::NotShown,
    };
    Evaluation { verdict, ..target }
}

/// The mean of `reward` over what a policy that always takes the logged choice would see: weights `1 / p`, divided by
/// their sum. `None` with so few clusters that its interval would mean nothing.
pub(crate) fn weighted_mean(rows: &[Logged], confidence: f64) -> Option<Estimate> {
    const CLUSTERS_MIN: usize = 30;
    let sheet = estimators::sheet(rows);
    (sheet.clusters() >= CLUSTERS_MIN).then(|| estimators::snips().cluster_t(&sheet, confidence))
}

/// What the logging policy earned: the mean reward, with an interval. Needs no propensities, so it is never refused for
/// lack of support; `None` without two clusters.
#[must_use]
pub fn logging_value(rows: &[Logged], config: &EvaluationConfig) -> Option<Estimate> {
    let sheet = estimators::sheet(rows);
    (sheet.clusters() > 1).then(|| interval::intervals(&sheet, &[estimators::logging()], config)[0])
}
