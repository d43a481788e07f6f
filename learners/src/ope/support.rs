//! Can these logs carry an answer? Asked before any number is given.

use serde::{Deserialize, Serialize};

use super::Logged;
use super::estimators::{mean_weight, weights};
use super::interval::Estimate;
use super::sheet::Sheet;

/// What the logs must offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupportLimits {
    /// Least effective number of clusters, `(Σ_c W_c)² / Σ_c W_c²` with `W_c` the weights of a cluster summed.
    pub effective_clusters_min: f64,
    /// The same, as a share of all clusters.
    pub effective_share_min: f64,
    /// A logged probability under this is no support (it allows weights above its inverse).
    pub propensity_floor: f64,
    /// Largest share of the target policy's choices without support.
    pub unsupported_mass_max: f64,
    /// Largest share of all weight that one cluster may hold.
    pub cluster_weight_share_max: f64,
    /// Confidence of the interval of the mean weight, which must hold 1: when it does not, the logged probabilities
    /// are not those that chose, or the target leaves what was logged. High, so that sound logs are seldom refused.
    pub integrity_confidence: f64,
}

impl Default for SupportLimits {
    fn default() -> Self {
        Self {
            effective_clusters_min: 200.0,
            effective_share_min: 0.01,
            propensity_floor: 0.01,
            unsupported_mass_max: 0.01,
            cluster_weight_share_max: 0.05,
            integrity_confidence: 0.999,
        }
    }
}

/// The propensity floor never goes under this, however little a policy explores: what is logged once in thousands of
/// decisions is no support.
const PROPENSITY_FLOOR_LEAST: f64 = 0.001;

impl SupportLimits {
    /// The limits for logs of policies that give each of `actions` models at least `exploration_floor / actions`: that
    /// much was paid so that the next policy can be judged, so it counts as support.
    #[must_use]
    pub fn for_floor(self, exploration_floor: f64, actions: usize) -> Self {
        // The smallest share that rounding may have left of the floor's.
        let granted = exploration_floor / actions.max(1) as f64 * (1.0 - 1e-9);
        if granted >= self.propensity_floor || exploration_floor <= 0.0 {
            return self;
        }
        let floor = granted.max(PROPENSITY_FLOOR_LEAST).min(self.propensity_floor);
        Self { propensity_floor: floor, ..self }
    }
}

/// What the logs offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Support {
    /// Decisions with a propensity and a reward.
    pub rows: usize,
    /// Sessions or queries among them.
    pub clusters: usize,
    /// Effective number of clusters (Kish 1965 on cluster sums).
    pub effective_clusters: f64,
    /// Effective number of rows, `(Σ w)² / Σ w²`.
    pub effective_rows: f64,
    /// Mean weight with the interval that must hold 1.
    pub mean_weight: Option<Estimate>,
    /// Largest weight of a row.
    pub weight_max: f64,
    /// Largest share of all weight in one cluster.
    pub cluster_weight_share: f64,
    /// Share of the target policy's choices with a logged probability under the floor (known exactly where routers log
    /// the probability of every candidate, else estimated from what was chosen) or of models without any usable
    /// decision.
    pub unsupported_mass: f64,
}

/// Measures the support and lists what is missing; an empty list means that it suffices.
pub(super) fn assess(rows: &[Logged], sheet: &Sheet, limits: &SupportLimits) -> (Support, Vec<String>) {
    let mut reasons = Vec::new();
    let sound = |p: f64| p > 0.0 && p <= 1.0;
    let unsound = rows.iter().filter(|row| !sound(row.propensity) || !row.weight().is_finite()).count();
    if rows.is_empty() {
        reasons.push("no decision has both a logged propensity and a reward".to_owned());
    }
    if unsound > 0 {
        reasons.push(format!("{unsound} logged propensities are not in (0, 1]"));
    }
    if !reasons.is_empty() {
        return (nothing(rows.len(), sheet.clusters()), reasons);
    }

    let support = measure(rows, sheet, limits);
    let share = support.effective_clusters / support.clusters as f64;
    if support.effective_clusters < limits.effective_clusters_min {
        reasons.push(format!(
            "effective sample of {:.1} clusters is under the minimum of {:.0}",
            support.effective_clusters, limits.effective_clusters_min
        ));
    }
    if share < limits.effective_share_min {
        reasons.push(format!(
            "effective sample is {:.2} % of the clusters, under {:.2} %",
            share * 100.0,
            limits.effective_share_min * 100.0
        ));
    }
    if support.unsupported_mass > limits.unsupported_mass_max {
        reasons.push(format!(
            "{:.1} % of the target policy's choices were logged with probability under {:.4}, or never",
            support.unsupported_mass * 100.0,
            limits.propensity_floor
        ));
    }
    if support.cluster_weight_share > limits.cluster_weight_share_max {
        reasons.push(format!("one cluster holds {:.1} % of all weight", support.cluster_weight_share * 100.0));
    }
    if let Some(weight) = support.mean_weight
        && !weight.covers(1.0)
    {
        reasons.push(format!(
            "mean weight {:.3} ({:.3} to {:.3}) excludes 1: logged propensities are wrong or do not cover the target",
            weight.value, weight.low, weight.high
        ));
    }
    (support, reasons)
}

fn measure(rows: &[Logged], sheet: &Sheet, limits: &SupportLimits) -> Support {
    let (by_cluster, total) = weights(sheet);
    let (cluster_squares, largest) =
        by_cluster.fold((0.0, 0.0_f64), |(squares, largest), weight| (squares + weight * weight, largest.max(weight)));
    let row_squares: f64 = rows.iter().map(|row| row.weight() * row.weight()).sum();
    let ratio = |numerator: f64, denominator: f64| if denominator > 0.0 { numerator / denominator } else { 0.0 };
    // Without the candidates' probabilities, E[w 1(p < floor)] is the target's mass on rarely logged choices.
    let unsupported: f64 = rows
        .iter()
        .map(|row| {
            let seen = if row.propensity < limits.propensity_floor { row.weight() } else { 0.0 };
            row.unsupported_mass.unwrap_or(seen)
        })
        .sum();
    // A policy that never leaves a fixed ratio to the logging one has weights without variance: nothing to test.
    let mean_weight = mean_weight().cluster_t(sheet, limits.integrity_confidence);
    let rounding = 1e-9;
    Support {
        rows: rows.len(),
        clusters: sheet.clusters(),
        effective_clusters: ratio(total * total, cluster_squares),
        effective_rows: ratio(total * total, row_squares),
        mean_weight: Some(Estimate {
            value: mean_weight.value,
            low: mean_weight.low - rounding,
            high: mean_weight.high + rounding,
        }),
        weight_max: rows.iter().map(Logged::weight).fold(0.0, f64::max),
        cluster_weight_share: ratio(largest, total),
        // Estimated from weights, it may exceed the whole.
        unsupported_mass: (unsupported / rows.len() as f64).min(1.0),
    }
}

fn nothing(rows: usize, clusters: usize) -> Support {
    Support {
        rows,
        clusters,
        effective_clusters: 0.0,
        effective_rows: 0.0,
        mean_weight: None,
        weight_max: 0.0,
        cluster_weight_share: 0.0,
        unsupported_mass: 1.0,
    }
}
