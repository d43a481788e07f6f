//! How sure a network is of each action's quality: a Gaussian over its last layer.
//!
//! Last-layer Laplace approximation (Daxberger et al. 2021, arXiv 2106.14806): with the last layer's inputs `h` and a 1 for the bias, the
//! variance of action `a`'s logit is `hᵀ Σ_a h`. A network of one layer is linear in its inputs, and this is then the posterior of
//! linear Thompson sampling and LinUCB.
//!
//! Bytes are safetensors: `factor` of shape \[actions, m, m\], f32, where `factor[a]ᵀ factor[a] = Σ_a`; `m - 1` is the number of last-layer
//! inputs that are looked at, the first ones.

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::PolicyError;

/// Numbers of all factors at most: 64 MiB.
const MAX_NUMBERS: usize = 16 << 20;
const FACTOR: &str = "factor";

/// Factors of the covariances of every action's last-layer weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    actions: usize,
    width: usize,
    factors: Vec<f32>,
}

impl Posterior {
    /// Factors of shape \[actions, width, width\], row-major.
    ///
    /// # Errors
    /// When the shape does not fit, is empty or too large, or a number is not finite.
    pub fn new(actions: usize, width: usize, factors: Vec<f32>) -> Result<Self, PolicyError> {
        let bad = |why: String| Err(PolicyError::Posterior { why });
        let numbers = width.checked_mul(width).and_then(|square| square.checked_mul(actions));
        if actions == 0 || width < 2 || numbers != Some(factors.len()) {
            return bad(format!("{} numbers are not {actions} square factors {width} wide", factors.len()));
        }
        if factors.len() > MAX_NUMBERS {
            return bad(format!(
                "its {} numbers are more than {MAX_NUMBERS}: use hidden layers, or fewer features",
                factors.len()
            ));
        }
        if !factors.iter().all(|x| x.is_finite()) {
            return bad("a factor is not a finite number".to_owned());
        }
        Ok(Self { actions, width, factors })
    }

    /// Reads `factor`.
    ///
    /// # Errors
    /// When the bytes are not safetensors, or hold something else; as [`Posterior::new`].
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, PolicyError> {
        let bad = |why: String| PolicyError::Posterior { why };
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| bad(error.to_string()))?;
        let tensor = tensors.tensor(FACTOR).map_err(|error| bad(error.to_string()))?;
        let (Dtype::F32, [actions, width, other]) = (tensor.dtype(), tensor.shape()) else {
            return Err(bad(format!("{FACTOR} must be f32 of shape [actions, m, m]")));
        };
        if width != other || tensors.len() != 1 {
            return Err(bad(format!("there must be one tensor, {FACTOR} of shape [actions, m, m]")));
        }
        let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Self::new(*actions, *width, tensor.data().chunks_exact(4).map(number).collect())
    }

    /// Writes what [`Posterior::from_safetensors`] reads.
    ///
    /// # Errors
    /// When the safetensors library refuses the shape, which would be a fault of ours.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, PolicyError> {
        let bytes: Vec<u8> = self.factors.iter().flat_map(|x| x.to_le_bytes()).collect();
        TensorView::new(Dtype::F32, vec![self.actions, self.width, self.width], &bytes)
            .and_then(|view| safetensors::serialize([(FACTOR, view)], None))
            .map_err(|error| PolicyError::Posterior { why: error.to_string() })
    }

    /// Number of actions.
    #[must_use]
    pub fn actions(&self) -> usize {
        self.actions
    }

    /// Last-layer inputs that it looks at.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.width - 1
    }

    /// Factors of shape \[actions, m, m\], row-major, where m is [`Posterior::inputs`] and one more for the bias.
    #[must_use]
    pub fn factors(&self) -> &[f32] {
        &self.factors
    }

    /// Writes the standard deviation of every action's logit for the last layer's inputs `hidden`.
    ///
    /// # Panics
    /// When `hidden` has fewer than [`Posterior::inputs`] numbers, or `out` has not one place per action.
    pub fn logit_sds(&self, hidden: &[f32], out: &mut [f64]) {
        assert!(hidden.len() >= self.inputs() && out.len() == self.actions, "the posterior fits its network");
        let hidden = &hidden[..self.inputs()];
        for (factor, sd) in self.factors.chunks_exact(self.width * self.width).zip(out) {
            *sd = crate::dense::squared_norm(factor, hidden).sqrt();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variance_is_the_quadratic_form() {
        // Σ = FᵀF with F = [[1, 2], [0, 1]] is [[1, 2], [2, 5]]; h = (3, 1) gives 9 + 12 + 5 = 26.
        let posterior = Posterior::new(1, 2, vec![1.0, 2.0, 0.0, 1.0]).unwrap();
        let mut sd = [0.0];
        posterior.logit_sds(&[3.0, 99.0], &mut sd);
        assert!((sd[0] * sd[0] - 26.0).abs() < 1e-5, "{sd:?}");
    }

    #[test]
    fn bytes_come_back_and_broken_ones_are_refused() {
        let posterior = Posterior::new(2, 2, (0..8).map(|x| x as f32).collect()).unwrap();
        let bytes = posterior.to_safetensors().unwrap();
        assert_eq!(Posterior::from_safetensors(&bytes).unwrap(), posterior);
        assert!(Posterior::from_safetensors(&bytes[..bytes.len() - 1]).is_err());
        assert!(Posterior::new(2, 2, vec![0.0; 7]).is_err() && Posterior::new(1, 2, vec![f32::NAN; 4]).is_err());
        let error = Posterior::new(32, 783, vec![0.0; 32 * 783 * 783]).unwrap_err().to_string();
        assert!(error.contains("fewer features"), "{error}");
    }
}
