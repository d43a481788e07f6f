//! How a policy turns what it expects into probabilities, beside inverse-gap weighting.
//!
//! Every strategy gives every action its probability *before* anything is drawn, so that the propensity that is logged is
//! the one that was drawn with, exactly. Thompson sampling, which draws first and maximises then, has no such number: here it is integrated.

use serde::{Deserialize, Serialize};

/// From utilities to probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Strategy {
    /// Inverse-gap weighting by [`crate::Exploration::gamma`].
    #[default]
    InverseGap,
    /// `p(a) ∝ exp(u(a) / (temperature · scale))`, where the scale of utility is `objective.quality + objective.usd · usd_scale`: a policy
    /// that is asked for another trade-off is as sharp as before.
    Softmax {
        /// In units of quality, above 0.
        temperature: f64,
    },
    /// The probability that the action is the best one, by the network's posterior (Thompson 1933, Biometrika 25:285).
    Thompson,
    /// The action with the highest upper bound, `û + width · σ` (LinUCB, Li et al. 2010, arXiv 1003.0146): what explores is its floor.
    UpperBound {
        /// Standard deviations of the posterior, 0 or more.
        width: f64,
    },
}

impl Strategy {
    /// Does it need to know how sure the network is?
    #[must_use]
    pub fn needs_posterior(self) -> bool {
        matches!(self, Self::Thompson | Self::UpperBound { .. })
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::InverseGap
    }

    pub(crate) fn problem(self) -> Option<&'static str> {
        match self {
            Self::Softmax { temperature } if !(temperature.is_finite() && temperature > 0.0) => {
                Some("strategy.softmax.temperature must be a finite number above 0")
            }
            Self::UpperBound { width } if !(width.is_finite() && width >= 0.0) => {
                Some("strategy.upper_bound.width must be a finite number, zero or above")
            }
            _ => None,
        }
    }
}

/// Writes `softmax(scores / temperature)` over the allowed actions, mixed with the floor. Scores that are not finite get the floor only.
///
/// # Panics
/// When the slices differ in length.
pub fn softmax_weights(scores: &[f64], allowed: &[bool], temperature: f64, floor: f64, out: &mut [f64]) {
    assert!(scores.len() == allowed.len() && scores.len() == out.len(), "one score, one flag, one output per action");
    let usable = |a: usize| allowed[a] && scores[a].is_finite();
    let best = (0..scores.len()).filter(|&a| usable(a)).map(|a| scores[a]).fold(f64::NEG_INFINITY, f64::max);
    for a in 0..scores.len() {
        out[a] = if usable(a) { ((scores[a] - best) / temperature).exp() } else { 0.0 };
    }
    normalise_above_floor(allowed, floor, out);
}

/// Borders of cells for each action, from `-REACH` to `REACH` standard deviations around its mean.
const BORDERS: usize = 21;
/// Standard deviations beyond which nothing is looked for: less than 1 in a million.
const REACH: f64 = 5.0;

