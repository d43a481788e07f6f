//! The estimators, each with its formula, what it assumes, and whose it is.
//!
//! Every one is a ratio of two sums over decisions, so clusters enter as their sums and one pass serves all of them,
//! the intervals and every bootstrap resample.

use serde::{Deserialize, Serialize};

use super::EvaluationConfig;
use super::interval::{self, Estimate};
use super::sheet::{Formula, Sheet};

/// One decision as an evaluation sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logged {
    /// Logged probability of the choice, in (0, 1].
    pub propensity: f64,
    /// Reward that followed, in units of utility.
    pub reward: f64,
    /// The target policy's probability of the same choice.
    pub target_probability: f64,
    /// The reward model's guess for the choice.
    pub q_hat_logged: f64,
    /// The reward model's guess averaged over the target policy's choices, `Σ_a π(a|x) q(x,a)`.
    pub q_hat_policy: f64,
    /// Share of the target policy's choices whose logged probability lies under the floor; `None` where the router
    /// logged only the probability of what it chose.
    pub unsupported_mass: Option<f64>,
    /// Which session or query: decisions of one cluster may depend on each other. A dense index from 0.
    pub cluster: usize,
}

impl Logged {
    pub(super) fn weight(&self) -> f64 {
        self.target_probability / self.propensity
    }

    /// The doubly robust score, `q(x,π) + w (r - q(x,a))`.
    fn dr(&self) -> f64 {
        self.q_hat_policy + self.weight() * (self.reward - self.q_hat_logged)
    }
}

/// Estimates of one target policy's value, and of its difference to the logging policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimates {
    /// Value of the logging policy: `mean(r)`. No assumption beyond independent clusters.
    pub logging: Estimate,
    /// Inverse propensity scoring, `mean(w r)`. Unbiased when the logged propensities are right and cover the target;
    /// high variance. Horvitz and Thompson 1952; Precup, Sutton and Singh 2000.
    pub ips: Estimate,
    /// Self-normalised IPS, `Σ w r / Σ w`. Same assumptions, consistent but biased for small samples, steadier; stays
    /// within the range of the rewards. Swaminathan and Joachims 2015, arXiv 1507.02206.
    pub snips: Estimate,
    /// Doubly robust, `mean(q(x,π) + w (r - q(x,a)))`. Unbiased when the propensities or `q` are right, provided that
    /// `q` was fitted on other clusters. Dudík, Langford and Li 2011, arXiv 1103.4601.
    pub dr: Estimate,
    /// Doubly robust value minus the logging policy's, row by row: `mean(q(x,π) + w (r - q(x,a)) - r)`. The pairing
    /// removes what both share. After Jeunen and Ustimenko 2024, arXiv 2405.10024.
    pub difference: Estimate,
}

/// Columns of a sheet: decisions, rewards, weights, weighted rewards, doubly robust scores.
const N: usize = 0;
const R: usize = 1;
const W: usize = 2;
const WR: usize = 3;
const DR_SCORE: usize = 4;
const COLUMNS: usize = 5;

/// All decisions, summed by cluster.
pub(super) fn sheet(rows: &[Logged]) -> Sheet {
    summed(rows, |row| {
        let w = row.weight();
        [1.0, row.reward, w, w * row.reward, row.dr()]
    })
}

/// Doubly robust scores of the one target policy minus those of the other, on the same decisions.
pub(super) fn paired(rows: &[Logged], other: &[Logged]) -> Sheet {
    let mut other = other.iter();
    summed(rows, |row| [1.0, 0.0, 0.0, 0.0, row.dr() - other.next().map_or(f64::NAN, Logged::dr)])
}

fn summed(rows: &[Logged], mut terms: impl FnMut(&Logged) -> [f64; COLUMNS]) -> Sheet {
    let clusters = rows.iter().map(|row| row.cluster + 1).max().unwrap_or(0);
    Sheet::new(clusters, COLUMNS, |values| {
        for row in rows {
            let sums = &mut values[row.cluster * COLUMNS..(row.cluster + 1) * COLUMNS];
            sums.iter_mut().zip(terms(row)).for_each(|(sum, term)| *sum += term);
        }
    })
}

/// The weights of each cluster summed, and of all.
pub(super) fn weights(sheet: &Sheet) -> (impl Iterator<Item = f64>, f64) {
    (sheet.rows().map(|row| row[W]), sheet.totals()[W])
}

pub(super) fn logging() -> Formula {
    Formula::ratio(&[(R, 1.0)], N)
}

pub(super) fn snips() -> Formula {
    Formula::ratio(&[(WR, 1.0)], W)
}

pub(super) fn doubly_robust() -> Formula {
    Formula::ratio(&[(DR_SCORE, 1.0)], N)
}

pub(super) fn mean_weight() -> Formula {
    Formula::ratio(&[(W, 1.0)], N)
}

pub(super) fn estimate(sheet: &Sheet, config: &EvaluationConfig) -> Estimates {
    let ips = Formula::ratio(&[(WR, 1.0)], N);
    let difference = Formula::ratio(&[(DR_SCORE, 1.0), (R, -1.0)], N);
    let found = interval::intervals(sheet, &[logging(), ips, snips(), doubly_robust(), difference], config);
    Estimates { logging: found[0], ips: found[1], snips: found[2], dr: found[3], difference: found[4] }
}
