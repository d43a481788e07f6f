//! Inverse-gap weighting with a uniform floor: from scores to exact propensities.

use serde::{Deserialize, Serialize};

/// How far the policy strays from its best guess.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exploration {
    /// γ ≥ 0, per unit of utility: 0 explores uniformly, large is greedy.
    pub gamma: f64,
    /// Share of decisions in \[0, 1\] spread uniformly over the allowed actions whatever the scores.
    pub floor: f64,
}

impl Exploration {
    /// None at all: what looks best is taken, and what ties for best is drawn among itself.
    pub const NONE: Self = Self { gamma: f64::INFINITY, floor: 0.0 };

    pub(crate) fn problem(&self) -> Option<&'static str> {
        if !self.gamma.is_finite() || self.gamma < 0.0 {
            return Some("exploration.gamma must be a finite number, zero or above");
        }
        if !(0.0..=1.0).contains(&self.floor) {
            return Some("exploration.floor must lie in [0, 1]");
        }
        None
    }
}

/// The smallest propensity that an allowed action can get when `allowed_actions` are allowed: floor / m.
#[must_use]
pub fn floor_share(floor: f64, allowed_actions: usize) -> f64 {
    if allowed_actions == 0 { 0.0 } else { floor / allowed_actions as f64 }
}

/// Writes the propensity of every action. Disallowed actions get exactly 0, the rest sum to 1. If nothing is allowed all
/// are 0.
///
/// SquareCB (Foster & Rakhlin, "Beyond UCB: Optimal and Efficient Contextual Bandits with Regression Oracles", ICML
/// 2020, algorithm 1; the form for rewards, with μ set to the number of actions m): with best score s*,
///
/// ```text
/// q(a) = 1 / (m + γ (s* - s(a)))    for every a that is not best
/// q(best) = 1 - Σ q(a)
/// p(a) = (1 - floor) q(a) + floor / m
/// ```
///
/// When several actions tie for best they share their mass evenly, which is the average of the algorithm's outcomes
/// over which one it happens to call best; so the result does not depend on the order of the actions.
///
/// A score that is not finite cannot be compared: with γ > 0 its action gets its floor share only, and if no allowed
/// score is finite all allowed actions are equally likely. A γ or floor outside its range is moved to the nearest
/// legal value (a NaN γ to 0, a NaN floor to 1: both explore). An infinite γ is greedy.
///
/// # Panics
/// When the three slices differ in length.
pub fn inverse_gap_weights(scores: &[f64], allowed: &[bool], gamma: f64, floor: f64, out: &mut [f64]) {
    assert!(scores.len() == allowed.len() && scores.len() == out.len(), "one score, one flag, one output per action");
    // An endless γ leaves nothing to what is not best: gaps are above 0 where it meets them.
    let gamma = if gamma.is_nan() { 0.0 } else { gamma.max(0.0) };
    let floor = if floor.is_nan() { 1.0 } else { floor.clamp(0.0, 1.0) };
    out.fill(0.0);
    let allowed_actions = allowed.iter().filter(|flag| **flag).count();
    if allowed_actions == 0 {
        return;
    }
    let m = allowed_actions as f64;
    let usable = |a: usize| allowed[a] && scores[a].is_finite();
    let best = (0..scores.len()).filter(|&a| usable(a)).map(|a| scores[a]).fold(f64::NEG_INFINITY, f64::max);
    if gamma == 0.0 || best == f64::NEG_INFINITY {
        for (p, flag) in out.iter_mut().zip(allowed) {
            *p = if *flag { 1.0 / m } else { 0.0 };
        }
        return;
    }

    let mut mass_below = 0.0;
    let mut tied = 0usize;
    for a in 0..scores.len() {
        if !usable(a) {
            continue;
        }
        if scores[a] == best {
            tied += 1;
        } else {
            out[a] = 1.0 / (m + gamma * (best - scores[a])); // an overflowing gap is infinite: 1/inf = 0, as it should
            mass_below += out[a];
        }
    }
    let best_share = (1.0 - mass_below) / tied as f64;
    for a in 0..scores.len() {
        if usable(a) && scores[a] == best {
            out[a] = best_share;
        }
        if allowed[a] {
            out[a] = (1.0 - floor) * out[a] + floor / m;
        }
    }
}

