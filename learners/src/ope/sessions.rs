//! Values of policies that decide at every turn of a session, from sessions of another one.
//!
//! A session is a row of turns `t = 0, 1, …`, each with the ratio `π(a|s) / p` of its choice, a reward, and a model's guesses `q(s, a)` of
//! the discounted rewards from there on and `v(s) = Σ_a π(a|s) q(s, a)`. `ρ_t` is the product of the ratios up to turn `t`, `γ` the discount.
//! The value is that of a session: `E Σ_t γ^t r_t`.
//!
//! Sessions that are over stay where they are: their later rewards and guesses are 0, their `ρ` no longer changes, and they count in every
//! normalisation (Thomas and Brunskill 2016).

use serde::{Deserialize, Serialize};

use super::EvaluationConfig;
use super::interval::{self, Estimate};
use super::sheet::{Formula, Ratio, Sheet};
use crate::error::{LearnError, Result};

/// One turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// The target policy's probability of the choice over the logged one.
    pub ratio: f64,
    /// What the turn brought.
    pub reward: f64,
    /// A model's guess of this and all later rewards, after this choice.
    pub q_logged: f64,
    /// The same, averaged over the target's choices.
    pub v_policy: f64,
}

/// What each estimator says of a session's value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SessionEstimates {
    /// What the logging policy's sessions were worth.
    pub logging: Estimate,
    /// Per-decision importance sampling, `mean Σ γ^t ρ_t r_t`. Precup, Sutton and Singh 2000.
    pub per_decision: Estimate,
    /// The same with `ρ_t` divided by its mean over sessions.
    pub weighted_per_decision: Estimate,
    /// The direct method, `mean v(s_0)`: shown, never decisive.
    pub direct: Estimate,
    /// Doubly robust, `mean Σ γ^t (ρ_t (r_t - q_t) + ρ_{t-1} v_t)`. Jiang and Li 2016, arXiv 1511.03722.
    pub doubly_robust: Estimate,
    /// Weighted doubly robust: both `ρ` divided by their means. Thomas and Brunskill 2016, arXiv 1604.00923.
    pub weighted_doubly_robust: Estimate,
    /// Weighted doubly robust value minus what was logged.
    pub difference: Estimate,
}

/// How much the sessions say of the target policy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SessionSupport {
    /// Sessions.
    pub sessions: usize,
    /// Effective number of them by the products of their ratios, `(Σ ρ)² / Σ ρ²`.
    pub effective_sessions: f64,
    /// The mean product, which must come near 1.
    pub mean_weight: Estimate,
    /// Turns of the longest.
    pub turns_max: usize,
}

/// Columns for each turn: `ρ_t r_t`, `ρ_t`, `ρ_t (r_t - q_t)`, `ρ_{t-1} v_t`, `ρ_{t-1}`.
const OF_TURN: usize = 5;
/// Columns before them: sessions, logged value, `v(s_0)`, `ρ` at the end.
const FIXED: usize = 4;

/// Estimates the value of a session under the target policy. Linear in turns; sessions that are much longer than the others make all of
/// them cost as much.
///
/// # Errors
/// [`LearnError::BadRounds`] without a session, or with a number that is not finite.
pub fn estimate_sessions(
    sessions: &[Vec<Turn>],
    discount: f64,
    config: &EvaluationConfig,
) -> Result<(SessionEstimates, SessionSupport)> {
    let horizon = check(sessions)?;
    let sheet = sheet(sessions, horizon, discount);
    let summed = |which: &[usize]| {
        let terms = |turn: usize| which.iter().map(move |which| (column(turn, *which), factor(discount, turn)));
        Formula::ratio(&(0..horizon).flat_map(terms).collect::<Vec<_>>(), 0)
    };
    let weighted = Formula(weighted(horizon, discount));
    let mut difference = weighted.clone();
    difference.0.push(Ratio { numerator: vec![(1, -1.0)], denominator: 0 });
    let formulas = [
        Formula::ratio(&[(1, 1.0)], 0),
        summed(&[0]),
        Formula(over(0, 1, (horizon, discount)).collect()),
        Formula::ratio(&[(2, 1.0)], 0),
        summed(&[2, 3]),
        weighted,
        difference,
    ];
    let found = interval::intervals(&sheet, &formulas, config);
    let estimates = SessionEstimates {
        logging: found[0],
        per_decision: found[1],
        weighted_per_decision: found[2],
        direct: found[3],
        doubly_robust: found[4],
        weighted_doubly_robust: found[5],
        difference: found[6],
    };
    let squares: f64 = sheet.rows().map(|row| row[3] * row[3]).sum();
    let total = sheet.totals()[3];
    let support = SessionSupport {
        sessions: sheet.clusters(),
        effective_sessions: if squares > 0.0 { total * total / squares } else { 0.0 },
        mean_weight: Formula::ratio(&[(3, 1.0)], 0).cluster_t(&sheet, config.limits.integrity_confidence),
        turns_max: horizon,
    };
    Ok((estimates, support))
}

