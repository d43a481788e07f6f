//! A small multi-layer perceptron in burn, trained with AdamW and early stopping, and handed over as a runtime [`Mlp`].
//!
//! Reproducible on a CPU: starting weights and batch order come from one seeded generator of ours, never from burn's
//! global one, so the same seed and rows give the same bytes whatever else the process trains.

use std::borrow::Cow;
use std::ops::Range;

use burn::module::{AutodiffModule, Module, Param};
use burn::nn::Linear;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::record::{BinBytesRecorder, FullPrecisionSettings, Record, Recorder};
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use weir_policy_runtime::{Layer, Mlp};

use crate::backend::{Compute, Device, Train};
use crate::checkpoint::{Progress, Slot};
use crate::error::{LearnError, Result};

/// `x -> W x + b` per layer, ReLU between layers.
#[derive(Module, Debug)]
pub(crate) struct Network<B: Backend> {
    layers: Vec<Linear<B>>,
}

/// Rows of inputs, row-major.
pub(crate) struct Inputs {
    pub width: usize,
    pub values: Vec<f32>,
    /// How often each row of `values` is used, each time with another number of `extra`: row `r` of the inputs is row `r / repeats` of the
    /// values and then `extra[r]`.
    pub repeats: usize,
    /// One number more for each use of a row; empty where there is none.
    pub extra: Vec<f32>,
    /// How much each row of `values` counts in the mean over several batches; empty where all count alike.
    pub weights: Vec<f32>,
}

impl Inputs {
    /// Each row once, as it is.
    pub(crate) fn new(width: usize, values: Vec<f32>) -> Self {
        Self { width, values, repeats: 1, extra: Vec::new(), weights: Vec::new() }
    }

    /// Tensor of the given rows, shape `[rows, width]`.
    pub(crate) fn tensor<B: Backend>(&self, rows: &[usize], device: &B::Device) -> Tensor<B, 2> {
        let width = self.width + usize::from(!self.extra.is_empty());
        let mut gathered = Vec::with_capacity(rows.len() * width);
        for &row in rows {
            let own = row / self.repeats;
            gathered.extend_from_slice(&self.values[own * self.width..(own + 1) * self.width]);
            gathered.extend(self.extra.get(row));
        }
        Tensor::from_data(TensorData::new(gathered, [rows.len(), width]), device)
    }
}

/// What AdamW adds to the root of the second moment: burn's own choice, which others make 1e-8.
pub const ADAM_EPSILON: f32 = 1e-5;

/// The optimiser of every network.
pub(crate) fn adamw(weight_decay: f32) -> AdamWConfig {
    AdamWConfig::new().with_weight_decay(weight_decay).with_epsilon(ADAM_EPSILON)
}

/// How to train.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fit {
    pub epochs: usize,
    pub batch_rows: usize,
    pub learning_rate: f64,
    pub weight_decay: f32,
    /// Epochs without a better validation loss before training ends.
    pub patience: usize,
}

/// Non-negative input columns that reach the last layer unchanged at the start (ReLU leaves them alone), and what each
/// adds to the outputs there: a network that starts as a table, and learns what the table lacks.
pub(crate) struct Passed {
    /// Which input columns.
    pub columns: Range<usize>,
    /// What each column adds to each output, shape `[columns, outputs]`, row-major.
    pub adds: Vec<f32>,
}

impl<B: Backend> Network<B> {
    /// Outputs of shape `[rows, outputs]` for inputs of shape `[rows, inputs]`.
    pub(crate) fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        let last = self.layers.len() - 1;
        self.layers.iter().enumerate().fold(input, |x, (index, layer)| {
            let y = layer.forward(x);
            if index == last { y } else { relu(y) }
        })
    }
}

impl Network<Compute> {
    /// Outputs for the given rows, row-major.
    pub(crate) fn predict(&self, inputs: &Inputs, rows: &[usize]) -> Result<Vec<f32>> {
        let device = Device::default();
        let mut outputs = Vec::new();
        for batch in rows.chunks(4096) {
            let found = self.forward(inputs.tensor(batch, &device)).into_data().to_vec::<f32>();
            outputs.extend(found.map_err(|error| LearnError::Artefact(format!("{error:?}")))?);
        }
        Ok(outputs)
    }
}

