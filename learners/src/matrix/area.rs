//! Quality over cost in one number: the average improvement in quality, AIQ.
//!
//! A policy that can be set to any price is a curve of mean quality over mean cost. Its non-decreasing convex hull is what can be had by
//! drawing between two settings; AIQ is the hull's mean over a range of costs (RouterBench, arXiv 2403.12031). The range is that of the
//! single models, the same for all; sending everything to the cheapest model is open to every policy, so all curves begin there.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::data::Matrix;
use super::experiment::MatrixConfig;
use super::policies::Guesses;
use crate::ope::{Estimate, percentile_estimate};

/// Exchange rates at which a policy is looked at, beside none at all.
const RATES: usize = 24;
/// Resamples of the queries: each makes every hull anew.
const BOOTSTRAPS_MAX: usize = 500;

/// A policy's area.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AreaScore {
    /// The policy.
    pub policy: String,
    /// Mean quality over the range of costs.
    pub aiq: Estimate,
    /// That minus the area of the best that single models give, resample by resample.
    pub over_single_models: Estimate,
}

/// Costs and qualities of each query at each setting of a policy, `[setting][query]`.
struct Curve {
    policy: String,
    settings: Vec<Vec<(f64, f64)>>,
}

/// Areas of the policies on the test queries; the first is of single models alone.
pub(super) fn areas(
    matrix: &Matrix,
    test: &[usize],
    policies: &[(&str, &Guesses)],
    config: &MatrixConfig,
) -> Vec<AreaScore> {
    let models = matrix.models.len();
    let of = |query: usize, model: usize| {
        let cell = matrix.cell(query, model);
        (matrix.cost_usd[cell], matrix.quality[cell])
    };
    let single: Vec<Vec<(f64, f64)>> =
        (0..models).map(|model| test.iter().map(|&query| of(query, model)).collect()).collect();
    let mean_costs = matrix.mean_costs(test);
    let (least, most) = mean_costs.iter().fold((f64::INFINITY, 0.0_f64), |(l, m), cost| (l.min(*cost), m.max(*cost)));
    let cheapest = (0..models).min_by(|a, b| mean_costs[*a].total_cmp(&mean_costs[*b])).unwrap_or(0);
    let mut curves = vec![Curve { policy: "single models".to_owned(), settings: single.clone() }];
    for (name, guesses) in policies {
        let mut settings: Vec<Vec<(f64, f64)>> = rates(most)
            .map(|usd| {
                let choices = guesses.choices(matrix, test, usd);
                test.iter().zip(choices).map(|(&query, model)| of(query, model)).collect()
            })
            .collect();
        settings.push(single[cheapest].clone());
        curves.push(Curve { policy: (*name).to_owned(), settings });
    }
    let whole: Vec<f64> = vec![1.0; test.len()];
    let mut draws: Vec<Vec<f64>> = vec![Vec::new(); curves.len()];
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    for _ in 0..config.bootstraps.min(BOOTSTRAPS_MAX) {
        let mut times = vec![0.0; test.len()];
        (0..test.len()).for_each(|_| times[rng.random_range(0..test.len())] += 1.0);
        for (curve, draws) in curves.iter().zip(&mut draws) {
            draws.push(curve.area(&times, least, most));
        }
    }
    let estimate = |value: f64, mut draws: Vec<f64>| percentile_estimate(value, &mut draws, config.confidence);
    let of_single = curves[0].area(&whole, least, most);
    let scores = curves.iter().enumerate().map(|(at, curve)| {
        let value = curve.area(&whole, least, most);
        let over = draws[at].iter().zip(&draws[0]).map(|(own, single)| own - single).collect();
        AreaScore {
            policy: curve.policy.clone(),
            aiq: estimate(value, draws[at].clone()),
            over_single_models: estimate(value - of_single, over),
        }
    });
    scores.collect()
}

