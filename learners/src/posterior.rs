//! How sure the reward model is of each action's quality: the last-layer Laplace approximation.
//!
//! With last-layer inputs `h` (and a 1 for the bias) and the cross entropy of a logit, the posterior of action `a`'s last-layer weights is
//! about `N(w_a, Σ_a)` where
//!
//! ```text
//! Σ_a⁻¹ = prior · I + Σ_i weight_i q̂_i (1 - q̂_i) h_i h_iᵀ     over the decisions that took a and were judged
//! ```
//!
//! (Daxberger et al. 2021, arXiv 2106.14806; MacKay 1992, Neural Computation 4:448). A model without hidden layers gives Bayesian logistic
//! regression. The precisions are sums over decisions: what came later is added, in any order, and a table can be forgotten by a factor.

use weir_policy_runtime::{Layer, Mlp, MlpScratch, Posterior};

use crate::error::{LearnError, Result};
use crate::linear::{cholesky, inverse_of_lower, solve};
use crate::network::Inputs;
use crate::training_set::Sample;

/// Precision of a weight before anything was seen: a logit is within about ±2 of its guess.
const PRIOR_PRECISION: f64 = 1.0;

/// Precisions of every action's last-layer weights, shape `[actions, m, m]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Precisions {
    width: usize,
    sums: Vec<Vec<f64>>,
}

impl Precisions {
    /// What the prior knows of `actions` over `inputs` last-layer inputs.
    pub(crate) fn prior(actions: usize, inputs: usize) -> Self {
        let width = inputs + 1;
        let mut identity = vec![0.0; width * width];
        (0..width).for_each(|i| identity[i * width + i] = PRIOR_PRECISION);
        Self { width, sums: vec![identity; actions] }
    }

    /// What a policy's posterior knew: the inverse of each covariance.
    pub(crate) fn of(posterior: &Posterior) -> Option<Self> {
        let width = posterior.inputs() + 1;
        let of_action = |factor: &[f32]| {
            // Σ⁻¹ = F⁻¹ F⁻ᵀ = L Lᵀ, where F is lower triangular.
            let factor: Vec<f64> = factor.iter().map(|x| f64::from(*x)).collect();
            let lower = inverse_of_lower(&factor, width)?;
            let mut precision = vec![0.0; width * width];
            for i in 0..width {
                for j in 0..=i {
                    precision[i * width + j] = (0..=j).map(|k| lower[i * width + k] * lower[j * width + k]).sum();
                }
            }
            Some(precision)
        };
        let sums = posterior.factors().chunks_exact(width * width).map(of_action).collect::<Option<_>>()?;
        Some(Self { width, sums })
    }

    /// Forgets: evidence counts for `factor` of what it counted for, the prior for what it does.
    pub(crate) fn forget(&mut self, factor: f64) {
        for sum in &mut self.sums {
            for (place, x) in sum.iter_mut().enumerate() {
                let prior = if place % (self.width + 1) == 0 { PRIOR_PRECISION } else { 0.0 };
                *x = prior + factor * (*x - prior);
            }
        }
    }

    /// Solves `Σ_a⁻¹ x = gradient`, a Newton step of one action's weights.
    pub(crate) fn step(&self, action: usize, gradient: &[f64]) -> Vec<f64> {
        solve(&mut self.sums[action].clone(), gradient, self.width, 1)
    }

    /// The gradient with which what was known pulls back: `P (start - now)`.
    pub(crate) fn pull(&self, action: usize, start: &[f64], now: &[f64]) -> Vec<f64> {
        let (width, sum) = (self.width, &self.sums[action]);
        let at = |i: usize, j: usize| sum[i.max(j) * width + i.min(j)];
        (0..width).map(|i| (0..width).map(|j| at(i, j) * (start[j] - now[j])).sum()).collect()
    }

    /// Takes one action's precision over from another's.
    pub(crate) fn take(&mut self, action: usize, other: &Self) {
        self.sums[action].copy_from_slice(&other.sums[action]);
    }

    /// Adds a judged decision: `hidden` are the last layer's inputs, `quality` the guess for the action taken.
    pub(crate) fn add(&mut self, action: usize, hidden: &[f32], quality: f64, weight: f64) {
        let slope = weight * quality * (1.0 - quality);
        let at = |i: usize| hidden.get(i).map_or(1.0, |h| f64::from(*h));
        let sum = &mut self.sums[action];
        for i in 0..self.width {
            let scaled = slope * at(i);
            if scaled != 0.0 {
                // Symmetric: the lower triangle is enough.
                (0..=i).for_each(|j| sum[i * self.width + j] += scaled * at(j));
            }
        }
    }

