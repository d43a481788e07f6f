//! One serving instance: a model on the GPUs that hold one copy of it.
//!
//! Time of one iteration with decoding sequences of `L_1..L_n` tokens in context and a prefill chunk of `c` tokens that
//! follows `q` tokens of history (roofline: the slower of reading memory and computing):
//!
//! ```text
//! memory  = w_ms + h_ms_per_sequence * (L_1 + ... + L_n) / calibration_tokens
//! compute = ((n + c) * 2 * parameters + attention_flops_per_pair * c * (q + c/2)) / (peak * mfu * gpus)
//! t       = max(memory, compute)
//! ```
//!
//! `w_ms` is the time to read the weights once, `h_ms_per_sequence` that to read one sequence's keys and values at
//! `calibration_tokens`. The unit is the *instance*: times, memory and batch are those of all its GPUs together, price
//! and power are per GPU.

use rand::Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

use crate::FleetError;

/// A number with where it comes from and how wrong it may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantity {
    /// The number, in the unit that its field's name ends with.
    pub value: f64,
    /// Where it was published or measured, or how it is computed.
    pub source: String,
    /// One standard deviation as a share of the value; the interval on the fleet draws from it.
    #[serde(default)]
    pub relative_error: f64,
}

/// How the engine admits a request to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvAdmission {
    /// Paged engines (vLLM, SGLang): a sequence holds the blocks of the tokens that it has.
    #[default]
    Accounted,
    /// Engines that set aside `max_model_tokens` for every sequence.
    Reserved,
}

/// One serving instance, as read from a TOML file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuProfile {
    /// Name of model, precision and GPUs.
    pub name: String,
    /// How the engine admits a request to memory.
    #[serde(default)]
    pub kv_admission: KvAdmission,
    /// GPUs that hold one copy of the model (tensor times pipeline parallelism).
    pub gpus_per_instance: Quantity,
    /// Iteration time of an empty batch, ms: the weights are read once.
    pub w_ms: Quantity,
    /// Added iteration time of one sequence with `calibration_tokens` in context, ms.
    pub h_ms_per_sequence: Quantity,
    /// Context length that `h_ms_per_sequence` refers to, tokens.
    pub calibration_tokens: Quantity,
    /// Prompt tokens that one iteration may compute, shared by all prompts in progress.
    pub chunk_tokens: Quantity,
    /// Tokens whose keys and values fit in the instance's memory.
    pub kv_tokens: Quantity,
    /// Tokens in a block of the paged cache; each sequence wastes half a block on average.
    pub block_tokens: Quantity,
    /// Sequences that the engine runs at once at most.
    pub max_num_seqs: Quantity,
    /// Longest prompt plus completion that the engine accepts, tokens.
    pub max_model_tokens: Quantity,
    /// Parameters used for one token (all of a dense model; the active experts of a mixture).
    pub parameters: Quantity,
    /// Attention FLOP for one (query, key) pair over all layers: 4 * layers * heads * head dimension.
    pub attention_flops_per_pair: Quantity,
    /// Peak dense tensor throughput of one GPU at the serving precision, TFLOP/s.
    pub peak_tflops_per_gpu: Quantity,
    /// Share of the peak that prefill reaches, 0 to 1.
    pub mfu: Quantity,
    /// Price of one GPU for one hour, USD.
    pub usd_per_gpu_hour: Quantity,
    /// Power of one idle GPU, W.
    pub idle_watts_per_gpu: Quantity,
    /// Power of one GPU with a large batch, W.
    pub nominal_watts_per_gpu: Quantity,
    /// Steepness of power against log2 of the batch.
    pub power_slope: Quantity,
    /// log2 of the batch at which power is half way between idle and nominal.
    pub power_midpoint_log2_batch: Quantity,
}

const BUILT_IN: [&str; 5] = [
    include_str!("../profiles/llama-3.1-70b-8xh100.toml"),
    include_str!("../profiles/llama-3.1-70b-8xa100.toml"),
    include_str!("../profiles/llama-3.1-8b-1xh100.toml"),
    include_str!("../profiles/llama-3.1-8b-1xl40s.toml"),
    include_str!("../profiles/qwen3-32b-2xh100.toml"),
];

impl GpuProfile {
    /// Reads and checks a profile. Errors name the field.
    pub fn from_toml(text: &str) -> Result<Self, FleetError> {
        let profile: Self = toml::from_str(text)?;
        profile.check()?;
        Ok(profile)
    }

    /// The profiles that come with Weir.
    pub fn built_in() -> Vec<Self> {
        BUILT_IN.iter().map(|text| Self::from_toml(text).expect("a test reads every built-in profile")).collect()
    }

    /// A built-in profile by name.
    pub fn named(name: &str) -> Result<Self, FleetError> {
        let profiles = Self::built_in();
        let known = profiles.iter().map(|profile| profile.name.as_str()).collect::<Vec<_>>().join(", ");
        profiles
            .into_iter()
            .find(|profile| profile.name == name)
            .ok_or_else(|| FleetError::UnknownProfile { name: name.to_owned(), known })
    }