/// The weighted doubly robust value of one target policy less that of another, from the same sessions in the same order.
///
/// # Errors
/// As [`estimate_sessions`], and where the two are not of the same sessions.
pub fn session_difference(
    sessions: &[Vec<Turn>],
    others: &[Vec<Turn>],
    discount: f64,
    config: &EvaluationConfig,
) -> Result<Estimate> {
    let horizon = check(sessions)?;
    check(others)?;
    if !sessions.iter().map(Vec::len).eq(others.iter().map(Vec::len)) {
        return Err(LearnError::BadRounds("the two policies are not on the same sessions".to_owned()));
    }
    // One sheet with the columns of both side by side, so that a resample draws a session of both.
    let (one, other) = (sheet(sessions, horizon, discount), sheet(others, horizon, discount));
    let (width, wide) = (one.width(), 2 * one.width());
    let both = Sheet::new(one.clusters(), wide, |values| {
        for (row, (one, other)) in values.chunks_exact_mut(wide).zip(one.rows().zip(other.rows())) {
            row[..width].copy_from_slice(one);
            row[width..].copy_from_slice(other);
        }
    });
    let mut difference = weighted(horizon, discount);
    for Ratio { numerator, denominator } in weighted(horizon, discount) {
        let numerator = numerator.into_iter().map(|(column, factor)| (width + column, -factor)).collect();
        difference.push(Ratio { numerator, denominator: width + denominator });
    }
    Ok(interval::intervals(&both, &[Formula(difference)], config)[0])
}

/// Turns of the longest session.
fn check(sessions: &[Vec<Turn>]) -> Result<usize> {
    let horizon = sessions.iter().map(Vec::len).max().unwrap_or(0);
    if horizon == 0 {
        return Err(LearnError::BadRounds("there is no session with a turn".to_owned()));
    }
    let sound = |turn: &Turn| {
        let numbers = [turn.ratio, turn.reward, turn.q_logged, turn.v_policy];
        turn.ratio >= 0.0 && numbers.iter().all(|number| number.is_finite())
    };
    match sessions.iter().position(|turns| !turns.iter().all(sound)) {
        Some(session) => Err(LearnError::BadRounds(format!(
            "session {} has a ratio below 0 or a number that is not finite",
            session + 1
        ))),
        None => Ok(horizon),
    }
}

fn column(turn: usize, which: usize) -> usize {
    FIXED + OF_TURN * turn + which
}

fn factor(discount: f64, turn: usize) -> f64 {
    discount.powi(i32::try_from(turn).unwrap_or(i32::MAX))
}

/// The weighted doubly robust estimate: `Σ_t γ^t (Σ ρ_t (r_t - q_t) / Σ ρ_t + Σ ρ_{t-1} v_t / Σ ρ_{t-1})`.
fn weighted(horizon: usize, discount: f64) -> Vec<Ratio> {
    let per_turn = (horizon, discount);
    over(2, 1, per_turn).chain(over(3, 4, per_turn)).collect()
}

/// `γ^t Σ which / Σ by` of every turn.
fn over(which: usize, by: usize, (horizon, discount): (usize, f64)) -> impl Iterator<Item = Ratio> {
    (0..horizon).map(move |turn| Ratio {
        numerator: vec![(column(turn, which), factor(discount, turn))],
        denominator: column(turn, by),
    })
}

fn sheet(sessions: &[Vec<Turn>], horizon: usize, discount: f64) -> Sheet {
    let width = FIXED + OF_TURN * horizon;
    Sheet::new(sessions.len(), width, |values| {
        for (turns, row) in sessions.iter().zip(values.chunks_exact_mut(width)) {
            let Some(first) = turns.first() else { continue };
            row[0] = 1.0;
            row[2] = first.v_policy;
            let mut before = 1.0;
            for (turn, sums) in row[FIXED..].chunks_exact_mut(OF_TURN).enumerate() {
                let over = Turn { ratio: 1.0, reward: 0.0, q_logged: 0.0, v_policy: 0.0 };
                let Turn { ratio, reward, q_logged, v_policy } = turns.get(turn).copied().unwrap_or(over);
                let product = before * ratio;
                sums.copy_from_slice(&[
                    product * reward,
                    product,
                    product * (reward - q_logged),
                    before * v_policy,
                    before,
                ]);
                before = product;
            }
            row[1] = discounted(turns, discount);
            row[3] = before;
        }
    })
}

fn discounted(turns: &[Turn], discount: f64) -> f64 {
    turns.iter().rev().fold(0.0, |later, turn| turn.reward + discount * later)
}
