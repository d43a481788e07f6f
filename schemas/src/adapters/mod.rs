//! Records of other systems, turned into our contracts.

pub mod vllm_sr;