    fn check(&self) -> Result<(), FleetError> {
        let fail = |why: String| Err(FleetError::Profile { name: self.name.clone(), why });
        let zero_allowed =
            ["h_ms_per_sequence", "parameters", "attention_flops_per_pair", "usd_per_gpu_hour", "power_slope"];
        for (field, quantity) in self.quantities() {
            let value = quantity.value;
            let signed = field == "power_midpoint_log2_batch";
            let in_range = signed || value > 0.0 || (value == 0.0 && zero_allowed.contains(&field));
            if !value.is_finite() || !in_range {
                return fail(format!("`{field}` is {value}; it must be a number above zero"));
            }
            if !(0.0..=1.0).contains(&quantity.relative_error) {
                return fail(format!("`{field}.relative_error` must lie between 0 and 1"));
            }
            if quantity.source.trim().is_empty() {
                return fail(format!("`{field}.source` is empty; say where the number comes from"));
            }
        }
        for (field, quantity) in self.quantities() {
            let whole = ["gpus_per_instance", "chunk_tokens", "kv_tokens", "block_tokens", "max_num_seqs"];
            if whole.contains(&field) && (quantity.value < 1.0 || quantity.value.fract() != 0.0) {
                return fail(format!("`{field}` is {}; it must be a whole number", quantity.value));
            }
        }
        if self.mfu.value > 1.0 {
            return fail(format!("`mfu` is {}; it is a share of the peak, at most 1", self.mfu.value));
        }
        if self.nominal_watts_per_gpu.value < self.idle_watts_per_gpu.value {
            return fail("`nominal_watts_per_gpu` is below `idle_watts_per_gpu`".into());
        }
        Ok(())
    }

    fn quantities(&self) -> [(&'static str, &Quantity); 18] {
        [
            ("gpus_per_instance", &self.gpus_per_instance),
            ("w_ms", &self.w_ms),
            ("h_ms_per_sequence", &self.h_ms_per_sequence),
            ("calibration_tokens", &self.calibration_tokens),
            ("chunk_tokens", &self.chunk_tokens),
            ("kv_tokens", &self.kv_tokens),
            ("block_tokens", &self.block_tokens),
            ("max_num_seqs", &self.max_num_seqs),
            ("max_model_tokens", &self.max_model_tokens),
            ("parameters", &self.parameters),
            ("attention_flops_per_pair", &self.attention_flops_per_pair),
            ("peak_tflops_per_gpu", &self.peak_tflops_per_gpu),
            ("mfu", &self.mfu),
            ("usd_per_gpu_hour", &self.usd_per_gpu_hour),
            ("idle_watts_per_gpu", &self.idle_watts_per_gpu),
            ("nominal_watts_per_gpu", &self.nominal_watts_per_gpu),
            ("power_slope", &self.power_slope),
            ("power_midpoint_log2_batch", &self.power_midpoint_log2_batch),
        ]
    }

    /// GPUs of one instance.
    pub fn gpus(&self) -> u32 {
        self.gpus_per_instance.value as u32
    }

    /// Memory time of one iteration, ms, with `sequences` that hold `mean_context_tokens` each.
    pub fn memory_ms(&self, sequences: f64, mean_context_tokens: f64) -> f64 {
        self.w_ms.value + self.memory_ms_per_token() * sequences * mean_context_tokens
    }

    pub(crate) fn memory_ms_per_token(&self) -> f64 {
        self.h_ms_per_sequence.value / self.calibration_tokens.value
    }

    fn flops_per_ms(&self) -> f64 {
        self.peak_tflops_per_gpu.value * 1e9 * self.mfu.value * self.gpus_per_instance.value
    }

    /// Compute time of one token's matrix products, ms.
    pub(crate) fn compute_ms_per_token(&self) -> f64 {
        2.0 * self.parameters.value / self.flops_per_ms()
    }

    pub(crate) fn compute_ms_per_pair(&self) -> f64 {
        self.attention_flops_per_pair.value / self.flops_per_ms()
    }

    /// Compute time of a chunk of `tokens` that follows `history` tokens of the same prompt, ms.
    pub fn chunk_compute_ms(&self, tokens: f64, history: f64) -> f64 {
        self.compute_ms_per_token() * tokens + self.compute_ms_per_pair() * tokens * (history + tokens / 2.0)
    }

    /// Sequences that fit when each has `context_tokens` set aside: whole blocks, and never above `max_num_seqs`.
    pub fn reserved_slots(&self, context_tokens: f64) -> f64 {
        let blocks = (self.kv_tokens.value / self.block_tokens.value).floor();
        let blocks_per_sequence = (context_tokens / self.block_tokens.value).ceil().max(1.0);
        (blocks / blocks_per_sequence).floor().min(self.max_num_seqs.value)
    }

    /// Longest request that can ever be served, tokens.
    pub(crate) fn longest_request_tokens(&self) -> f64 {
        self.max_model_tokens.value.min(self.kv_tokens.value - self.block_tokens.value)
    }

    /// The same profile with times, memory and efficiency drawn from their stated errors (log-normal).
    pub(crate) fn drawn(&self, rng: &mut impl Rng) -> Self {
        let mut profile = self.clone();
        for quantity in [&mut profile.w_ms, &mut profile.h_ms_per_sequence, &mut profile.kv_tokens, &mut profile.mfu] {
            let normal: f64 = rng.sample(StandardNormal);
            quantity.value *= (quantity.relative_error * normal).exp();
        }
        profile.mfu.value = profile.mfu.value.min(1.0);
        profile
    }
}
