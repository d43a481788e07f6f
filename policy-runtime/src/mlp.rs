//! A multi-layer perceptron over f32 weights: x -> W x + b per layer, ReLU between layers, none after the last.
//!
//! Weights come as safetensors: `layers.{i}.weight` of shape \[out, in\] (row-major) and `layers.{i}.bias` of shape
//! \[out\], i from 0 without a gap. One layer is a linear model.

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::dense::affine;
use crate::error::PolicyError;

/// One affine map.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    inputs: usize,
    weight: Vec<f32>, // [outputs, inputs], row-major
    bias: Vec<f32>,   // [outputs]
}

impl Layer {
    /// A layer of `weight` \[outputs, inputs\] (row-major) and `bias` \[outputs\].
    ///
    /// # Errors
    /// When the lengths do not fit, a size is zero, or a number is not finite.
    pub fn new(inputs: usize, weight: Vec<f32>, bias: Vec<f32>) -> Result<Self, PolicyError> {
        let expected = inputs.checked_mul(bias.len());
        if inputs == 0 || bias.is_empty() || expected != Some(weight.len()) {
            let why = format!("a layer of {inputs} inputs and {} outputs has {} weights", bias.len(), weight.len());
            return Err(PolicyError::Weights { why });
        }
        if !weight.iter().chain(&bias).all(|x| x.is_finite()) {
            return Err(PolicyError::Weights { why: "a weight is not a finite number".to_owned() });
        }
        Ok(Self { inputs, weight, bias })
    }

    /// Number of inputs.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of outputs.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Weights of shape \[outputs, inputs\], row-major.
    #[must_use]
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// Biases of shape \[outputs\].
    #[must_use]
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }
}

/// Room for the layers' outputs; reused from call to call.
#[derive(Debug, Clone, Default)]
pub struct MlpScratch {
    buffers: [Vec<f32>; 2],
}

impl MlpScratch {
    fn fit(&mut self, widest: usize) {
        for buffer in &mut self.buffers {
            if buffer.len() < widest {
                buffer.resize(widest, 0.0);
            }
        }
    }
}

/// The network.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    layers: Vec<Layer>,
    widest: usize,
}

impl Mlp {
    /// A network of these layers, first to last.
    ///
    /// # Errors
    /// When there is no layer, or one does not take what the one before it gives.
    pub fn new(layers: Vec<Layer>) -> Result<Self, PolicyError> {
        if layers.is_empty() {
            return Err(PolicyError::Weights { why: "there is no tensor layers.0.weight".to_owned() });
        }
        for (i, pair) in layers.windows(2).enumerate() {
            if pair[0].outputs() != pair[1].inputs() {
                let (gives, takes) = (pair[0].outputs(), pair[1].inputs());
                let why = format!("layer {i} gives {gives} numbers but layer {} takes {takes}", i + 1);
                return Err(PolicyError::Weights { why });
            }
        }
        let widest = layers.iter().map(Layer::outputs).max().unwrap_or(0);
        Ok(Self { layers, widest })
    }

    /// Reads `layers.{i}.weight` and `layers.{i}.bias`, f32.
    ///
    /// # Errors
    /// When the bytes are not safetensors, a tensor is missing, unknown, not f32, of the wrong shape, or not finite.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, PolicyError> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| PolicyError::Weights { why: e.to_string() })?;
        let count = tensors.len() / 2;
        if tensors.len() % 2 != 0 {
            return Err(PolicyError::Weights { why: format!("{} tensors are not pairs", tensors.len()) });
        }
        let layers = (0..count).map(|i| read_layer(&tensors, i)).collect::<Result<Vec<_>, _>>()?;
        Self::new(layers)
    }

    /// Writes what [`Mlp::from_safetensors`] reads.
    ///
    /// # Errors
    /// When the safetensors library refuses the shapes, which would be a fault of ours.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, PolicyError> {
        let mut raw = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let shape = vec![layer.outputs(), layer.inputs()];
            raw.push((format!("layers.{i}.weight"), shape, le_bytes(&layer.weight)));
            raw.push((format!("layers.{i}.bias"), vec![layer.outputs()], le_bytes(&layer.bias)));
        }
        let views = raw
            .iter()
            .map(|(name, shape, data)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
        views
            .and_then(|views| safetensors::serialize(views, None))
            .map_err(|e| PolicyError::Weights { why: e.to_string() })
    }

    /// Number of inputs.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.layers.first().map_or(0, Layer::inputs)
    }

    /// Number of outputs.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, Layer::outputs)
    }

    /// The layers, first to last.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Runs the network on one input of shape \[inputs\]; returns the last layer's output, shape \[outputs\], before
    /// any sigmoid. Allocates only when `scratch` is still too small.
    ///
    /// # Panics
    /// When `input` is not [`Mlp::inputs`] long.
    pub fn forward<'s>(&self, input: &[f32], scratch: &'s mut MlpScratch) -> &'s [f32] {
        assert_eq!(input.len(), self.inputs(), "the input must be as wide as the first layer");
        scratch.fit(self.widest);
        let [current, next] = &mut scratch.buffers;
        let (first, rest) = self.layers.split_first().expect("a network has a layer, Mlp::new sees to it");
        affine(&first.weight, &first.bias, input, &mut current[..first.outputs()]);
        let mut width = first.outputs();
        for layer in rest {
            for x in &mut current[..width] {
                *x = x.max(0.0);
            }
            affine(&layer.weight, &layer.bias, &current[..width], &mut next[..layer.outputs()]);
            width = layer.outputs();
            std::mem::swap(current, next);
        }
        &current[..width]
    }

    /// What the last layer was given in the last [`Mlp::forward`] with this input and scratch.
    #[must_use]
    pub fn last_inputs<'s>(&self, input: &'s [f32], scratch: &'s MlpScratch) -> &'s [f32] {
        match &self.layers[..] {
            [.., last] if self.layers.len() > 1 => &scratch.buffers[1][..last.inputs()],
            _ => input,
        }
    }
}

