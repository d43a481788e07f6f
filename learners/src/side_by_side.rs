//! Two networks side by side, as one.

use weir_policy_runtime::Mlp;

use crate::error::{LearnError, Result};
use crate::network::{PlainLayer, runtime_network};

/// One network of both: the reward model's outputs, then the corrections. The corrections' network has one input more, and as many layers.
///
/// # Errors
/// When the two do not have as many layers.
pub(crate) fn joined(reward: &[PlainLayer], corrections: &[PlainLayer]) -> Result<Mlp> {
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

#[cfg(test)]
mod tests {
    use weir_policy_runtime::MlpScratch;

    use super::*;

    #[test]
    fn the_outputs_are_those_of_each() {
        let layer =
            |inputs, weight: &[f32], bias: &[f32]| PlainLayer { inputs, weight: weight.to_vec(), bias: bias.to_vec() };
        let above = [layer(2, &[1.0, 2.0, -1.0, 0.5], &[0.1, 0.2]), layer(2, &[1.0, -1.0], &[0.3])];
        let below = [layer(3, &[0.5, 0.0, 1.0], &[-0.1]), layer(1, &[2.0, 3.0], &[0.0, 1.0])];
        let both = joined(&above, &below).unwrap();
        let mut scratch = MlpScratch::default();
        let outputs = both.forward(&[1.0, 2.0, 3.0], &mut scratch).to_vec();
        let alone = runtime_network(&above).unwrap().forward(&[1.0, 2.0], &mut scratch).to_vec();
        let other = runtime_network(&below).unwrap().forward(&[1.0, 2.0, 3.0], &mut scratch).to_vec();
        assert_eq!(outputs, [alone, other].concat());
        assert!(joined(&above, &below[..1]).is_err());
    }
}
