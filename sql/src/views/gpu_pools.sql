-- A GPU is known by its number on its instance, so the same number on two instances is two GPUs.
-- Means and extremes over the samples of each pool; a sample of an engine has no GPU columns, and the other way round.
SELECT
  pool,
  count(DISTINCT concat(coalesce(instance, ''), chr(31), gpu)) FILTER (WHERE gpu IS NOT NULL) AS gpus,
  count(DISTINCT instance) AS instances,
  count(*) AS samples,
  avg("DCGM_FI_DEV_GPU_UTIL") AS gpu_util_mean_pct,
  avg("DCGM_FI_DEV_POWER_USAGE") AS power_mean_w,
  avg("DCGM_FI_DEV_FB_USED") AS memory_used_mean_mib,
  max("DCGM_FI_DEV_GPU_TEMP") AS gpu_temp_max_c,
  avg("vllm:num_requests_running") AS running_mean,
  avg("vllm:num_requests_waiting") AS waiting_mean,
  max("vllm:num_requests_waiting") AS waiting_max,
  avg("vllm:kv_cache_usage_perc") AS kv_cache_use_mean
FROM raw_gpu_telemetry
GROUP BY pool
