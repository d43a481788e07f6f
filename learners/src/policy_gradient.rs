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
//! something. `g` starts at nothing, so a network that learns nothing is the reward model's policy. A share that training drew for
//! itself makes the policy usable for any preference at decision time, as Wang et al. 2025 (BaRP, arXiv 2510.07429) do on-line.

use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use weir_policy_runtime::{FeatureSpec, Preference};

use crate::backend::{Device, Train};
use crate::dr_rewards::DrRewards;
use crate::error::{LearnError, Result};
use crate::network::{Fit, Inputs, Network, PlainLayer, runtime_network};
use crate::reward_model::{Discount, RewardModelConfig, encode, split_by_cluster};
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

/// What was learned: corrections, and what they are scaled by.
pub(crate) struct LearnedCorrections {
    /// From features and preference to a correction of each action.
    pub layers: Vec<PlainLayer>,
    pub preference: Preference,
    /// Cross-fitted rewards of the training rows, for choosing a trade-off.
    pub rewards: DrRewards,
    logging: Logging,
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
    (objective, floor): (&weir_policy_runtime::Objective, f64),
    seed: u64,
) -> Result<LearnedCorrections> {
    check(config)?;
    let rewards = DrRewards::cross_fitted(samples, rows, features, actions, reward_model, seed)?;
    let preference = Preference { usd_scale: usd_scale(samples, rows) };
    let usd_scale = preference.usd_scale as f32;
    let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_add(17));
    let own = preference.input(objective) as f32;
    let inputs = with_trade_offs(encode(samples, rows, features), config.trade_offs.max(1), own, &mut rng);
    let (fitted, validation) = split_by_cluster(samples, rows, reward_model.validation_share, &mut rng);
    let repeated = |places: &[usize]| -> Vec<usize> {
        places.iter().flat_map(|place| (0..inputs.repeats).map(move |k| place * inputs.repeats + k)).collect()
    };
    let (fitted, validation) = (repeated(&fitted), repeated(&validation));
    let logging = Logging::new(samples, rows, actions);
    let discount = Discount::new(samples, rows, reward_model.half_life_days)?;
    let weights: Vec<f32> = rows.iter().map(|&row| discount.weight(&samples[row]) as f32).collect();
    let network = Network::init(inputs.width + 1, &reward_model.hidden, &vec![0.0; actions], None, &mut rng).silenced();
    let fit = Fit {
        epochs: config.epochs,
        batch_rows: config.batch_rows.max(1),
        learning_rate: config.learning_rate,
        weight_decay: config.weight_decay,
        patience: config.patience.max(1),
    };
    let (repeats, shares) = (inputs.repeats, inputs.extra.clone());
    let terms = Terms { rows: rows.len(), floor: floor as f32, config };
    let network = network.fit(&inputs, (&fitted, &validation), fit, &mut rng, |corrections, batch, device| {
        let mut planes = Planes::new(batch.len(), actions);
        for (place, &row) in batch.iter().enumerate() {
            let (sample, share) = (row / repeats, shares[row]);
            planes.weight[place] = weights[sample];
            planes.fill(place, |guess, gamma, allowed, log_logging| {
                rewards.guess(sample, share, usd_scale, guess);
                rewards.gamma(sample, share, usd_scale, gamma);
                logging.write(sample, allowed, log_logging);
            });
        }
        terms.loss(corrections, planes, device)
    });
    Ok(LearnedCorrections { layers: network.to_layers()?, preference, rewards, logging })
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

/// What the logging policy could do, and how likely it was.
struct Logging {
    actions: usize,
    allowed: Vec<bool>,
    log_probability: Vec<f32>,
}

impl Logging {
    fn new(samples: &[Sample], rows: &[usize], actions: usize) -> Self {
        let cells = rows.len() * actions;
        let mut logging = Self { actions, allowed: vec![true; cells], log_probability: vec![0.0; cells] };
        for (place, &row) in rows.iter().enumerate() {
            let sample = &samples[row];
            let cells = place * actions..(place + 1) * actions;
            if let Some(allowed) = &sample.allowed {
                logging.allowed[cells.clone()].copy_from_slice(allowed);
            }
            // What ran was possible, whatever the log of candidates says.
            logging.allowed[cells.start + sample.action] = true;
            let count = logging.allowed[cells.clone()].iter().filter(|flag| **flag).count() as f64;
            for action in 0..actions {
                let probability = match (&sample.logged_distribution, sample.propensity) {
                    (Some(distribution), _) => distribution[action],
                    (None, Some(own)) if action == sample.action => own,
                    // Of the others only their sum is known.
                    (None, Some(own)) => (1.0 - own) / (count - 1.0).max(1.0),
                    (None, None) => 1.0 / count,
                };
                logging.log_probability[cells.start + action] = probability.max(1e-3).ln() as f32;
            }
        }
        logging
    }

