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

    /// Energy that one request takes of an instance that decodes `sequences` at once, Wh: its share of each iteration's energy for every
    /// completion token, and the time that its prompt is computed for, all GPUs at that batch's power.
    ///
    /// Per watt this is the 1/W law: `sequences / (iteration time · power)` tokens a second and watt.
    pub fn request_wh(&self, prompt_tokens: f64, completion_tokens: f64, sequences: f64) -> f64 {
        const MS_PER_HOUR: f64 = 3_600_000.0;
        let sequences = sequences.max(1.0);
        // A sequence holds its prompt and, on average, half of its completion.
        let context = prompt_tokens + completion_tokens / 2.0;
        let iteration_ms = self.memory_ms(sequences, context).max(self.compute_ms_per_token() * sequences);
        let watts = self.watts_per_gpu(sequences) * self.gpus_per_instance.value;
        let decode_ms = completion_tokens * iteration_ms / sequences;
        watts * (decode_ms + self.chunk_compute_ms(prompt_tokens, 0.0)) / MS_PER_HOUR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand from the profile's own figures: what a token takes is the inverse of the 1/W law's tokens a joule.
    #[test]
    fn a_requests_energy_is_its_tokens_over_the_tokens_a_joule() {
        for profile in GpuProfile::built_in() {
            for (sequences, context) in [(16.0, 8_000.0), (1.0, 1_000.0), (64.0, 2_000.0)] {
                let iteration_s =
                    profile.memory_ms(sequences, context).max(profile.compute_ms_per_token() * sequences) / 1e3;
                let watts = profile.watts_per_gpu(sequences) * f64::from(profile.gpus());
                let tokens_per_joule = sequences / iteration_s / watts;
                // Two tokens, the prompt's own computation left out.
                let found = profile.request_wh(context - 1.0, 2.0, sequences)
                    - profile.request_wh(context - 1.0, 0.0, sequences);
                assert!((found * 3600.0 * tokens_per_joule / 2.0 - 1.0).abs() < 1e-9, "{}: {found}", profile.name);
            }
            // Sharing an iteration is what saves energy.
            assert!(profile.request_wh(500.0, 300.0, 32.0) < profile.request_wh(500.0, 300.0, 1.0));
        }
    }
}
