//! The estimators, each with its formula, what it assumes, and whose it is.
//!
//! Every one is a ratio of two sums over decisions, so clusters enter as their sums and one pass serves all of them,
//! the intervals and every bootstrap resample.

use serde::{Deserialize, Serialize};

use super::EvaluationConfig;
use super::interval::{self, Estimate};

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

/// Sums of one cluster: decisions, rewards, weights, weighted rewards, doubly robust scores.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    pub n: f64,
    pub r: f64,
    pub w: f64,
    pub wr: f64,
    pub dr: f64,
}

impl Sums {
    pub(super) fn add(&mut self, other: &Self) {
        self.n += other.n;
        self.r += other.r;
        self.w += other.w;
        self.wr += other.wr;
        self.dr += other.dr;
    }
}

/// All decisions, summed by cluster.
pub(super) struct ClusterSums {
    pub clusters: Vec<Sums>,
    pub total: Sums,
}

impl ClusterSums {
    pub(super) fn new(rows: &[Logged]) -> Self {
        let count = rows.iter().map(|row| row.cluster + 1).max().unwrap_or(0);
        let mut clusters = vec![Sums::default(); count];
        for row in rows {
            let w = row.weight();
            clusters[row.cluster].add(&Sums { n: 1.0, r: row.reward, w, wr: w * row.reward, dr: row.dr() });
        }
        Self::of(clusters)
    }

    /// Doubly robust scores of the one target policy minus those of the other, on the same decisions.
    pub(super) fn paired(rows: &[Logged], other: &[Logged]) -> Self {
        let count = rows.iter().map(|row| row.cluster + 1).max().unwrap_or(0);
        let mut clusters = vec![Sums::default(); count];
        for (row, other) in rows.iter().zip(other) {
            clusters[row.cluster].add(&Sums { n: 1.0, dr: row.dr() - other.dr(), ..Sums::default() });
        }
        Self::of(clusters)
    }

    fn of(mut clusters: Vec<Sums>) -> Self {
        clusters.retain(|sums| sums.n > 0.0);
        let mut total = Sums::default();
        clusters.iter().for_each(|sums| total.add(sums));
        Self { clusters, total }
    }
}

/// A ratio of sums: which numerator over which denominator.
pub(super) type Ratio = (fn(&Sums) -> f64, fn(&Sums) -> f64);

pub(super) const LOGGING: Ratio = (|s| s.r, |s| s.n);
pub(super) const IPS: Ratio = (|s| s.wr, |s| s.n);
pub(super) const SNIPS: Ratio = (|s| s.wr, |s| s.w);
pub(super) const DR: Ratio = (|s| s.dr, |s| s.n);
pub(super) const DIFFERENCE: Ratio = (|s| s.dr - s.r, |s| s.n);
pub(super) const MEAN_WEIGHT: Ratio = (|s| s.w, |s| s.n);

pub(super) fn estimate(sums: &ClusterSums, config: &EvaluationConfig) -> Estimates {
    let ratios = [LOGGING, IPS, SNIPS, DR, DIFFERENCE];
    let [logging, ips, snips, dr, difference] = interval::intervals(sums, ratios, config);
    Estimates { logging, ips, snips, dr, difference }
}
