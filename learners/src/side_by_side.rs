//! Two networks side by side, as one.

use weir_policy_runtime::{Layer, Mlp};

use crate::error::{LearnError, Result};

/// One network with the outputs of both, the first's before the second's. Both get the same input; the second may look at more of it, at its
/// end.
///
/// # Errors
/// [`LearnError::Artefact`] when the two have not as many layers, or the first looks at more.
pub(crate) fn side_by_side(first: &Mlp, second: &Mlp) -> Result<Mlp> {
    let unusable = |error: weir_policy_runtime::PolicyError| LearnError::Artefact(error.to_string());
    if first.layers().len() != second.layers().len() || first.inputs() > second.inputs() {
        return Err(LearnError::Artefact("two networks of these shapes cannot be put into one".to_owned()));
    }
    let layers = first.layers().iter().zip(second.layers()).enumerate().map(|(depth, (above, below))| {
        // The first layer's inputs are shared; later ones stand side by side, and what the other would add is 0.
        let inputs = if depth == 0 { below.inputs() } else { above.inputs() + below.inputs() };
        let mut weight = Vec::with_capacity(inputs * (above.outputs() + below.outputs()));
        for row in above.weight().chunks_exact(above.inputs()) {
            weight.extend_from_slice(row);
            weight.resize(weight.len() + inputs - above.inputs(), 0.0);
        }
        for row in below.weight().chunks_exact(below.inputs()) {
            weight.resize(weight.len() + inputs - below.inputs(), 0.0);
            weight.extend_from_slice(row);
        }
        Layer::new(inputs, weight, [above.bias(), below.bias()].concat()).map_err(unusable)
    });
    Mlp::new(layers.collect::<Result<Vec<_>>>()?).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use weir_policy_runtime::MlpScratch;

    use super::*;

    #[test]
    fn the_outputs_are_those_of_each() {
        let layer = |inputs, weight: &[f32], bias: &[f32]| Layer::new(inputs, weight.to_vec(), bias.to_vec()).unwrap();
        let network = |layers: &[Layer]| Mlp::new(layers.to_vec()).unwrap();
        let above = network(&[layer(2, &[1.0, 2.0, -1.0, 0.5], &[0.1, 0.2]), layer(2, &[1.0, -1.0], &[0.3])]);
        let below = network(&[layer(3, &[0.5, 0.0, 1.0], &[-0.1]), layer(1, &[2.0, 3.0], &[0.0, 1.0])]);
        let both = side_by_side(&above, &below).unwrap();
        let mut scratch = MlpScratch::default();
        let outputs = both.forward(&[1.0, 2.0, 3.0], &mut scratch).to_vec();
        let alone = above.forward(&[1.0, 2.0], &mut scratch).to_vec();
        let other = below.forward(&[1.0, 2.0, 3.0], &mut scratch).to_vec();
        assert_eq!(outputs, [alone, other].concat());
        assert!(side_by_side(&below, &above).is_err() && side_by_side(&above, &network(&below.layers()[..1])).is_err());
    }
}