    /// The runtime's factors: `L⁻¹` of each precision `L Lᵀ`, since `Σ = L⁻ᵀ L⁻¹`.
    pub(crate) fn posterior(&self) -> Result<Posterior> {
        let mut factors = Vec::with_capacity(self.sums.len() * self.width * self.width);
        for sum in &self.sums {
            let mut factor = sum.clone();
            cholesky(&mut factor, self.width);
            let inverse = inverse_of_lower(&factor, self.width)
                .ok_or_else(|| LearnError::Artefact("the posterior's precision is not positive".to_owned()))?;
            factors.extend(inverse.iter().map(|x| *x as f32));
        }
        Posterior::new(self.sums.len(), self.width, factors).map_err(|error| LearnError::Config(error.to_string()))
    }
}

/// What the decisions at `rows` say of a network whose first outputs are the quality logits; `inputs` holds their features. Each counts
/// by its `weights`.
pub(crate) fn precisions(
    network: &Mlp,
    inputs: &Inputs,
    samples: &[Sample],
    rows: &[usize],
    actions: usize,
    weight_of: impl Fn(&Sample) -> f64,
) -> Precisions {
    let last = network.layers().last().map_or(0, Layer::inputs);
    let mut found = Precisions::prior(actions, last);
    let mut scratch = MlpScratch::default();
    for (&row, input) in rows.iter().zip(inputs.values.chunks_exact(inputs.width)) {
        let sample = &samples[row];
        if sample.quality.is_none() {
            continue;
        }
        let logit = f64::from(network.forward(input, &mut scratch)[sample.action]);
        let hidden = network.last_inputs(input, &scratch);
        found.add(sample.action, hidden, 1.0 / (1.0 + (-logit).exp()), weight_of(sample));
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_single_input_is_its_closed_form() {
        // Ten decisions with h = 2 and q̂ = 1/2: precision of weight and bias [[1 + 10, 5], [5, 1 + 2.5]].
        let mut precisions = Precisions::prior(2, 1);
        (0..10).for_each(|_| precisions.add(0, &[2.0], 0.5, 1.0));
        let policy = precisions.posterior().unwrap();
        // Σ = 1/13.5 [[3.5, -5], [-5, 11]]; h = (2, 1) gives (14 - 20 + 11) / 13.5.
        let variance = variance(&policy, 0, &[2.0]);
        assert!((variance - 5.0 / 13.5).abs() < 1e-5, "{variance}");
        // An action that nobody took is as uncertain as the prior: 2² + 1.
        assert!((self::variance(&policy, 1, &[2.0]) - 5.0).abs() < 1e-5);
    }

    fn variance(posterior: &Posterior, action: usize, hidden: &[f32]) -> f64 {
        let mut sds = vec![0.0; posterior.actions()];
        posterior.logit_sds(hidden, &mut sds);
        sds[action] * sds[action]
    }

    #[test]
    fn what_was_published_is_known_again_and_forgotten_down_to_the_prior() {
        let mut precisions = Precisions::prior(1, 2);
        for row in 0..30_u8 {
            precisions.add(0, &[f32::from(row) / 10.0, 1.0], 0.4, 1.0);
        }
        let again = Precisions::of(&precisions.posterior().unwrap()).unwrap();
        for (found, known) in again.sums[0].iter().zip(&precisions.sums[0]) {
            // Factors are f32.
            assert!((found - known).abs() < 1e-3 * known.abs().max(1.0), "{again:?} {precisions:?}");
        }
        precisions.forget(0.0);
        assert_eq!(precisions, Precisions::prior(1, 2));
    }

    proptest! {
        /// What is known later is known better, and the order of what is seen does not matter.
        #[test]
        fn evidence_adds_up_in_any_order(
            rows in prop::collection::vec((prop::collection::vec(-2.0..2.0f32, 3), 0.05..0.95f64), 1..20),
            asked in prop::collection::vec(-2.0..2.0f32, 3),
        ) {
            let mut forward = Precisions::prior(1, 3);
            let mut backward = forward.clone();
            let mut before = variance(&forward.posterior().unwrap(), 0, &asked);
            for (hidden, quality) in &rows {
                forward.add(0, hidden, *quality, 1.0);
                let after = variance(&forward.posterior().unwrap(), 0, &asked);
                prop_assert!(after <= before * (1.0 + 1e-4) + 1e-6, "{after} after {before}");
                before = after;
            }
            rows.iter().rev().for_each(|(hidden, quality)| backward.add(0, hidden, *quality, 1.0));
            let other = variance(&backward.posterior().unwrap(), 0, &asked);
            prop_assert!((other - before).abs() < 1e-4 * before.max(1.0));
        }
    }
}
