//! The reward model: quality and cost of every action, from what was known before the choice.
//!
//! One network, `2K` outputs for `K` actions: quality logits (cross entropy against targets in [0, 1]) and ln(cost)
//! (squared error). A logged decision says something about the action taken only, so only that action's two outputs
//! get a gradient, and each only if its target was observed.

use burn::tensor::{Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use weir_policy_runtime::{CategoryField, Feature, FeatureSpec, Mlp, MlpScratch};

use crate::backend::{Device, Train};
use crate::checkpoint::Training;
use crate::error::{LearnError, Result};
use crate::network::{
    Fit, Inputs, Network, Passed, PlainLayer, cross_entropy, masked_mean, runtime_network, shift_outputs,
};
use crate::ope::{TableRow, cross_fitted_table};
use crate::training_set::Sample;

/// How the reward model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardModelConfig {
    /// Widths of the hidden layers; none is a linear model.
    pub hidden: Vec<usize>,
    /// Most passes over the training rows.
    pub epochs: usize,
    /// Rows of a gradient step.
    pub batch_rows: usize,
    /// Step size of AdamW.
    pub learning_rate: f64,
    /// Weight decay of AdamW.
    pub weight_decay: f32,
    /// Passes without a better validation loss before training ends.
    pub patience: usize,
    /// Share of the training clusters that only decides when to stop.
    pub validation_share: f64,
    /// Weight of the squared error of ln(cost) beside the cross entropy of quality.
    pub cost_weight: f64,
    /// Days after which a decision counts for half of what it counted for: what a model was worth may change. None forgets nothing.
    pub half_life_days: Option<f64>,
}

impl Default for RewardModelConfig {
    fn default() -> Self {
        Self {
            hidden: vec![64],
            epochs: 60,
            batch_rows: 256,
            learning_rate: 1e-3,
            weight_decay: 0.3,
            patience: 6,
            validation_share: 0.15,
            cost_weight: 0.25,
            half_life_days: None,
        }
    }
}

/// How well the reward model predicts on rows that it has not seen, beside predicting each action's training mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RewardModelMetrics {
    /// Held-out rows with a quality.
    pub quality_rows: usize,
    /// Mean cross entropy of quality, nats.
    pub quality_log_loss: f64,
    /// The same, of each action's training mean.
    pub quality_log_loss_of_means: f64,
    /// Root mean squared error of quality.
    pub quality_rmse: f64,
    /// The same, of each action's training mean.
    pub quality_rmse_of_means: f64,
    /// Held-out rows with a cost.
    pub cost_rows: usize,
    /// Root mean squared error of cost, USD.
    pub cost_rmse_usd: f64,
    /// The same, of each action's training mean.
    pub cost_rmse_usd_of_means: f64,
}

/// Targets of one row.
#[derive(Debug, Clone, Copy)]
struct Target {
    action: usize,
    quality: Option<f64>,
    ln_cost: Option<f64>,
    /// How many decisions it counts for.
    weight: f64,
}

/// How much each decision counts: exponentially less with its age, counted from the newest that is learned from.
pub(crate) struct Discount {
    newest_ms: i64,
    half_life_days: Option<f64>,
}

impl Discount {
    /// # Errors
    /// When the half-life is no time.
    pub(crate) fn new(samples: &[Sample], rows: &[usize], half_life_days: Option<f64>) -> Result<Self> {
        Self::at(rows.iter().map(|&row| samples[row].time_ms).max().unwrap_or(0), half_life_days)
    }

    /// The same, counted from a moment, ms since the Unix epoch.
    ///
    /// # Errors
    /// When the half-life is no time.
    pub(crate) fn at(newest_ms: i64, half_life_days: Option<f64>) -> Result<Self> {
        if half_life_days.is_some_and(|days| !(days.is_finite() && days > 0.0)) {
            return Err(LearnError::Config("half_life_days must be a number of days above 0".to_owned()));
        }
        Ok(Self { newest_ms, half_life_days })
    }

    pub(crate) fn weight(&self, sample: &Sample) -> f64 {
        self.weight_of(sample.time_ms)
    }

    /// What counts of something of that moment.
    pub(crate) fn weight_of(&self, time_ms: i64) -> f64 {
        const DAY_MS: f64 = 86_400_000.0;
        let days = (self.newest_ms - time_ms) as f64 / DAY_MS;
        self.half_life_days.map_or(1.0, |half_life| (-days / half_life).exp2())
    }
}

