//! How often a target policy's sessions would have been done, and after how many turns, from sessions of another policy.
//!
//! With `ρ_t` the product of ratios up to turn `t`, the share of sessions that are done after exactly `t` turns is
//! `Σ ρ_t 1(done after t) / Σ ρ_t`, the weighted per-decision estimate of a reward that is paid there. Sessions that are over keep
//! their weight. The median is that of the sessions that are done at all. The logged median is an estimate too, so the difference is
//! taken in every resample: both medians are of the same sessions.

use serde::{Deserialize, Serialize};

use super::EvaluationConfig;
use super::bootstrap::resampled;
use super::interval::{Estimate, percentile_estimate};
use super::sheet::Sheet;
use crate::error::{LearnError, Result};

/// Columns of the sheet for each turn.
const OF_TURN: usize = 3;

/// A session as lengths need it.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedSession {
    /// The target policy's probability of each turn's choice over the logged one; as many as there were turns.
    pub ratios: Vec<f64>,
    /// Was the task done at its end?
    pub completed: bool,
}

/// How many turns completed sessions take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SessionLengths {
    /// Median turns of the logged sessions that were completed.
    pub logged: f64,
    /// The same of the target policy's; an interval of bootstrap percentiles, whose ends are whole turns.
    pub target: Estimate,
    /// The target's median less the logged one, over the same resamples.
    pub difference: Estimate,
}

/// Estimates the median length of completed sessions. Costs `bootstraps` passes over the sessions.
///
/// # Errors
/// [`LearnError::BadRounds`] without a completed session, or with a ratio that is negative or not finite.
pub fn estimate_lengths(sessions: &[EndedSession], config: &EvaluationConfig) -> Result<SessionLengths> {
    let longest = sessions.iter().map(|session| session.ratios.len()).max().unwrap_or(0);
    if !sessions.iter().any(|session| session.completed) {
        return Err(LearnError::BadRounds(
            "no session was completed: lengths of completed ones cannot be told".to_owned(),
        ));
    }
    let sound = |ratio: &f64| ratio.is_finite() && *ratio >= 0.0;
    if let Some(session) = sessions.iter().position(|session| !session.ratios.iter().all(sound)) {
        return Err(LearnError::BadRounds(format!("session {} has a ratio below 0 or not finite", session + 1)));
    }
    // Sessions; then for each turn the target's weight of what is done after it and of all, and how many are done after it.
    let width = 1 + OF_TURN * longest;
    let sheet = Sheet::new(sessions.len(), width, |values| {
        for (session, row) in sessions.iter().zip(values.chunks_exact_mut(width)) {
            let mut product = 1.0;
            row[0] = 1.0;
            for (turn, sums) in row[1..].chunks_exact_mut(OF_TURN).enumerate() {
                product *= session.ratios.get(turn).copied().unwrap_or(1.0);
                let done = f64::from(u8::from(session.completed && turn + 1 == session.ratios.len()));
                sums.copy_from_slice(&[done * product, product, done]);
            }
        }
    });
    let medians = |sums: &[f64]| (median(sums, |of| (of[0], of[1])), median(sums, |of| (of[2], sums[0])));
    let (value, logged) = medians(sheet.totals());
    if !value.is_finite() {
        return Err(LearnError::BadRounds("the target policy's sessions weigh nothing in these logs".to_owned()));
    }
    let drawn: Vec<(f64, f64)> =
        resampled(&sheet, config.bootstraps, config.seed).chunks_exact(width).map(medians).collect();
    // A resample in which nothing is completed says nothing.
    let estimate = |value: f64, of: &dyn Fn(&(f64, f64)) -> f64| {
        let mut draws: Vec<f64> = drawn.iter().map(of).filter(|turns| turns.is_finite()).collect();
        percentile_estimate(value, &mut draws, config.confidence)
    };
    Ok(SessionLengths {
        logged,
        target: estimate(value, &|(target, _)| *target),
        difference: estimate(value - logged, &|(target, logged)| target - logged),
    })
}

/// The least number of turns within which half of what is completed is, of shares as a part and a whole each; NaN where nothing is.
fn median(sums: &[f64], of: impl Fn(&[f64]) -> (f64, f64)) -> f64 {
    let share = |sums: &[f64]| match of(sums) {
        (part, whole) if whole > 0.0 => part / whole,
        _ => 0.0,
    };
    let turns = sums.get(1..).unwrap_or_default();
    let half: f64 = turns.chunks_exact(OF_TURN).map(share).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    let found = turns.chunks_exact(OF_TURN).position(|sums| {
        sum += share(sums);
        half > 0.0 && sum >= half
    });
    found.map_or(f64::NAN, |turn| (turn + 1) as f64)
}
