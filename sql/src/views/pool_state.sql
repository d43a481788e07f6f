-- What state is each instance in? One row for each instance, model and ten minutes, from requests alone; beside it what its
-- engine says of itself, where it is scraped. Requests that name a pool but no instance are of the pool as a whole, and stand
-- beside what all of its engines say.
--
-- `in_flight_*` counts requests that had been dispatched and were not done; one without a duration counts for none. The
-- prefill rate is that of a line through (prompt tokens not cached, time to first token), by Theil's and Sen's estimator,
-- which a few queued requests do not bend: its slope is the time for a token, its intercept what comes before the first.
-- Rates are NULL while an instance is cold: fewer than 30 requests in the window that tell both, or an interval of the slope
-- that holds zero. `prefill_tokens_per_s_low` and `_high` are the interval of 95 %. The decode rate is that of one request.
WITH served AS (
  SELECT
    pool,
    instance,
    model,
    arrival_ms,
    arrival_ms - (arrival_ms % 600000 + 600000) % 600000 AS window_start_ms,
    CASE WHEN e2e_us IS NOT NULL THEN arrival_ms + e2e_us / 1000 END AS end_ms,
    CAST(greatest(prompt_tokens - coalesce(cached_prompt_tokens, 0), 0) AS DOUBLE) AS uncached_tokens,
    ttft_us / 1e3 AS ttft_ms,
    tpot_us,
    completion_tokens
  FROM requests
  WHERE pool IS NOT NULL OR instance IS NOT NULL
),
moves AS (
  SELECT pool, instance, model, arrival_ms AS at_ms, 1 AS move FROM served WHERE end_ms IS NOT NULL
  UNION ALL
  SELECT pool, instance, model, end_ms, -1 FROM served WHERE end_ms IS NOT NULL
),
-- Time-weighted: each count holds until the next move.
levels AS (
  SELECT
    pool,
    instance,
    model,
    at_ms,
    at_ms - (at_ms % 600000 + 600000) % 600000 AS window_start_ms,
    lead(at_ms) OVER in_time - at_ms AS holds_ms,
    sum(move) OVER in_time AS in_flight
  FROM moves
  WINDOW in_time AS (PARTITION BY pool, instance, model ORDER BY at_ms, move ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
),
depths AS (
  SELECT
    pool,
    instance,
    model,
    window_start_ms,
    sum(in_flight * CAST(holds_ms AS DOUBLE)) / nullif(sum(holds_ms), 0) AS in_flight_mean,
    max(in_flight) AS in_flight_max
  FROM levels
  GROUP BY pool, instance, model, window_start_ms
),
fitted AS (
  SELECT
    pool,
    instance,
    model,
    window_start_ms,
    count(*) AS requests,
    robust_line(uncached_tokens, ttft_ms) AS line,
    ddsketch(tpot_us) AS tpot_us
  FROM served
  GROUP BY pool, instance, model, window_start_ms
),
sampled AS (
  SELECT
    pool,
    instance,
    event_ms - (event_ms % 600000 + 600000) % 600000 AS window_start_ms,
    count(*) AS samples,
    avg("vllm:num_requests_running" + coalesce("vllm:num_requests_waiting", 0)) AS in_flight_mean,
    max("vllm:num_requests_waiting") AS waiting_max,
    max("vllm:kv_cache_usage_perc") AS kv_cache_use_max
  FROM raw_gpu_telemetry
  WHERE "vllm:num_requests_running" IS NOT NULL OR "vllm:kv_cache_usage_perc" IS NOT NULL
  GROUP BY 1, 2, 3
),
engines AS (
  SELECT pool, instance, window_start_ms, in_flight_mean, waiting_max, kv_cache_use_max
  FROM sampled
  WHERE instance IS NOT NULL
  UNION ALL
  -- The whole pool, for requests that name no instance. An engine that came late or left early has fewer samples: it counts
  -- for the share of the window that it was there.
  SELECT
    pool,
    NULL,
    window_start_ms,
    sum(in_flight_mean * samples / CAST(most_samples AS DOUBLE)),
    max(waiting_max),
    max(kv_cache_use_max)
  FROM (SELECT *, max(samples) OVER (PARTITION BY pool, window_start_ms) AS most_samples FROM sampled)
  GROUP BY pool, window_start_ms
)
SELECT
  fitted.pool,
  fitted.instance,
  fitted.model,
  to_timestamp_millis(fitted.window_start_ms) AS window_start,
  requests,
  depths.in_flight_mean,
  depths.in_flight_max,
  CASE WHEN line['points'] >= 30 AND line['slope_low'] > 0 THEN 1000 / line['slope'] END AS prefill_tokens_per_s,
  CASE WHEN line['points'] >= 30 AND line['slope_low'] > 0 THEN 1000 / line['slope_high'] END AS prefill_tokens_per_s_low,
  CASE WHEN line['points'] >= 30 AND line['slope_low'] > 0 THEN 1000 / line['slope_low'] END AS prefill_tokens_per_s_high,
  CASE WHEN line['points'] >= 30 AND line['slope_low'] > 0 THEN line['intercept'] END AS ttft_base_ms,
  CASE WHEN ddsketch_count(tpot_us) >= 30 THEN 1e6 / nullif(ddsketch_quantile(tpot_us, 0.5), 0) END AS decode_tokens_per_s,
  engines.in_flight_mean AS engine_in_flight_mean,
  engines.waiting_max AS engine_waiting_max,
  engines.kv_cache_use_max AS engine_kv_cache_use_max
FROM fitted
LEFT JOIN depths
  ON depths.window_start_ms = fitted.window_start_ms
  AND (depths.pool IS NOT DISTINCT FROM fitted.pool)
  AND (depths.instance IS NOT DISTINCT FROM fitted.instance)
  AND (depths.model IS NOT DISTINCT FROM fitted.model)
LEFT JOIN engines
  ON engines.window_start_ms = fitted.window_start_ms
  AND (engines.pool IS NOT DISTINCT FROM fitted.pool)
  AND (engines.instance IS NOT DISTINCT FROM fitted.instance)