impl Network<Train> {
    /// Kaiming-uniform weights, `U(-√(6/in), √(6/in))` (He et al. 2015, arXiv 1502.01852); the last layer starts at a
    /// tenth of that around `last_bias`, so that training starts from the mean, or from the table of `passed`.
    pub(crate) fn init(
        inputs: usize,
        hidden: &[usize],
        last_bias: &[f32],
        passed: Option<&Passed>,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let device = Device::default();
        let extra = passed.map_or(0, |passed| passed.columns.len());
        let outputs = last_bias.len();
        let sizes: Vec<usize> =
            [inputs].into_iter().chain(hidden.iter().map(|width| width + extra)).chain([outputs]).collect();
        let last = sizes.len() - 2;
        let layers = sizes.windows(2).enumerate().map(|(index, pair)| {
            let scale = if index == last { 0.1 } else { 1.0 };
            let bound = scale * (6.0 / pair[0] as f32).sqrt();
            let mut weight: Vec<f32> = (0..pair[0] * pair[1]).map(|_| rng.random_range(-bound..bound)).collect();
            if let Some(passed) = passed {
                let first_row = if index == 0 { passed.columns.start } else { pair[0] - extra };
                for unit in 0..extra {
                    let row = first_row + unit;
                    if index == last {
                        let adds = &passed.adds[unit * outputs..(unit + 1) * outputs];
                        weight[row * outputs..(row + 1) * outputs].copy_from_slice(adds);
                    } else {
                        let column = pair[1] - extra + unit;
                        (0..pair[0])
                            .for_each(|from| weight[from * pair[1] + column] = f32::from(u8::from(from == row)));
                    }
                }
            }
            let bias = if index == last { last_bias.to_vec() } else { vec![0.0; pair[1]] };
            Linear {
                weight: Param::from_tensor(Tensor::from_data(TensorData::new(weight, [pair[0], pair[1]]), &device)),
                bias: Some(Param::from_tensor(Tensor::from_data(TensorData::new(bias, [pair[1]]), &device))),
            }
        });
        Self { layers: layers.collect() }
    }

    /// The same network with a last layer of zeros: what it adds to something else starts at nothing.
    pub(crate) fn silenced(mut self) -> Self {
        if let Some(last) = self.layers.last_mut() {
            last.weight = Param::from_tensor(last.weight.val().zeros_like());
        }
        self
    }

    /// The same weights without a record of gradients: what targets are computed with.
    pub(crate) fn frozen(&self) -> Network<Compute> {
        self.valid()
    }

    /// The network after one step of the optimiser down the loss, which was computed with it.
    pub(crate) fn stepped(
        self,
        optimiser: &mut impl Optimizer<Self, Train>,
        learning_rate: f64,
        loss: &Tensor<Train, 1>,
    ) -> Self {
        let gradients = GradientsParams::from_grads(loss.backward(), &self);
        optimiser.step(learning_rate, self, gradients)
    }

    /// Outputs for all rows, row-major, as burn computes them.
    #[cfg(test)]
    pub(crate) fn outputs(&self, inputs: &Inputs) -> Vec<f32> {
        let rows: Vec<usize> = (0..inputs.values.len() / inputs.width).collect();
        self.forward(inputs.tensor(&rows, &Device::default())).into_data().to_vec().expect("outputs are f32")
    }

