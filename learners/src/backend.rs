//! Where training runs: the one place that names a burn backend.
//!
//! Training code is written against [`Train`]; the `cuda` feature swaps what stands behind it. Weights leave as
//! safetensors either way, and scoring needs neither.

use burn::backend::Autodiff;

/// The backend that computes.
#[cfg(not(feature = "cuda"))]
pub(crate) type Compute = burn::backend::Flex;
/// The backend that computes.
#[cfg(feature = "cuda")]
pub(crate) type Compute = burn::backend::Cuda;

/// The backend that computes and differentiates.
pub(crate) type Train = Autodiff<Compute>;

/// Where tensors live.
pub(crate) type Device = burn::tensor::Device<Train>;
