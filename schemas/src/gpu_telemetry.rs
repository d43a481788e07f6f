//! `gpu_telemetry`: samples of GPUs and of the engines on them, under the exporters' own names.

use std::collections::BTreeMap;

use crate::contract::contract;
use crate::units::EventTimeMs;

contract! {
    /// One sample of one GPU or one engine. Fields carry DCGM's and vLLM's names as they are. DCGM's blank
    /// values (9223372036854775794 for "not supported", and its neighbours) become null; other numbers that the unit
    /// rules out are refused.
    GpuTelemetry = "gpu_telemetry", time = "event_ms",
    pseudonymised = [], text = [];
    required {
        event_ms: EventTimeMs = Int64, "ms since the Unix epoch", "When the sample was taken.";
    }
    optional {
        pool: String = Text, "name", "GPU pool.";
        instance: String = Text, "name", "Engine instance.";
        gpu: String = Text, "UUID or index", "The GPU; null for an engine-wide sample.";
        gpu_model: String = Text, "name", "Model of the GPU.";
        model: String = Text, "name", "Model that the engine serves.";
        dcgm_fi_dev_gpu_util ("DCGM_FI_DEV_GPU_UTIL"): f64 = Float64, "%", "GPU utilisation.";
        dcgm_fi_dev_mem_copy_util ("DCGM_FI_DEV_MEM_COPY_UTIL"): f64 = Float64, "%", "Memory utilisation.";
        dcgm_fi_dev_fb_used ("DCGM_FI_DEV_FB_USED"): f64 = Float64, "MiB", "Frame buffer in use.";
        dcgm_fi_dev_fb_free ("DCGM_FI_DEV_FB_FREE"): f64 = Float64, "MiB", "Frame buffer free.";
        dcgm_fi_dev_power_usage ("DCGM_FI_DEV_POWER_USAGE"): f64 = Float64, "W", "Power draw.";
        dcgm_fi_dev_total_energy_consumption ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"): f64 = Float64, "mJ, counter", "Energy since the driver loaded.";
        dcgm_fi_dev_gpu_temp ("DCGM_FI_DEV_GPU_TEMP"): f64 = Float64, "degC", "GPU temperature.";
        dcgm_fi_dev_memory_temp ("DCGM_FI_DEV_MEMORY_TEMP"): f64 = Float64, "degC", "Memory temperature.";
        dcgm_fi_dev_sm_clock ("DCGM_FI_DEV_SM_CLOCK"): f64 = Float64, "MHz", "SM clock.";
        dcgm_fi_dev_mem_clock ("DCGM_FI_DEV_MEM_CLOCK"): f64 = Float64, "MHz", "Memory clock.";
        dcgm_fi_prof_gr_engine_active ("DCGM_FI_PROF_GR_ENGINE_ACTIVE"): f64 = Float64, "0..1", "Share of time the graphics engine was active.";
        dcgm_fi_prof_sm_active ("DCGM_FI_PROF_SM_ACTIVE"): f64 = Float64, "0..1", "Share of time an SM had a warp.";
        dcgm_fi_prof_pipe_tensor_active ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"): f64 = Float64, "0..1", "Share of time the tensor pipe was active.";
        dcgm_fi_prof_dram_active ("DCGM_FI_PROF_DRAM_ACTIVE"): f64 = Float64, "0..1", "Share of time DRAM was active.";
        vllm_num_requests_running ("vllm:num_requests_running"): f64 = Float64, "requests", "Requests in the running batch.";
        vllm_num_requests_waiting ("vllm:num_requests_waiting"): f64 = Float64, "requests", "Requests in the queue.";
        vllm_kv_cache_usage_perc ("vllm:kv_cache_usage_perc"): f64 = Float64, "0..1", "KV-cache use.";
        vllm_prefix_cache_queries_total ("vllm:prefix_cache_queries_total"): f64 = Float64, "tokens, counter", "Prefix-cache queries.";
        vllm_prefix_cache_hits_total ("vllm:prefix_cache_hits_total"): f64 = Float64, "tokens, counter", "Prefix-cache hits.";
        vllm_prompt_tokens_total ("vllm:prompt_tokens_total"): f64 = Float64, "tokens, counter", "Prefilled tokens.";
        vllm_generation_tokens_total ("vllm:generation_tokens_total"): f64 = Float64, "tokens, counter", "Generated tokens.";
        vllm_num_preemptions_total ("vllm:num_preemptions_total"): f64 = Float64, "count, counter", "Preemptions.";
        vllm_request_success_total ("vllm:request_success_total"): f64 = Float64, "requests, counter", "Requests finished.";
        extra: BTreeMap<String, String> = TextMap, "JSON text, headers as they are", "Unknown fields and headers (`header.NAME`) whose names the operator allowed.";
    }
}