/// A cost of zero (a cache hit, a free tier) has no logarithm: it counts as a millionth of a cent.
const COST_MIN_USD: f64 = 1e-8;

/// Trains on the samples at `rows` (indices into `samples`).
pub(crate) fn train(
    samples: &[Sample],
    rows: &[usize],
    spec: &FeatureSpec,
    actions: usize,
    config: &RewardModelConfig,
    training: Training<'_>,
) -> Result<Mlp> {
    runtime_network(&train_layers(samples, rows, spec, actions, config, training)?)
}

/// The same, as plain layers.
pub(crate) fn train_layers(
    samples: &[Sample],
    rows: &[usize],
    spec: &FeatureSpec,
    actions: usize,
    config: &RewardModelConfig,
    training: Training<'_>,
) -> Result<Vec<PlainLayer>> {
    if rows.is_empty() {
        return Err(LearnError::NotEnoughData("no decision is left to train on".to_owned()));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(training.seed);
    let discount = Discount::new(samples, rows, config.half_life_days)?;
    let weights = rows.iter().map(|&row| discount.weight(&samples[row]) as f32).collect();
    let inputs = Inputs { weights, ..encode(samples, rows, spec) };
    let targets: Vec<Target> = rows.iter().map(|&row| target(&samples[row], discount.weight(&samples[row]))).collect();
    let means = ActionMeans::new(samples, rows, actions, |sample| discount.weight(sample));
    let (fitted, validation) = split_by_cluster(samples, rows, config.validation_share, &mut rng);
    let last_bias = means.last_bias();
    let table = domain_table(spec, &inputs, &targets, &fitted, actions, &last_bias);
    let network = Network::init(inputs.width, &config.hidden, &last_bias, table.as_ref(), &mut rng);
    let fit = Fit {
        epochs: config.epochs,
        batch_rows: config.batch_rows.max(1),
        learning_rate: config.learning_rate,
        weight_decay: config.weight_decay,
        patience: config.patience.max(1),
    };
    let cost_weight = config.cost_weight as f32;
    let lesson = (&mut rng, &training.slot());
    let network = network.fit(&inputs, (&fitted, &validation), fit, lesson, |outputs, batch, device| {
        masked_loss(outputs, batch.iter().map(|&row| targets[row]), actions, cost_weight, device)
    })?;
    let mut layers = network.to_layers()?;
    let shifts = smearing_shifts(&runtime_network(&layers)?, &inputs, samples, rows, actions, &discount);
    shift_outputs(&mut layers, &shifts);
    Ok(layers)
}

/// Features of the samples at `rows`.
pub(crate) fn encode(samples: &[Sample], rows: &[usize], spec: &FeatureSpec) -> Inputs {
    let width = spec.width();
    let mut values = vec![0.0; rows.len() * width];
    for (&row, out) in rows.iter().zip(values.chunks_exact_mut(width)) {
        spec.encode(&samples[row].context.as_context(), out);
    }
    Inputs::new(width, values)
}

fn target(sample: &Sample, weight: f64) -> Target {
    let ln_cost = sample.cost_usd.map(|cost| cost.max(COST_MIN_USD).ln());
    Target { action: sample.action, quality: sample.quality, ln_cost, weight }
}

/// Positions in `rows`, split so that no cluster is on both sides.
pub(crate) fn split_by_cluster(
    samples: &[Sample],
    rows: &[usize],
    share: f64,
    rng: &mut ChaCha8Rng,
) -> (Vec<usize>, Vec<usize>) {
    let mut clusters: Vec<&str> = rows.iter().map(|&row| samples[row].cluster.as_str()).collect();
    clusters.sort_unstable();
    clusters.dedup();
    clusters.shuffle(rng);
    clusters.truncate((clusters.len() as f64 * share).round() as usize);
    clusters.sort_unstable();
    (0..rows.len()).partition(|&position| clusters.binary_search(&samples[rows[position]].cluster.as_str()).is_err())
}

/// The network's start: shrunken means by (domain, action), as what each domain adds to the actions' means. A network
/// that finds nothing better in the rest of the context stays there.
fn domain_table(
    spec: &FeatureSpec,
    inputs: &Inputs,
    targets: &[Target],
    fitted: &[usize],
    actions: usize,
    last_bias: &[f32],
) -> Option<Passed> {
    let mut start = 0;
    let columns = spec.features.iter().find_map(|feature| {
        let columns = start..start + feature.width();
        start = columns.end;
        matches!(feature, Feature::OneHot { field: CategoryField::Domain, .. }).then_some(columns)
    })?;
    let rows = |value: &dyn Fn(&Target) -> Option<f64>| -> Vec<TableRow> {
        let row = |&position: &usize| {
            let input = &inputs.values[position * inputs.width..][columns.clone()];
            let target = &targets[position];
            let cell = input.iter().position(|x| *x > 0.0).unwrap_or(0);
            TableRow { cell, action: target.action, reward: value(target), cluster: 0, weight: target.weight }
        };
        fitted.iter().map(row).collect()
    };
    let means = |rows: Vec<TableRow>| cross_fitted_table(&rows, columns.len(), actions, 1).swap_remove(0);
    let quality = means(rows(&|target| target.quality));
    let ln_cost = means(rows(&|target| target.ln_cost));
    // A target that nobody observed has no table; its outputs stay at the bias.
    let seen = [targets.iter().any(|target| target.quality.is_some()), targets.iter().any(|t| t.ln_cost.is_some())];
    let mut adds = Vec::with_capacity(columns.len() * 2 * actions);
    for cell in 0..columns.len() {
        let cells = cell * actions..(cell + 1) * actions;
        let outputs = quality[cells.clone()].iter().map(logit).chain(ln_cost[cells].iter().map(|cost| *cost as f32));
        let seen = |output: usize| seen[usize::from(output >= actions)];
        let add = |(index, (output, bias)): (usize, (f32, &f32))| if seen(index) { output - bias } else { 0.0 };
        adds.extend(outputs.zip(last_bias).enumerate().map(add));
    }
    Some(Passed { columns, adds })
}

fn logit(mean: &f64) -> f32 {
    let mean = if mean.is_nan() { 0.5 } else { mean.clamp(0.01, 0.99) };
    (mean / (1.0 - mean)).ln() as f32
}

/// Mean over the batch of the taken actions' losses.
fn masked_loss(
    outputs: Tensor<Train, 2>,
    batch: impl Iterator<Item = Target>,
    actions: usize,
    cost_weight: f32,
    device: &Device,
) -> Tensor<Train, 1> {
    let [rows, _] = outputs.dims();
    let mut planes: [Vec<f32>; 4] = std::array::from_fn(|_| vec![0.0; rows * actions]);
    for (row, target) in batch.enumerate() {
        let cell = row * actions + target.action;
        if let Some(quality) = target.quality {
            planes[0][cell] = quality as f32;
            planes[1][cell] = target.weight as f32;
        }
        if let Some(ln_cost) = target.ln_cost {
            planes[2][cell] = ln_cost as f32;
            planes[3][cell] = target.weight as f32;
        }
    }
    let [quality, quality_seen, ln_cost, cost_seen] =
        planes.map(|plane| Tensor::<Train, 2>::from_data(TensorData::new(plane, [rows, actions]), device));
    let logits = outputs.clone().slice([0..rows, 0..actions]);
    let ln_cost_hat = outputs.slice([0..rows, actions..2 * actions]);
    let gap = ln_cost_hat - ln_cost;
    masked_mean(cross_entropy(logits, quality), quality_seen)
        + masked_mean(gap.clone() * gap, cost_seen).mul_scalar(cost_weight)
}

/// Training means by action, shrunk towards the overall mean by one observation's worth.
struct ActionMeans {
    quality: Vec<f64>,
    cost_usd: Vec<f64>,
    ln_cost: Vec<f64>,
}

impl ActionMeans {
    fn new(samples: &[Sample], rows: &[usize], actions: usize, weight_of: impl Fn(&Sample) -> f64) -> Self {
        let means = |of: &dyn Fn(&Sample) -> Option<f64>| {
            let mut sums = vec![(0.0, 0.0); actions];
            let mut overall = (0.0, 0.0);
            for sample in rows.iter().map(|&row| &samples[row]) {
                if let Some(value) = of(sample) {
                    let weight = weight_of(sample);
                    for sums in [&mut sums[sample.action], &mut overall] {
                        sums.0 += weight * value;
                        sums.1 += weight;
                    }
                }
            }
            let mean = if overall.1 > 0.0 { overall.0 / overall.1 } else { f64::NAN };
            sums.into_iter().map(|(sum, count)| (sum + mean) / (count + 1.0)).collect::<Vec<f64>>()
        };
        Self {
            quality: means(&|sample| sample.quality),
            cost_usd: means(&|sample| sample.cost_usd),
            ln_cost: means(&|sample| target(sample, 1.0).ln_cost),
        }
    }

    /// Output biases that predict the means; where nothing was observed, a quality of one half and a cost of nothing.
    fn last_bias(&self) -> Vec<f32> {
        let cost = |mean: &f64| (if mean.is_nan() { COST_MIN_USD.ln() } else { *mean }) as f32;
        self.quality.iter().map(logit).chain(self.ln_cost.iter().map(cost)).collect()
    }
}

/// By how much to shift each output so that predicted and observed cost have the same training mean by action: `exp`
/// of a mean of logarithms is too small. The smearing estimate of Duan 1983, JASA 78:605.
fn smearing_shifts(
    mlp: &Mlp,
    inputs: &Inputs,
    samples: &[Sample],
    rows: &[usize],
    actions: usize,
    discount: &Discount,
) -> Vec<f32> {
    let mut sums = vec![(0.0, 0.0); actions];
    let mut scratch = MlpScratch::default();
    for (&row, input) in rows.iter().zip(inputs.values.chunks_exact(inputs.width)) {
        let Some(cost) = samples[row].cost_usd else { continue };
        let action = samples[row].action;
        let weight = discount.weight(&samples[row]);
        sums[action].0 += weight * cost;
        sums[action].1 += weight * f64::from(mlp.forward(input, &mut scratch)[actions + action]).exp();
    }
    let shift = |&(observed, predicted): &(f64, f64)| {
        if observed > 0.0 && predicted > 0.0 { (observed / predicted).ln() as f32 } else { 0.0 }
    };
    vec![0.0; actions].into_iter().chain(sums.iter().map(shift)).collect()
}

/// Errors on the samples at `holdout`, beside the means of the samples at `train`.
pub(crate) fn metrics(
    mlp: &Mlp,
    spec: &FeatureSpec,
    samples: &[Sample],
    (train, holdout): (&[usize], &[usize]),
    actions: usize,
) -> RewardModelMetrics {
    let means = ActionMeans::new(samples, train, actions, |_| 1.0);
    let inputs = encode(samples, holdout, spec);
    let mut scratch = MlpScratch::default();
    // Sums of: quality rows, log loss, log loss of means, squares, squares of means; cost rows, squares, of means.
    let mut sums = [0.0; 8];
    for (&row, input) in holdout.iter().zip(inputs.values.chunks_exact(inputs.width)) {
        let sample = &samples[row];
        let outputs = mlp.forward(input, &mut scratch);
        if let Some(quality) = sample.quality {
            let guess = 1.0 / (1.0 + (-f64::from(outputs[sample.action])).exp());
            let mean = means.quality[sample.action];
            let log_loss = |p: f64| {
                let p = p.clamp(1e-6, 1.0 - 1e-6);
                -(quality * p.ln() + (1.0 - quality) * (1.0 - p).ln())
            };
            let terms = [1.0, log_loss(guess), log_loss(mean), (guess - quality).powi(2), (mean - quality).powi(2)];
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
        if let Some(cost) = sample.cost_usd {
            let guess = f64::from(outputs[actions + sample.action]).exp();
            let terms = [1.0, (guess - cost).powi(2), (means.cost_usd[sample.action] - cost).powi(2)];
            sums[5..].iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
    }
    let mean = |sum: f64, rows: f64| if rows > 0.0 { sum / rows } else { 0.0 };
    RewardModelMetrics {
        quality_rows: sums[0] as usize,
        quality_log_loss: mean(sums[1], sums[0]),
        quality_log_loss_of_means: mean(sums[2], sums[0]),
        quality_rmse: mean(sums[3], sums[0]).sqrt(),
        quality_rmse_of_means: mean(sums[4], sums[0]).sqrt(),
        cost_rows: sums[5] as usize,
        cost_rmse_usd: mean(sums[6], sums[5]).sqrt(),
        cost_rmse_usd_of_means: mean(sums[7], sums[5]).sqrt(),
    }
}