    /// Trains on `train`, stops when `validation` no longer gets better, and returns the best weights seen. Where `slot` keeps what an
    /// earlier run did, it goes on from there.
    ///
    /// `loss` maps outputs `[rows, outputs]` and the rows' indices to one number.
    ///
    /// # Errors
    /// When a checkpoint cannot be written.
    pub(crate) fn fit(
        self,
        inputs: &Inputs,
        (train, validation): (&[usize], &[usize]),
        config: Fit,
        (rng, slot): (&mut ChaCha8Rng, &Slot<'_>),
        loss: impl Fn(Tensor<Train, 2>, &[usize], &Device) -> Tensor<Train, 1>,
    ) -> Result<Self> {
        let device = Device::default();
        let mut optimiser = adamw(config.weight_decay).init();
        let mut network = self;
        let mut order = train.to_vec();
        let watched = if validation.is_empty() { train } else { validation };
        let mut best = (mean_loss(&network, inputs, watched, &device, &loss), network.clone());
        let (mut epochs_done, mut epochs_since_best) = (0, 0);
        if let Some(progress) = slot.load().filter(|progress| progress.order.len() == order.len()) {
            let [current, best_so_far, moments] = progress.records;
            best = (progress.best_loss, network.clone().load_record(read(best_so_far, &device)?));
            network = network.load_record(read(current, &device)?);
            optimiser = optimiser.load_record(read(moments, &device)?);
            order = progress.order;
            rng.set_word_pos(progress.random_word);
            (epochs_done, epochs_since_best) = (progress.epochs_done, progress.epochs_since_best);
        }
        while epochs_done < config.epochs && epochs_since_best < config.patience {
            order.shuffle(rng);
            for batch in batches(&order, config.batch_rows) {
                let batch = &batch[..];
                let value = loss(network.forward(inputs.tensor(batch, &device)), batch, &device);
                network = network.stepped(&mut optimiser, config.learning_rate, &value);
            }
            epochs_done += 1;
            let value = mean_loss(&network, inputs, watched, &device, &loss);
            if !value.is_finite() {
                return Err(LearnError::Diverged { epoch: epochs_done });
            }
            if value < best.0 {
                best = (value, network.clone());
                epochs_since_best = 0;
            } else {
                epochs_since_best += 1;
            }
            if slot.is_kept() {
                let records = [
                    written(network.clone().into_record())?,
                    written(best.1.clone().into_record())?,
                    written(optimiser.to_record())?,
                ];
                let (best_loss, order, random_word) = (best.0, order.clone(), rng.get_word_pos());
                slot.save(&Progress { epochs_done, best_loss, epochs_since_best, order, random_word, records })?;
            }
        }
        Ok(best.1)
    }

    /// The weights as plain numbers, `[out, in]` row-major where burn keeps `[in, out]`.
    pub(crate) fn to_layers(&self) -> Result<Vec<PlainLayer>> {
        self.layers.iter().map(plain_layer).collect()
    }

    /// The same network for the runtime.
    #[cfg(test)]
    pub(crate) fn to_mlp(&self) -> Result<Mlp> {
        runtime_network(&self.to_layers()?)
    }
}

/// Runs of `rows` rows in order. On a GPU the last one is filled up from the first rows: kernels are compiled and tuned for a shape, and
/// a batch of another shape would pay for that again.
fn batches(order: &[usize], rows: usize) -> impl Iterator<Item = Cow<'_, [usize]>> {
    order.chunks(rows).map(move |batch| {
        if !cfg!(feature = "cuda") || batch.len() == rows || order.len() < rows {
            return Cow::Borrowed(batch);
        }
        Cow::Owned(batch.iter().chain(order).take(rows).copied().collect())
    })
}

/// The same network with `shifts` added to its outputs.
pub(crate) fn shift_outputs(layers: &mut [PlainLayer], shifts: &[f32]) {
    if let Some(last) = layers.last_mut() {
        last.bias.iter_mut().zip(shifts).for_each(|(bias, shift)| *bias += shift);
    }
}

/// One layer as numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlainLayer {
    pub inputs: usize,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// The runtime's network of these layers.
pub(crate) fn runtime_network(layers: &[PlainLayer]) -> Result<Mlp> {
    let unusable = |error: weir_policy_runtime::PolicyError| LearnError::Artefact(error.to_string());
    let layers = layers
        .iter()
        .map(|layer| Layer::new(layer.inputs, layer.weight.clone(), layer.bias.clone()).map_err(unusable))
        .collect::<Result<Vec<_>>>()?;
    Mlp::new(layers).map_err(unusable)
}

/// A record of burn's as bytes, every bit of it.
fn written<R: Record<Train>>(record: R) -> Result<Vec<u8>> {
    BinBytesRecorder::<FullPrecisionSettings>::default()
        .record(record, ())
        .map_err(|error| LearnError::Artefact(error.to_string()))
}