    fn write(&self, row: usize, allowed: &mut [f32], log_probability: &mut [f32]) {
        let cells = row * self.actions..(row + 1) * self.actions;
        for (out, flag) in allowed.iter_mut().zip(&self.allowed[cells.clone()]) {
            *out = f32::from(u8::from(*flag));
        }
        log_probability.copy_from_slice(&self.log_probability[cells]);
    }
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
        let weights = weights.clone() / weights.sum().clamp_min(1e-6).reshape([1, 1]);
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

/// One network of both: the reward model's outputs, then the corrections. The corrections' network has one input more, and as many layers.
///
/// # Errors
/// When the two do not have as many layers.
pub(crate) fn joined(reward: &[PlainLayer], corrections: &[PlainLayer]) -> Result<weir_policy_runtime::Mlp> {
    if reward.len() != corrections.len() {
        return Err(LearnError::Artefact("the reward model and the corrections differ in depth".to_owned()));
    }
    let layers = reward.iter().zip(corrections).enumerate().map(|(depth, (above, below))| {
        // The first layer's inputs are shared; later ones stand side by side.
        let inputs = if depth == 0 { below.inputs } else { above.inputs + below.inputs };
        let mut weight = Vec::with_capacity(inputs * (above.bias.len() + below.bias.len()));
        for row in above.weight.chunks_exact(above.inputs) {
            weight.extend_from_slice(row);
            weight.resize(weight.len() + inputs - above.inputs, 0.0);
        }
        for row in below.weight.chunks_exact(below.inputs) {
            weight.resize(weight.len() + inputs - below.inputs, 0.0);
            weight.extend_from_slice(row);
        }
        PlainLayer { inputs, weight, bias: [&above.bias[..], &below.bias[..]].concat() }
    });
    runtime_network(&layers.collect::<Vec<_>>())
}

/// The largest weight of a dollar at which the policy still reaches `quality`, by doubly robust value on the training rows: the multiplier
/// of "least cost at such a quality". Values are of the policy's probabilities.
///
/// # Errors
/// [`LearnError::NotEnoughData`] when the quality is not reached even where cost counts nothing.
pub(crate) fn usd_weight_for_quality(
    learned: &LearnedCorrections,
    inputs: &Inputs,
    quality: f64,
    quality_weight: f64,
    (temperature, floor): (f64, f64),
) -> Result<f64> {
    let network = runtime_network(&learned.layers)?;
    let reached = |share: f64| value_of_quality(learned, &network, inputs, share, (temperature, floor));
    let most = reached(0.0);
    if most < quality {
        return Err(LearnError::NotEnoughData(format!(
            "a quality of {quality} is not reached: where cost counts nothing the policy reaches {most:.4} on its training decisions; ask for less"
        )));
    }
    let (mut kept, mut broken) = (0.0, 1.0);
    if reached(SHARE_MAX) >= quality {
        kept = SHARE_MAX;
    } else {
        broken = SHARE_MAX;
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(kept, broken);
        if middle > SHARE_MAX {
            break;
        }
        if reached(middle) >= quality { kept = middle } else { broken = middle }
    }
    // share = usd · scale / (quality_weight + usd · scale), solved for usd.
    Ok(quality_weight * kept / (1.0 - kept) / learned.preference.usd_scale)
}

/// Beyond this cost counts a thousand times as much as quality.
const SHARE_MAX: f64 = 0.999;
/// Steps of the bisection: the share to 1 in 4,000.
const HALVINGS: usize = 12;

fn value_of_quality(
    learned: &LearnedCorrections,
    network: &weir_policy_runtime::Mlp,
    inputs: &Inputs,
    share: f64,
    (temperature, floor): (f64, f64),
) -> f64 {
    let DrRewards { actions, .. } = learned.rewards;
    let rows = learned.rewards.taken.len();
    let (usd_scale, share) = (learned.preference.usd_scale as f32, share as f32);
    let mut input = vec![share; inputs.width + 1];
    let mut scratch = weir_policy_runtime::MlpScratch::default();
    let plane = || vec![0.0; actions];
    let (mut utility, mut gamma, mut allowed, mut ignored) = (plane(), plane(), plane(), plane());
    let (mut scores, mut may, mut policy) = (vec![0.0; actions], vec![false; actions], vec![0.0; actions]);
    let mut sum = 0.0;
    for row in 0..rows {
        input[..inputs.width].copy_from_slice(&inputs.values[row * inputs.width..(row + 1) * inputs.width]);
        learned.rewards.guess(row, share, usd_scale, &mut utility);
        let corrections = network.forward(&input, &mut scratch);
        scores.iter_mut().zip(utility.iter().zip(corrections)).for_each(|(score, (u, g))| *score = f64::from(u + g));
        learned.logging.write(row, &mut allowed, &mut ignored);
        may.iter_mut().zip(&allowed).for_each(|(may, allowed)| *may = *allowed > 0.0);
        weir_policy_runtime::softmax_weights(&scores, &may, temperature, floor, &mut policy);
        // Quality alone: a share of nothing for cost.
        learned.rewards.gamma(row, 0.0, usd_scale, &mut gamma);
        sum += policy.iter().zip(&gamma).map(|(p, gamma)| p * f64::from(*gamma)).sum::<f64>();
    }
    sum / rows.max(1) as f64
}
