-- In what state was the engine when a request arrived? One row a request whose pool or instance is known: the newest values that
-- its instance had told by then, each with its age. Engines and GPUs are scraped apart, so their values come from different
-- samples; several GPUs of an instance that tell at the same moment are one mean. NULL where nothing was told before.
WITH samples AS (
  SELECT
    pool,
    instance,
    event_ms AS at_ms,
    max("vllm:num_requests_running") AS running,
    max("vllm:num_requests_waiting") AS waiting,
    max("vllm:kv_cache_usage_perc") AS kv_cache_use,
    avg("DCGM_FI_DEV_GPU_UTIL") AS gpu_util_pct,
    avg("DCGM_FI_DEV_POWER_USAGE") AS power_w
  FROM raw_gpu_telemetry
  GROUP BY pool, instance, event_ms
),
moments AS (
  SELECT
    pool,
    instance,
    at_ms,
    0 AS is_request,
    CAST(NULL AS VARCHAR) AS tenant,
    CAST(NULL AS VARCHAR) AS request_id,
    running,
    waiting,
    kv_cache_use,
    gpu_util_pct,
    power_w,
    CASE WHEN running IS NOT NULL OR kv_cache_use IS NOT NULL THEN at_ms END AS engine_ms,
    CASE WHEN gpu_util_pct IS NOT NULL OR power_w IS NOT NULL THEN at_ms END AS gpu_ms
  FROM samples
  UNION ALL
  SELECT pool, instance, arrival_ms, 1, tenant, request_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL
  FROM requests
  WHERE pool IS NOT NULL OR instance IS NOT NULL
),
known AS (
  SELECT
    pool,
    instance,
    at_ms,
    is_request,
    tenant,
    request_id,
    last_value(running) IGNORE NULLS OVER told AS running,
    last_value(waiting) IGNORE NULLS OVER told AS waiting,
    last_value(kv_cache_use) IGNORE NULLS OVER told AS kv_cache_use,
    last_value(gpu_util_pct) IGNORE NULLS OVER told AS gpu_util_pct,
    last_value(power_w) IGNORE NULLS OVER told AS power_w,
    last_value(engine_ms) IGNORE NULLS OVER told AS engine_ms,
    last_value(gpu_ms) IGNORE NULLS OVER told AS gpu_ms
  FROM moments
  WINDOW told AS (
    PARTITION BY pool, instance
    ORDER BY at_ms, is_request
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
  )
)
SELECT
  tenant,
  request_id,
  at_ms AS arrival_ms,
  pool,
  instance,
  running,
  waiting,
  kv_cache_use,
  at_ms - engine_ms AS engine_age_ms,
  gpu_util_pct,
  power_w,
  at_ms - gpu_ms AS gpu_age_ms
FROM known
WHERE is_request = 1