/// Writes for each allowed action the probability that it is the best, where `u(a) ~ N(mean(a), sd(a)²)` independently, mixed with the floor:
///
/// ```text
/// P(a is best) = ∫ φ_a(u) Π_{b ≠ a} Φ_b(u) du
/// ```
///
/// By cells of the line: the mass of `a` in a cell times the chance that the others lie below its middle. Every action brings borders of its
/// own, half a standard deviation apart, so that one that is well known is as finely cut as one that is not. What cells leave out is spread
/// in proportion. Deterministic, so that every replica gives the same propensities; within 0.02 of sampling (tests). Costs up to
/// `21 K²` distribution functions for `K` actions that can be the best. `room` is reused from call to call.
///
/// # Panics
/// When the slices differ in length.
pub(crate) fn best_probabilities(
    (means, sds): (&[f64], &[f64]),
    allowed: &[bool],
    floor: f64,
    room: &mut Vec<f64>,
    out: &mut [f64],
) {
    let actions = means.len();
    assert!(sds.len() == actions && allowed.len() == actions && out.len() == actions, "one number per action");
    out.fill(0.0);
    let usable = |a: usize| allowed[a] && means[a].is_finite() && sds[a].is_finite();
    let ends = |sign: f64| (0..actions).filter(|&a| usable(a)).map(move |a| means[a] + sign * REACH * sds[a].max(0.0));
    let (low, high) = (ends(-1.0).fold(f64::NEG_INFINITY, f64::max), ends(1.0).fold(f64::NEG_INFINITY, f64::max));
    if low.is_finite() && high > low {
        // What is certain is taken for nearly so, beside the others' spread: a step inside a cell would be half of one.
        let sd = |a: usize| sds[a].max(1e-6 * (high - low));
        let end = |a: usize, sign: f64| means[a] + sign * REACH * sd(a);
        // Below the highest lower end nothing is the best, and who cannot reach it is not either.
        let low = (0..actions).filter(|&a| usable(a)).map(|a| end(a, -1.0)).fold(f64::NEG_INFINITY, f64::max);
        let contends = |a: usize| usable(a) && end(a, 1.0) >= low;
        let high = (0..actions).filter(|&a| usable(a)).map(|a| end(a, 1.0)).fold(f64::NEG_INFINITY, f64::max);
        room.clear();
        room.resize(2 * actions, 1.0);
        for a in (0..actions).filter(|&a| contends(a)) {
            let own = (0..BORDERS).map(|k| means[a] + sd(a) * REACH * (2.0 * k as f64 / (BORDERS - 1) as f64 - 1.0));
            room.extend(own.filter(|at| *at > low && *at < high));
        }
        room.push(high);
        let (at_ends, borders) = room.split_at_mut(2 * actions);
        borders.sort_unstable_by(f64::total_cmp);
        let (at_start, at_end) = at_ends.split_at_mut(actions);
        let fill = |at: f64, into: &mut [f64]| {
            (0..actions).filter(|&a| contends(a)).for_each(|a| into[a] = normal_cdf((at - means[a]) / sd(a)));
        };
        fill(low, at_start);
        for &border in borders.iter() {
            fill(border, at_end);
            // The product over all others, as the product over all divided by one's own: a middle is never 0 where it matters.
            let middle = |a: usize, start: &[f64], end: &[f64]| f64::midpoint(start[a], end[a]);
            let all: f64 = (0..actions).map(|a| middle(a, at_start, at_end)).product();
            if all > 0.0 {
                for a in (0..actions).filter(|&a| contends(a)) {
                    out[a] += (at_end[a] - at_start[a]).max(0.0) * all / middle(a, at_start, at_end);
                }
            }
            at_start.copy_from_slice(at_end);
        }
    } else if low.is_finite() {
        // Nothing is uncertain: the best share it.
        (0..actions).filter(|&a| usable(a) && means[a] >= high).for_each(|a| out[a] = 1.0);
    }
    normalise_above_floor(allowed, floor, out);
}

/// `(1 - floor) · out / Σ out + floor / m` over the `m` allowed actions; uniform where `out` holds nothing.
fn normalise_above_floor(allowed: &[bool], floor: f64, out: &mut [f64]) {
    let m = allowed.iter().filter(|flag| **flag).count() as f64;
    let sum: f64 = out.iter().sum();
    for (p, flag) in out.iter_mut().zip(allowed) {
        *p = match (*flag, sum > 0.0) {
            (false, _) => 0.0,
            (true, true) => (1.0 - floor) * *p / sum + floor / m,
            (true, false) => 1.0 / m,
        };
    }
}

