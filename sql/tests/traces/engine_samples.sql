-- What each engine wrote of itself every ten seconds. Swapped requests wait too.
SELECT
  CAST(log_time AS BIGINT) / 1000 AS event_ms,
  run AS pool,
  pod AS instance,
  CAST(num_requests_running AS DOUBLE) AS "vllm:num_requests_running",
  CAST(num_requests_waiting + num_requests_swapped AS DOUBLE) AS "vllm:num_requests_waiting",
  gpu_cache_usage_pct / 100 AS "vllm:kv_cache_usage_perc"
FROM vllm_engine_log
ORDER BY event_ms