fn read<R: Record<Train>>(bytes: Vec<u8>, device: &Device) -> Result<R> {
    BinBytesRecorder::<FullPrecisionSettings>::default()
        .load(bytes, device)
        .map_err(|error| LearnError::Artefact(error.to_string()))
}

fn plain_layer(layer: &Linear<Train>) -> Result<PlainLayer> {
    let unusable = |why: String| LearnError::Artefact(why);
    let read = |data: TensorData| data.to_vec::<f32>().map_err(|error| unusable(format!("{error:?}")));
    let [inputs, _] = layer.weight.val().dims();
    let bias = layer.bias.as_ref().ok_or_else(|| unusable("a layer has no bias".to_owned()))?;
    Ok(PlainLayer {
        inputs,
        weight: read(layer.weight.val().transpose().into_data())?,
        bias: read(bias.val().into_data())?,
    })
}

fn mean_loss(
    network: &Network<Train>,
    inputs: &Inputs,
    rows: &[usize],
    device: &Device,
    loss: &impl Fn(Tensor<Train, 2>, &[usize], &Device) -> Tensor<Train, 1>,
) -> f32 {
    let (mut sum, mut whole) = (0.0, 0.0);
    for batch in rows.chunks(4096) {
        let value = loss(network.forward(inputs.tensor(batch, device)), batch, device);
        let weight: f32 =
            batch.iter().map(|row| inputs.weights.get(row / inputs.repeats).copied().unwrap_or(1.0)).sum();
        sum += value.into_scalar() * weight;
        whole += weight;
    }
    if whole > 0.0 { sum / whole } else { 0.0 }
}

/// Cross entropy of logits against targets in [0, 1], element by element: `max(z, 0) - z t + ln(1 + e^-|z|)`.
pub(crate) fn cross_entropy(logits: Tensor<Train, 2>, targets: Tensor<Train, 2>) -> Tensor<Train, 2> {
    relu(logits.clone()) - logits.clone() * targets + logits.abs().neg().exp().log1p()
}