/// Exchange rates, quality per USD, from "cost does not matter" to "a unit of quality is worth less than the cheapest call", where the
/// dearest costs `most`.
pub(super) fn rates(most: f64) -> impl Iterator<Item = f64> {
    let others = (0..RATES).map(move |step| 10_f64.powf(-2.0 + 5.0 * step as f64 / RATES as f64) / most);
    std::iter::once(0.0).chain(others)
}

impl Curve {
    /// The area where each query counts so many times.
    fn area(&self, times: &[f64], least: f64, most: f64) -> f64 {
        let total: f64 = times.iter().sum();
        let mean = |setting: &Vec<(f64, f64)>| {
            let sums = setting
                .iter()
                .zip(times)
                .fold((0.0, 0.0), |sums, (point, times)| (sums.0 + times * point.0, sums.1 + times * point.1));
            (sums.0 / total, sums.1 / total)
        };
        let points: Vec<(f64, f64)> = self.settings.iter().map(mean).collect();
        aiq(&points, least, most)
    }
}

/// Mean height of the non-decreasing convex hull of (cost, quality) points between two costs.
///
/// Left of the cheapest point the hull is as high as that point, which stands for sending everything there.
pub(super) fn aiq(points: &[(f64, f64)], least: f64, most: f64) -> f64 {
    let mut points = points.to_vec();
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut hull: Vec<(f64, f64)> = Vec::new();
    for point in points {
        // What costs more and is no better is nowhere on it.
        if hull.last().is_some_and(|last| point.1 <= last.1) {
            continue;
        }
        while let [.., before, last] = hull[..] {
            let rises = (last.1 - before.1) * (point.0 - before.0);
            if rises > (point.1 - before.1) * (last.0 - before.0) {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    if most <= least || hull.is_empty() {
        return hull.last().map_or(0.0, |last| last.1);
    }
    let height = |cost: f64| {
        let right = hull.iter().position(|point| point.0 >= cost);
        match right {
            None => hull[hull.len() - 1].1,
            Some(0) => hull[0].1,
            Some(at) => {
                let (from, to) = (hull[at - 1], hull[at]);
                from.1 + (to.1 - from.1) * (cost - from.0) / (to.0 - from.0)
            }
        }
    };
    // Linear between corners: trapezoids are exact.
    let mut corners: Vec<f64> = hull.iter().map(|point| point.0).filter(|cost| *cost > least && *cost < most).collect();
    corners.insert(0, least);
    corners.push(most);
    let pieces = corners.windows(2).map(|pair| (pair[1] - pair[0]) * f64::midpoint(height(pair[0]), height(pair[1])));
    pieces.sum::<f64>() / (most - least)
}

#[cfg(test)]
mod tests {
    use super::aiq;

    #[test]
    fn the_area_of_a_hull_is_its_closed_form() {
        // From (1, 0.4) to (3, 0.8): the mean over [1, 3] is 0.6; a point below the line changes nothing, one above does.
        assert!((aiq(&[(1.0, 0.4), (3.0, 0.8)], 1.0, 3.0) - 0.6).abs() < 1e-12);
        assert!((aiq(&[(1.0, 0.4), (2.0, 0.5), (3.0, 0.8)], 1.0, 3.0) - 0.6).abs() < 1e-12);
        assert!((aiq(&[(1.0, 0.4), (2.0, 0.8), (3.0, 0.8)], 1.0, 3.0) - 0.7).abs() < 1e-12);
        // What costs more and is worse is not taken; beyond the last point quality stays.
        assert!((aiq(&[(1.0, 0.4), (2.0, 0.8), (3.0, 0.2)], 1.0, 3.0) - 0.7).abs() < 1e-12);
        assert!((aiq(&[(2.0, 0.5)], 1.0, 3.0) - 0.5).abs() < 1e-12);
        assert!((aiq(&[(1.0, 0.4)], 1.0, 1.0) - 0.4).abs() < 1e-12, "no range at all");
    }
}
