//! Learning a policy itself, not only what its actions are worth: a doubly robust policy gradient.
//!
//! The policy is `softmax(u / τ)` over the allowed actions with a uniform floor, where a normalised utility
//!
//! ```text
//! u(x, a; s) = (1 - s) q̂(x, a) - s ĉ(x, a) / usd_scale + g(x, a; s)
//! ```
//!
//! is the reward model's plus a correction `g`, one network for every trade-off: it is given `s`, cost's share of the utility, in \[0, 1).
//! Training maximises, over decisions and shares,
//!
//! ```text
//! mean Σ_a π(a) Γ(a)  -  κ sqrt(Var / n)  -  β KL(π ‖ logging policy)
//! ```
//!
//! with Γ from [`DrRewards`]. The variance penalty is that of counterfactual risk minimisation (Swaminathan and Joachims 2015, arXiv
//! 1502.02362): what is only good in a few heavily weighted decisions is not believed. The leash keeps the policy where the logs say
//! something. `g` starts at nothing, so a network that learns nothing is the reward model's policy, and it stays nothing unless what is
//! learned on one half of the logs is better on the other by 1.645 standard errors (the guesses under Γ come from folds of all of it, so the
//! halves are not wholly strangers; the policy's own exam is). A share that training drew for
//! itself makes the policy usable for any preference at decision time, as Wang et al. 2025 (BaRP, arXiv 2510.07429) do on-line.

mod judge;

use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use weir_policy_runtime::{FeatureSpec, Objective, Preference};

pub(crate) use self::judge::usd_weight_for_quality;
use self::judge::{Draws, Gains, Judge, Logging};
use crate::backend::{Device, Train};
use crate::checkpoint::{Slot, Training};
use crate::dr_rewards::DrRewards;
use crate::error::{LearnError, Result};
use crate::evaluate::dense_clusters;
use crate::learning::CorrectionsSummary;
use crate::network::{Fit, Inputs, Network, PlainLayer, runtime_network};
use crate::ope::fold_of;
use crate::reward_model::{Discount, RewardModelConfig, encode};
use crate::training_set::Sample;

/// How a policy is learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyGradientConfig {
    /// τ of the softmax, in units of normalised utility.
    pub temperature: f64,
    /// κ, standard errors that are taken off the value.
    pub variance_penalty: f64,
    /// β of the leash to the logging policy, normalised utility a nat.
    pub leash: f64,
    /// Trade-offs that each decision is seen under in a pass.
    pub trade_offs: usize,
    /// Most passes over the training decisions.
    pub epochs: usize,
    /// Rows of a gradient step.
    pub batch_rows: usize,
    /// Step size of AdamW.
    pub learning_rate: f64,
    /// Weight decay of AdamW.
    pub weight_decay: f32,
    /// Passes without a better validation value before training ends.
    pub patience: usize,
}

impl Default for PolicyGradientConfig {
    fn default() -> Self {
        Self {
            temperature: 0.05,
            variance_penalty: 1.0,
            leash: 0.002,
            trade_offs: 3,
            epochs: 30,
            batch_rows: 512,
            learning_rate: 5e-4,
            weight_decay: 0.3,
            patience: 4,
        }
    }
}

/// Corrections are kept if they are better than none by so many standard errors: by chance 1 in 20 that are not (one-sided, normal).
const STANDARD_ERRORS_MIN: f64 = 1.645;

/// What was learned: corrections, and what they are scaled by.
pub(crate) struct LearnedCorrections {
    /// From features and preference to a correction of each action.
    pub layers: Vec<PlainLayer>,
    pub preference: Preference,
    /// Zeros where they are not kept.
    pub summary: CorrectionsSummary,
    /// The decisions that it was learned from, for choosing a trade-off.
    judge: Judge,
}