/// Inverse CDF over `propensities` (they sum to 1, in index order) at `u` in \[0, 1): the action whose interval holds
/// `u`. Never returns an action of propensity 0 if there is one above 0.
pub(crate) fn inverse_cdf(propensities: &[f64], u: f64) -> Option<usize> {
    let mut cumulative = 0.0;
    let mut last_possible = None;
    for (action, &p) in propensities.iter().enumerate() {
        if p <= 0.0 {
            continue;
        }
        cumulative += p;
        last_possible = Some(action);
        if u < cumulative {
            break;
        }
    }
    last_possible // rounding may leave the sum a hair below u: then the last possible action holds it
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weights(scores: &[f64], allowed: &[bool], gamma: f64, floor: f64) -> Vec<f64> {
        let mut out = vec![f64::NAN; scores.len()];
        inverse_gap_weights(scores, allowed, gamma, floor, &mut out);
        out
    }

    fn close(left: &[f64], right: &[f64]) -> bool {
        left.iter().zip(right).all(|(a, b)| (a - b).abs() < 1e-12)
    }

    /// Scores from a coarse grid, so that ties happen, or from the line.
    fn score() -> impl Strategy<Value = f64> {
        prop_oneof![(-4i8..4).prop_map(|x| f64::from(x) / 4.0), -1e6..1e6f64]
    }

    prop_compose! {
        fn problem()(cells in prop::collection::vec((score(), any::<bool>()), 1..12), pick in any::<prop::sample::Index>())
            -> (Vec<f64>, Vec<bool>) {
            let (scores, mut allowed): (Vec<f64>, Vec<bool>) = cells.into_iter().unzip();
            let always = pick.index(allowed.len());
            allowed[always] = true;
            (scores, allowed)
        }
    }

    proptest! {
        #[test]
        fn propensities_sum_to_one_and_respect_the_floor(
            (scores, allowed) in problem(), gamma in 0.0..1e6f64, floor in 0.0..=1.0f64,
        ) {
            let p = weights(&scores, &allowed, gamma, floor);
            let m = allowed.iter().filter(|a| **a).count();
            prop_assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            for a in 0..p.len() {
                if allowed[a] {
                    prop_assert!(p[a] >= floor_share(floor, m) - 1e-15 && p[a] <= 1.0 + 1e-12);
                } else {
                    prop_assert!(p[a] == 0.0);
                }
            }
        }

        #[test]
        fn a_better_score_never_gets_less_mass(
            (scores, allowed) in problem(), gamma in 0.0..1e6f64, floor in 0.0..=1.0f64,
        ) {
            let p = weights(&scores, &allowed, gamma, floor);
            for a in 0..p.len() {
                for b in 0..p.len() {
                    if allowed[a] && allowed[b] && scores[a] >= scores[b] {
                        prop_assert!(p[a] >= p[b] - 1e-12, "{p:?}");
                    }
                }
            }
        }

        #[test]
        fn reordering_the_actions_reorders_the_propensities(
            (scores, allowed) in problem(), gamma in 0.0..1e6f64, floor in 0.0..=1.0f64, shift in any::<prop::sample::Index>(),
        ) {
            let n = scores.len();
            let order: Vec<usize> = (0..n).map(|i| (n - 1 - i + shift.index(n)) % n).collect();
            let permuted_scores: Vec<f64> = order.iter().map(|&i| scores[i]).collect();
            let permuted_allowed: Vec<bool> = order.iter().map(|&i| allowed[i]).collect();
            let p = weights(&scores, &allowed, gamma, floor);
            let expected: Vec<f64> = order.iter().map(|&i| p[i]).collect();
            prop_assert!(close(&weights(&permuted_scores, &permuted_allowed, gamma, floor), &expected));
        }

        #[test]
        fn no_gamma_is_uniform((scores, allowed) in problem(), floor in 0.0..=1.0f64) {
            let m = allowed.iter().filter(|a| **a).count() as f64;
            let uniform: Vec<f64> = allowed.iter().map(|a| if *a { 1.0 / m } else { 0.0 }).collect();
            prop_assert!(close(&weights(&scores, &allowed, 0.0, floor), &uniform));
        }

        #[test]
        fn endless_gamma_is_greedy_above_the_floor((scores, allowed) in problem(), floor in 0.0..=1.0f64) {
            let m = allowed.iter().filter(|a| **a).count();
            let best = (0..scores.len()).filter(|&a| allowed[a]).map(|a| scores[a]).fold(f64::NEG_INFINITY, f64::max);
            let tied = (0..scores.len()).filter(|&a| allowed[a] && scores[a] == best).count() as f64;
            let greedy: Vec<f64> = (0..scores.len()).map(|a| match (allowed[a], scores[a] == best) {
                (false, _) => 0.0,
                (true, true) => (1.0 - floor) / tied + floor_share(floor, m),
                (true, false) => floor_share(floor, m),
            }).collect();
            prop_assert!(close(&weights(&scores, &allowed, f64::INFINITY, floor), &greedy));
        }

        #[test]
        fn the_interval_of_each_action_is_as_long_as_its_propensity(
            (scores, allowed) in problem(), gamma in 0.0..1e3f64, floor in 0.0..=1.0f64,
        ) {
            let p = weights(&scores, &allowed, gamma, floor);
            let mut start = 0.0;
            for a in (0..p.len()).filter(|&a| p[a] > 1e-9) {
                prop_assert_eq!(inverse_cdf(&p, start + 0.5 * p[a]), Some(a));
                start += p[a];
            }
            let last = inverse_cdf(&p, 1.0 - f64::EPSILON / 2.0).expect("something is allowed");
            prop_assert!(allowed[last] && p[last] > 0.0);
        }
    }

    #[test]
    fn the_papers_formula_by_hand() {
        // m = 3, γ = 10: 1/(3 + 10·0.2) = 0.2, 1/(3 + 10·0.7) = 0.1, the best takes 0.7; floor 0.3 adds 0.1 each
        assert!(close(&weights(&[0.9, 0.7, 0.2], &[true; 3], 10.0, 0.0), &[0.7, 0.2, 0.1]));
        assert!(close(&weights(&[0.9, 0.7, 0.2], &[true; 3], 10.0, 0.3), &[0.59, 0.24, 0.17]));
    }

    #[test]
    fn a_score_that_is_no_number_gets_the_floor_only() {
        let p = weights(&[f64::NAN, 1.0, f64::INFINITY, f64::NEG_INFINITY], &[true; 4], 5.0, 0.2);
        assert!(close(&p, &[0.05, 0.85, 0.05, 0.05]), "{p:?}");
        assert!(close(&weights(&[f64::NAN; 2], &[true; 2], 5.0, 0.2), &[0.5, 0.5]));
    }

    #[test]
    fn nothing_allowed_has_no_mass() {
        assert_eq!(weights(&[1.0, 2.0], &[false, false], 1.0, 0.1), [0.0, 0.0]);
        assert_eq!(inverse_cdf(&[0.0, 0.0], 0.5), None);
    }
}