fn read_layer(tensors: &SafeTensors<'_>, i: usize) -> Result<Layer, PolicyError> {
    let (weight, weight_shape) = read_tensor(tensors, &format!("layers.{i}.weight"))?;
    let (bias, bias_shape) = read_tensor(tensors, &format!("layers.{i}.bias"))?;
    match (weight_shape.as_slice(), bias_shape.as_slice()) {
        (&[outputs, inputs], &[biases]) if outputs == biases => Layer::new(inputs, weight, bias),
        _ => {
            let why = format!("layer {i} has shapes {weight_shape:?} and {bias_shape:?}, expected [out, in] and [out]");
            Err(PolicyError::Weights { why })
        }
    }
}

fn read_tensor(tensors: &SafeTensors<'_>, name: &str) -> Result<(Vec<f32>, Vec<usize>), PolicyError> {
    let tensor = tensors
        .tensor(name)
        .map_err(|_| PolicyError::Weights { why: format!("there is no tensor {name}, or an unknown one beside it") })?;
    if tensor.dtype() != Dtype::F32 {
        return Err(PolicyError::Weights { why: format!("{name} is {:?}, expected F32", tensor.dtype()) });
    }
    let (numbers, _) = tensor.data().as_chunks::<4>();
    Ok((numbers.iter().map(|b| f32::from_le_bytes(*b)).collect(), tensor.shape().to_vec()))
}

fn le_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// XOR by hand: h = relu(x0 + x1, x0 + x1 - 1), y = h0 - 2 h1 (Goodfellow, Bengio, Courville: Deep Learning,
    /// section 6.1, gives these weights and the four answers).
    fn xor() -> Mlp {
        let hidden = Layer::new(2, vec![1.0, 1.0, 1.0, 1.0], vec![0.0, -1.0]).unwrap();
        let output = Layer::new(2, vec![1.0, -2.0], vec![0.0]).unwrap();
        Mlp::new(vec![hidden, output]).unwrap()
    }

    #[test]
    fn the_textbook_network_computes_xor() {
        let mut scratch = MlpScratch::default();
        for (input, expected) in [([0., 0.], 0.), ([0., 1.], 1.), ([1., 0.], 1.), ([1., 1.], 0.)] {
            assert_eq!(xor().forward(&input, &mut scratch), [expected], "{input:?}");
        }
    }

    #[test]
    fn safetensors_round_trip_keeps_every_bit() {
        let bytes = xor().to_safetensors().unwrap();
        assert_eq!(Mlp::from_safetensors(&bytes).unwrap(), xor());
    }

    #[test]
    fn weights_that_do_not_fit_are_refused() {
        assert!(Layer::new(2, vec![1.0], vec![0.0]).is_err());
        assert!(Layer::new(1, vec![f32::NAN], vec![0.0]).is_err());
        let two = || Layer::new(2, vec![1.0, 1.0], vec![0.0]).unwrap();
        let error = Mlp::new(vec![two(), two()]).unwrap_err().to_string();
        assert!(error.contains("layer 0 gives 1 numbers but layer 1 takes 2"), "{error}");
        assert!(Mlp::new(vec![]).is_err());
    }

    #[test]
    fn truncated_or_foreign_tensors_are_refused() {
        let bytes = xor().to_safetensors().unwrap();
        assert!(Mlp::from_safetensors(&bytes[..bytes.len() - 1]).is_err());
        assert!(Mlp::from_safetensors(b"not tensors").is_err());
        let data = [0u8; 4];
        let stray = TensorView::new(Dtype::F32, vec![1], &data).unwrap();
        let one = safetensors::serialize(vec![("stray", stray)], None).unwrap();
        assert!(Mlp::from_safetensors(&one).is_err());
    }
}