/// Trains on the samples at `rows`. `share` is cost's share of the utility that the policy is for; it is always among the trade-offs.
///
/// # Errors
/// As [`DrRewards::cross_fitted`], and when a setting makes no sense.
pub(crate) fn train(
    samples: &[Sample],
    rows: &[usize],
    features: &FeatureSpec,
    actions: usize,
    (reward_model, config): (&RewardModelConfig, &PolicyGradientConfig),
    (objective, floor): (&Objective, f64),
    training: Training<'_>,
) -> Result<LearnedCorrections> {
    check(config)?;
    let rewards = DrRewards::cross_fitted(samples, rows, features, actions, reward_model, training)?;
    let preference = Preference { usd_scale: usd_scale(samples, rows) };
    let mut rng = ChaCha8Rng::seed_from_u64(training.seed.wrapping_add(17));
    let own = preference.input(objective) as f32;
    let inputs = with_trade_offs(encode(samples, rows, features), config.trade_offs.max(1), own, &mut rng);
    let logging = Logging::new(samples, rows, actions);
    let draws = Draws { temperature: config.temperature, floor, usd_scale: preference.usd_scale as f32 };
    let discount = Discount::new(samples, rows, reward_model.half_life_days)?;
    let weights: Vec<f32> = rows.iter().map(|&row| discount.weight(&samples[row]) as f32).collect();
    let inputs = Inputs { weights: weights.clone(), ..inputs };
    let lesson = Lesson {
        judge: Judge { rewards, logging, inputs, draws },
        weights,
        clusters: dense_clusters(samples, rows.iter().copied()),
        hidden: &reward_model.hidden,
        config,
    };
    // What is learned on one half is tried on the other, and the other way round; then everything is learned from.
    let mut gains = Gains::default();
    for half in 0..2 {
        let (other, own): (Vec<usize>, Vec<usize>) =
            (0..rows.len()).partition(|&decision| fold_of(lesson.clusters[decision], 2) != half);
        let network =
            runtime_network(&lesson.learn(&other, reward_model.validation_share, (&mut rng, &training.slot()))?)?;
        lesson.judge.add_gains(&network, &own, &lesson.clusters, &mut gains);
    }
    let everything: Vec<usize> = (0..rows.len()).collect();
    let mut layers = lesson.learn(&everything, reward_model.validation_share, (&mut rng, &training.slot()))?;
    let gain = gains.estimate();
    let is_kept = gain.is_some_and(|(gain, standard_error)| gain > STANDARD_ERRORS_MIN * standard_error);
    let summary = CorrectionsSummary {
        kept: is_kept,
        gain: gain.map(|(gain, _)| gain),
        standard_error: gain.map(|(_, standard_error)| standard_error),
    };
    tracing::info!(kept = is_kept, gain = summary.gain, standard_error = summary.standard_error, "corrections learned");
    if !is_kept {
        silence(&mut layers);
    }
    Ok(LearnedCorrections { layers, preference, summary, judge: lesson.judge })
}

fn silence(layers: &mut [PlainLayer]) {
    if let Some(last) = layers.last_mut() {
        last.weight.fill(0.0);
        last.bias.fill(0.0);
    }
}

/// Everything that corrections are learned from.
struct Lesson<'a> {
    judge: Judge,
    /// How much each decision counts.
    weights: Vec<f32>,
    clusters: Vec<usize>,
    hidden: &'a [usize],
    config: &'a PolicyGradientConfig,
}

impl Lesson<'_> {
    /// Learns on `decisions`, some of which only say when to stop.
    fn learn(
        &self,
        decisions: &[usize],
        validation_share: f64,
        (rng, slot): (&mut ChaCha8Rng, &Slot<'_>),
    ) -> Result<Vec<PlainLayer>> {
        let Judge { rewards, logging, inputs, draws } = &self.judge;
        let actions = rewards.actions;
        // Folds of 100: whole clusters, and the same whatever else there is.
        let kept_back =
            |decision: &&usize| (fold_of(self.clusters[**decision] + 1, 100) as f64) < 100.0 * validation_share;
        let (validation, fitted): (Vec<usize>, Vec<usize>) = decisions.iter().partition(kept_back);
        let repeats = inputs.repeats;
        let repeated = |places: &[usize]| -> Vec<usize> {
            places.iter().flat_map(|place| (0..repeats).map(move |k| place * repeats + k)).collect()
        };
        let network = Network::init(inputs.width + 1, self.hidden, &vec![0.0; actions], None, rng).silenced();
        let fit = Fit {
            epochs: self.config.epochs,
            batch_rows: self.config.batch_rows.max(1),
            learning_rate: self.config.learning_rate,
            weight_decay: self.config.weight_decay,
            patience: self.config.patience.max(1),
        };
        let terms = Terms { rows: decisions.len(), floor: draws.floor as f32, config: self.config };
        let parts = (repeated(&fitted), repeated(&validation));
        let network =
            network.fit(inputs, (&parts.0, &parts.1), fit, (&mut *rng, slot), |corrections, batch, device| {
                let mut planes = Planes::new(batch.len(), actions);
                for (place, &row) in batch.iter().enumerate() {
                    let (decision, share) = (row / repeats, inputs.extra[row]);
                    planes.weight[place] = self.weights[decision];
                    planes.fill(place, |guess, gamma, allowed, log_logging| {
                        rewards.guess(decision, share, draws.usd_scale, guess);
                        rewards.gamma(decision, share, draws.usd_scale, gamma);
                        logging.write(decision, allowed, log_logging);
                    });
                }
                terms.loss(corrections, planes, device)
            })?;
        network.to_layers()
    }
}

