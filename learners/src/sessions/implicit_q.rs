//! Implicit Q-learning: dynamic programming that never asks what an untried choice is worth.
//!
//! Kostrikov, Nair and Levine 2021, arXiv 2110.06169. With `L_τ(u) = |τ - 1(u < 0)| u²`:
//!
//! ```text
//! V(s)   minimises  E L_τ(Q̂(s, a) - V(s))          over logged (s, a)            equation 5
//! Q(s,a) minimises  E (r + γ V(s') - Q(s, a))²       over logged (s, a, r, s')     equation 6
//! π(a|s) maximises  E exp(β (Q̂(s, a) - V(s))) ln π(a|s)                           equation 7
//! ```
//!
//! `Q̂` is an earlier `Q`. The nearer τ comes to 1, the nearer `V` comes to the best choice that the log holds.

use burn::tensor::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use weir_policy_runtime::Mlp;

use super::config::{Algorithm, SessionLearnerConfig};
use super::policy::SessionPolicy;
use super::replay::{Learner, Replay, column, mean_square, step_size};
use super::trajectory::SessionLog;
use crate::backend::{Device, Train};
use crate::error::Result;
use crate::network::runtime_network;

pub(super) fn learn(log: &SessionLog, config: &SessionLearnerConfig) -> Result<SessionPolicy> {
    let device = Device::default();
    let replay = Replay::new(log, config);
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let (width, actions) = (log.width(), replay.actions);
    let mut value = Learner::new(width, &[replay.mean_return], config, &mut rng);
    let mut quality = Learner::new(width, &vec![replay.mean_return; actions], config, &mut rng);
    let mut target = quality.network.frozen();
    for step in 0..config.steps {
        let rate = step_size(step, config.steps, config);
        let batch = replay.batch(config.batch_rows, &mut rng);
        let guesses = taken(&replay, &batch, &target.predict(&replay.inputs, &batch)?);
        value.step(rate, |network| {
            let gap = column(guesses, &device) - network.forward(replay.inputs.tensor(&batch, &device));
            expectile_loss(gap, config.expectile)
        });
        let later = value.network.frozen().predict(&replay.inputs, &replay.next(&batch))?;
        let targets = replay.backed_up(&batch, config.discount, &later);
        quality.step(rate, |network| {
            let all = network.forward(replay.inputs.tensor(&batch, &device));
            mean_square((all * replay.taken(&batch, &device)).sum_dim(1) - column(targets, &device))
        });
        if (step + 1) % config.target_every == 0 {
            target = quality.network.frozen();
        }
    }
    // The weights of the policy's loss do not depend on the policy, so it is fitted once both are done.
    let rows: Vec<usize> = (0..replay.rows()).collect();
    let guesses = taken(&replay, &rows, &quality.network.frozen().predict(&replay.inputs, &rows)?);
    let values = value.network.frozen().predict(&replay.inputs, &rows)?;
    let weight = |(guess, value): (&f32, &f32)| {
        (config.inverse_temperature * f64::from(guess - value)).exp().min(config.weight_max) as f32
    };
    let weights: Vec<f32> = guesses.iter().zip(&values).map(weight).collect();
    let mut policy = Learner::new(width, &vec![0.0; actions], config, &mut rng);
    for step in 0..config.steps {
        let batch = replay.batch(config.batch_rows, &mut rng);
        let weights = batch.iter().map(|&row| weights[row]).collect();
        policy.step(step_size(step, config.steps, config), |network| {
            let logits = network.forward(replay.inputs.tensor(&batch, &device));
            replay.weighted_log_loss(logits, &batch, Some(weights), &device)
        });
    }
    Ok(SessionPolicy::new(log, Algorithm::ImplicitQ, in_utility(&policy, config)?, None))
}

/// Logits over β: `ln π(a|s) / β`, up to a number that is the same for all choices, is the advantage of a choice and a little of how
/// often it was logged, in units of utility. Weights are cut at `weight_max`, and so advantages at `ln(weight_max) / β`: choices that
/// are better than that are not told apart.
fn in_utility(policy: &Learner, config: &SessionLearnerConfig) -> Result<Mlp> {
    let mut layers = policy.network.to_layers()?;
    let by = (1.0 / config.inverse_temperature) as f32;
    if let Some(last) = layers.last_mut() {
        last.weight.iter_mut().chain(&mut last.bias).for_each(|number| *number *= by);
    }
    runtime_network(&layers)
}

/// What was guessed of the choice that was taken.
fn taken(replay: &Replay, rows: &[usize], guesses: &[f32]) -> Vec<f32> {
    let of = |(row, guesses): (&usize, &[f32])| guesses[replay.action[*row]];
    rows.iter().zip(guesses.chunks_exact(replay.actions)).map(of).collect()
}

/// `mean(|τ - 1(u < 0)| u²)` of gaps `[rows, 1]`.
fn expectile_loss(gap: Tensor<Train, 2>, expectile: f64) -> Tensor<Train, 1> {
    let is_below = gap.clone().detach().lower_elem(0.0).float();
    // τ where the gap is not below 0, 1 - τ where it is.
    let weight = is_below * (1.0 - 2.0 * expectile) + expectile;
    (weight * gap.clone() * gap).mean()
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    /// Slope of the loss at a constant guess of `values`.
    fn slope(values: &[f32], guess: f32, expectile: f64) -> f32 {
        let device = Device::default();
        let guess = Tensor::<Train, 2>::from_data([[guess]], &device).require_grad();
        let values = Tensor::<Train, 2>::from_data(TensorData::new(values.to_vec(), [values.len(), 1]), &device);
        let gradients = expectile_loss(values - guess.clone(), expectile).backward();
        guess.grad(&gradients).expect("the guess has one").into_scalar()
    }

    /// The expectile of 0.5 is the mean. That of τ for a coin which shows 1 in a share p is `τ p / (τ p + (1 - τ)(1 - p))`, where the
    /// weighted gaps on both sides cancel.
    #[test]
    fn the_loss_is_flat_at_the_expectile() {
        let values = [0.3_f32, -1.2, 2.5, 0.1];
        assert!(slope(&values, 0.425, 0.5).abs() < 1e-6, "the mean of the four is 0.425");
        let coin = [1.0_f32, 0.0, 0.0, 0.0];
        let at = 0.9 * 0.25 / (0.9 * 0.25 + 0.1 * 0.75);
        assert!(slope(&coin, at as f32, 0.9).abs() < 1e-6);
        assert!(slope(&coin, at as f32 - 0.05, 0.9) < -1e-3 && slope(&coin, at as f32 + 0.05, 0.9) > 1e-3);
    }
}
