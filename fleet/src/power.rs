//! Power of one GPU as a logistic curve in log2 of the batch, between idle and nominal.
//!
//! ```text
//! P(b) = idle + (nominal - idle) / (1 + exp(-slope * (log2 b - midpoint)))
//! ```
//!
//! The shape is that of "GPU-to-Grid" (arXiv 2602.05116), fitted there to ML.ENERGY measurements.

use crate::GpuProfile;

impl GpuProfile {
    /// Power of one GPU, W, while its instance runs `batch` sequences; an empty one idles.
    pub fn watts_per_gpu(&self, batch: f64) -> f64 {
        let idle = self.idle_watts_per_gpu.value;
        let range = self.nominal_watts_per_gpu.value - idle;
        let exponent = -self.power_slope.value * (batch.max(1.0).log2() - self.power_midpoint_log2_batch.value);
        // Below one sequence on average, the GPU idles for the rest of the time.
        idle + batch.clamp(0.0, 1.0) * range / (1.0 + exponent.exp())
    }
}