fn check(config: &PolicyGradientConfig) -> Result<()> {
    let sound = |x: f64| x.is_finite() && x >= 0.0;
    if !(config.temperature.is_finite() && config.temperature > 0.0) {
        return Err(LearnError::Config("the temperature of policy learning must lie above 0".to_owned()));
    }
    if !sound(config.variance_penalty) || !sound(config.leash) {
        return Err(LearnError::Config("variance_penalty and leash must be numbers from 0".to_owned()));
    }
    Ok(())
}

/// The mean observed cost; a dollar where none was.
fn usd_scale(samples: &[Sample], rows: &[usize]) -> f64 {
    let costs: Vec<f64> = rows.iter().filter_map(|&row| samples[row].cost_usd).collect();
    let mean = costs.iter().sum::<f64>() / costs.len().max(1) as f64;
    if mean > 0.0 { mean } else { 1.0 }
}

/// Each row under several trade-offs: its own objective's, and others evenly over the range, shifted at random.
fn with_trade_offs(inputs: Inputs, trade_offs: usize, own: f32, rng: &mut ChaCha8Rng) -> Inputs {
    let rows = inputs.values.len() / inputs.width.max(1);
    let others = trade_offs - 1;
    let mut extra = Vec::with_capacity(rows * trade_offs);
    for _ in 0..rows {
        extra.push(own);
        let shift: f32 = rng.random();
        extra.extend((0..others).map(|k| (k as f32 + shift) / others as f32));
    }
    Inputs { repeats: trade_offs, extra, ..inputs }
}

/// A batch's numbers by action, shape `[rows, actions]` each.
struct Planes {
    actions: usize,
    guess: Vec<f32>,
    gamma: Vec<f32>,
    allowed: Vec<f32>,
    log_logging: Vec<f32>,
    /// How much each row counts, shape `[rows]`.
    weight: Vec<f32>,
}

impl Planes {
    fn new(rows: usize, actions: usize) -> Self {
        let plane = || vec![0.0; rows * actions];
        Self {
            actions,
            guess: plane(),
            gamma: plane(),
            allowed: plane(),
            log_logging: plane(),
            weight: vec![1.0; rows],
        }
    }

    fn fill(&mut self, place: usize, write: impl FnOnce(&mut [f32], &mut [f32], &mut [f32], &mut [f32])) {
        let cells = place * self.actions..(place + 1) * self.actions;
        write(
            &mut self.guess[cells.clone()],
            &mut self.gamma[cells.clone()],
            &mut self.allowed[cells.clone()],
            &mut self.log_logging[cells],
        );
    }
}

/// What the loss is made of.
struct Terms<'a> {
    rows: usize,
    floor: f32,
    config: &'a PolicyGradientConfig,
}

impl Terms<'_> {
    fn loss(&self, corrections: Tensor<Train, 2>, planes: Planes, device: &Device) -> Tensor<Train, 1> {
        let [batch, actions] = corrections.dims();
        let tensor = |plane: Vec<f32>| Tensor::<Train, 2>::from_data(TensorData::new(plane, [batch, actions]), device);
        let (guess, gamma) = (tensor(planes.guess), tensor(planes.gamma));
        let (allowed, log_logging) = (tensor(planes.allowed), tensor(planes.log_logging));
        let forbidden = (allowed.clone() - 1.0) * 1e9;
        let logits = (guess + corrections).div_scalar(self.config.temperature as f32) + forbidden;
        let uniform = allowed.clone() / allowed.clone().sum_dim(1);
        let policy = softmax(logits, 1) * (1.0 - self.floor) + uniform * self.floor;
        let weights = Tensor::<Train, 2>::from_data(TensorData::new(planes.weight, [batch, 1]), device);
        let weights = weights.clone() / weights.sum().clamp_min(1e-9).reshape([1, 1]);
        let weighted = |values: Tensor<Train, 2>| (values * weights.clone()).sum();
        let values = (policy.clone() * gamma).sum_dim(1);
        let mean = weighted(values.clone());
        let gaps = values - mean.clone().reshape([1, 1]);
        let spread = weighted(gaps.clone() * gaps);
        let standard_error = (spread + 1e-12).sqrt().div_scalar((self.rows as f32).sqrt());
        let leash = weighted((policy.clone() * ((policy + 1e-6).log() - log_logging) * allowed).sum_dim(1));
        mean.neg()
            + standard_error.mul_scalar(self.config.variance_penalty as f32)
            + leash.mul_scalar(self.config.leash as f32)
    }
}