/// The normal distribution function, absolute error below 7.5e-8 (Abramowitz and Stegun 1964, formula 26.2.17).
pub(crate) fn normal_cdf(x: f64) -> f64 {
    const SERIES: [f64; 5] = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let polynomial = SERIES.iter().rev().fold(0.0, |sum, coefficient| (sum + coefficient) * t);
    let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let tail = density * polynomial;
    if x >= 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn best(means: &[f64], sds: &[f64], allowed: &[bool], floor: f64) -> Vec<f64> {
        let mut out = vec![f64::NAN; means.len()];
        best_probabilities((means, sds), allowed, floor, &mut Vec::new(), &mut out);
        out
    }

    /// scipy 1.11 `norm.cdf` at -3, -1, 0, 0.5 and 2.
    #[test]
    fn the_normal_distribution_function() {
        for (x, p) in [
            (-3.0, 0.001_349_898_0),
            (-1.0, 0.158_655_253_9),
            (0.0, 0.5),
            (0.5, 0.691_462_461_3),
            (2.0, 0.977_249_868_1),
        ] {
            assert!((normal_cdf(x) - p).abs() < 1e-7, "{x}: {}", normal_cdf(x));
        }
    }

    /// Two actions have a closed form: `Φ((μ1 - μ2) / sqrt(σ1² + σ2²))`.
    #[test]
    fn two_actions_are_their_closed_form() {
        for (means, sds) in
            [([0.3, 0.1], [0.2, 0.1]), ([0.0, 1.0], [0.5, 2.0]), ([0.5, 0.5], [0.01, 1.0]), ([0.1, 0.0], [0.0, 0.1])]
        {
            let closed = normal_cdf((means[0] - means[1]) / f64::hypot(sds[0], sds[1]));
            let found = best(&means, &sds, &[true; 2], 0.0);
            assert!((found[0] - closed).abs() < 0.01, "{means:?} {sds:?}: {found:?}, {closed}");
        }
    }

    /// Sampling, 100,000 draws of NumPy 1.26: 0.007 and 0.039.
    #[test]
    fn two_that_are_well_known_are_told_apart_beside_one_that_is_not() {
        let found = best(&[0.80, 0.81, 0.6], &[0.003, 0.003, 0.3], &[true; 3], 0.0);
        assert!((found[0] - 0.007).abs() < 0.01, "{found:?}");
        let found = best(&[0.50, 0.52, 0.5], &[0.01, 0.01, 1.0], &[true; 3], 0.0);
        assert!((found[0] - 0.039).abs() < 0.01, "{found:?}");
    }

    #[test]
    fn equal_actions_are_equally_likely_and_certain_ones_are_not_sampled() {
        let found = best(&[0.4; 5], &[0.1; 5], &[true; 5], 0.0);
        assert!(found.iter().all(|p| (p - 0.2).abs() < 1e-9), "{found:?}");
        assert_eq!(best(&[0.4, 0.5, 0.5], &[0.0; 3], &[true; 3], 0.0), [0.0, 0.5, 0.5]);
        assert_eq!(best(&[f64::NAN, 0.5], &[0.1; 2], &[true; 2], 0.5), [0.25, 0.75]);
        assert_eq!(best(&[f64::NAN; 2], &[0.1; 2], &[true; 2], 0.0), [0.5, 0.5]);
    }

    #[test]
    fn softmax_by_hand() {
        let mut out = [0.0; 3];
        softmax_weights(&[0.0, 3f64.ln(), 9.0], &[true, true, false], 1.0, 0.2, &mut out);
        // 1/4 and 3/4, and a floor of 0.1 each.
        assert!((out[0] - 0.3).abs() < 1e-12 && (out[1] - 0.7).abs() < 1e-12 && out[2] == 0.0, "{out:?}");
        softmax_weights(&[f64::NAN, f64::INFINITY, 1.0], &[true; 3], 1.0, 0.3, &mut out);
        assert!((out[2] - 0.8).abs() < 1e-12, "{out:?}");
    }

    proptest! {
        #[test]
        fn probabilities_sum_to_one_and_respect_the_floor(
            cells in prop::collection::vec((-2.0..2.0f64, 0.0..1.0f64, any::<bool>()), 1..10),
            floor in 0.0..=1.0f64, pick in any::<prop::sample::Index>(),
        ) {
            let means: Vec<f64> = cells.iter().map(|cell| cell.0).collect();
            let sds: Vec<f64> = cells.iter().map(|cell| cell.1).collect();
            let mut allowed: Vec<bool> = cells.iter().map(|cell| cell.2).collect();
            let always = pick.index(allowed.len());
            allowed[always] = true;
            let m = allowed.iter().filter(|flag| **flag).count() as f64;
            let mut soft = vec![0.0; means.len()];
            softmax_weights(&means, &allowed, 0.1, floor, &mut soft);
            for p in [best(&means, &sds, &allowed, floor), soft] {
                prop_assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{p:?}");
                for a in 0..p.len() {
                    let is_sound = if allowed[a] { p[a] >= floor / m - 1e-12 } else { p[a] == 0.0 };
                    prop_assert!(is_sound, "{p:?}");
                }
            }
        }

        /// Sampling is the other implementation.
        #[test]
        fn the_integral_is_what_sampling_finds(
            cells in prop::collection::vec((-1.0..1.0f64, -3.0..0.0f64), 2..6), seed in any::<u64>(),
        ) {
            // Well known beside hardly known: from a thousandth to one.
            let (means, sds): (Vec<f64>, Vec<f64>) = cells.into_iter().map(|(mean, ln)| (mean, 10f64.powf(ln))).unzip();
            // A generator of its own: this crate draws nothing.
            let mut state = seed | 1;
            let mut uniform = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1u64 << 53) as f64
            };
            let mut wins = vec![0.0; means.len()];
            const DRAWS: usize = 20_000;
            for _ in 0..DRAWS {
                let draw = |(mean, sd): (&f64, &f64)| {
                    let normal = (-2.0 * uniform().max(1e-300).ln()).sqrt() * (2.0 * std::f64::consts::PI * uniform()).cos();
                    mean + sd * normal
                };
                let sampled: Vec<f64> = means.iter().zip(&sds).map(draw).collect();
                let winner = (0..sampled.len()).max_by(|a, b| sampled[*a].total_cmp(&sampled[*b])).unwrap();
                wins[winner] += 1.0 / DRAWS as f64;
            }
            let found = best(&means, &sds, &vec![true; means.len()], 0.0);
            for (p, share) in found.iter().zip(&wins) {
                // Five standard errors of a share, and the cells' own error.
                prop_assert!((p - share).abs() < 5.0 * (0.25 / DRAWS as f64).sqrt() + 0.005, "{found:?} {wins:?}");
            }
        }
    }
}