/// `Σ mask x / Σ mask`: the mean of what the mask shows, weighted by it, and no gradient for the rest; 0 where it shows nothing.
pub(crate) fn masked_mean(values: Tensor<Train, 2>, mask: Tensor<Train, 2>) -> Tensor<Train, 1> {
    let shown = mask.clone().sum().clamp_min(1e-9);
    (values * mask).sum() / shown
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use weir_policy_runtime::MlpScratch;

    use super::*;
    use crate::checkpoint::{Checkpoints, Training};

    fn random_inputs(rows: usize, width: usize, rng: &mut ChaCha8Rng) -> Inputs {
        Inputs::new(width, (0..rows * width).map(|_| rng.random_range(-2.0..2.0)).collect())
    }

    /// Trains on a sum of two inputs, so that the weights are no longer the starting ones.
    fn trained(seed: u64) -> Network<Train> {
        trained_for(seed, 5, &Slot::default())
    }

    fn trained_for(seed: u64, epochs: usize, slot: &Slot<'_>) -> Network<Train> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let inputs = random_inputs(300, 37, &mut rng);
        let targets: Vec<f32> = inputs.values.chunks(37).map(|x| x[0] + x[1]).collect();
        let rows: Vec<usize> = (0..300).collect();
        let fit = Fit { epochs, batch_rows: 32, learning_rate: 1e-2, weight_decay: 1e-4, patience: 5 };
        let network = Network::init(37, &[24, 16], &[0.5; 6], None, &mut rng);
        let lesson = (&mut rng, slot);
        let network = network.fit(&inputs, (&rows[..250], &rows[250..]), fit, lesson, |outputs, batch, device| {
            let wanted: Vec<f32> = batch.iter().map(|&row| targets[row]).collect();
            let wanted = Tensor::<Train, 2>::from_data(TensorData::new(wanted, [batch.len(), 1]), device);
            let gap = outputs.slice([0..batch.len(), 0..1]) - wanted;
            (gap.clone() * gap).mean()
        });
        network.expect("nothing stands in the way")
    }

    /// A training that is stopped after any of its passes ends where it would have ended.
    #[test]
    fn a_stopped_training_goes_on_to_the_same_bytes() {
        fn slot(checkpoints: &Checkpoints) -> Slot<'_> {
            Training { seed: 3, checkpoints: Some(checkpoints) }.slot()
        }
        let bytes = |network: Network<Train>| network.to_mlp().unwrap().to_safetensors().unwrap();
        let whole = bytes(trained(3));
        for stopped_after in 1..5 {
            let folder = tempfile::tempdir().unwrap();
            let first = Checkpoints::open(folder.path(), "same").unwrap();
            let stopped = bytes(trained_for(3, stopped_after, &slot(&first)));
            assert!(stopped != whole, "it was stopped before its end");
            drop(first);
            let second = Checkpoints::open(folder.path(), "same").unwrap();
            assert!(bytes(trained_for(3, 5, &slot(&second))) == whole, "stopped after {stopped_after}");
        }
    }

    #[test]
    fn the_runtime_computes_what_burn_computes() {
        let network = trained(3);
        let mlp = network.to_mlp().expect("a trained network is usable");
        let inputs = random_inputs(500, 37, &mut ChaCha8Rng::seed_from_u64(4));
        let mut scratch = MlpScratch::default();
        let ours = inputs.values.chunks(37).flat_map(|x| mlp.forward(x, &mut scratch).to_vec()).collect::<Vec<f32>>();
        for (ours, burns) in ours.iter().zip(network.outputs(&inputs)) {
            assert!((ours - burns).abs() < 1e-5, "runtime {ours}, burn {burns}");
        }
    }

    #[test]
    fn passed_columns_start_as_a_table() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let passed = Passed { columns: 1..3, adds: vec![10.0, 20.0, 30.0, 40.0] };
        let mlp = Network::init(4, &[8, 6], &[1.0, 2.0], Some(&passed), &mut rng).to_mlp().expect("usable");
        let mut scratch = MlpScratch::default();
        let mut outputs = |x: [f32; 4]| mlp.forward(&x, &mut scratch).to_vec();
        let (first, second) = (outputs([0.0, 1.0, 0.0, 0.0]), outputs([0.0, 0.0, 1.0, 0.0]));
        // The random part is small beside the table.
        for (found, expected) in first.iter().chain(&second).zip([11.0, 22.0, 31.0, 42.0]) {
            assert!((found - expected).abs() < 1.0, "{first:?} {second:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        let bytes = |seed| {
            trained(seed)
                .to_mlp()
                .and_then(|mlp| mlp.to_safetensors().map_err(|error| LearnError::Artefact(error.to_string())))
        };
        let (first, second, other) = (bytes(1).unwrap(), bytes(1).unwrap(), bytes(2).unwrap());
        assert!(first == second, "the same seed gave other weights");
        assert!(first != other, "another seed gave the same weights");
    }

    #[test]
    fn what_the_mask_hides_has_no_gradient() {
        let device = Device::default();
        let logits = Tensor::<Train, 2>::from_data([[0.3_f32, -0.7], [1.2, 0.1]], &device).require_grad();
        let targets = Tensor::<Train, 2>::from_data([[1.0_f32, 1.0], [0.0, 0.0]], &device);
        let mask = Tensor::<Train, 2>::from_data([[1.0_f32, 0.0], [0.0, 1.0]], &device);
        let loss = masked_mean(cross_entropy(logits.clone(), targets), mask);
        let gradients = loss.backward();
        let gradient: Vec<f32> = logits.grad(&gradients).expect("logits have one").into_data().to_vec().expect("f32");
        // d/dz of the cross entropy is sigmoid(z) - t, here halved by the mean over two shown cells.
        let sigmoid = |z: f32| 1.0 / (1.0 + (-z).exp());
        let expected = [(sigmoid(0.3) - 1.0) / 2.0, 0.0, 0.0, sigmoid(0.1) / 2.0];
        for (found, expected) in gradient.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{gradient:?}");
        }
    }
}
