-- The busiest instances. Rates are those of the last window in which they are known.
SELECT
  coalesce(pool, '-') AS pool,
  coalesce(instance, 'all') AS instance,
  model,
  sum(requests) AS requests,
  avg(in_flight_mean) AS in_flight_mean,
  max(in_flight_max) AS in_flight_max,
  avg(engine_in_flight_mean) AS engine_in_flight_mean,
  max(engine_kv_cache_use_max) AS kv_cache_use_max,
  last_value(prefill_tokens_per_s ORDER BY window_start) FILTER (WHERE prefill_tokens_per_s IS NOT NULL) AS prefill,
  last_value(prefill_tokens_per_s_low ORDER BY window_start) FILTER (WHERE prefill_tokens_per_s IS NOT NULL) AS prefill_low,
  last_value(prefill_tokens_per_s_high ORDER BY window_start) FILTER (WHERE prefill_tokens_per_s IS NOT NULL)
    AS prefill_high,
  last_value(decode_tokens_per_s ORDER BY window_start) FILTER (WHERE decode_tokens_per_s IS NOT NULL) AS decode
FROM pool_state
WHERE window_start >= to_timestamp_millis({from_ms}) AND window_start < to_timestamp_millis({to_ms})
GROUP BY pool, instance, model
ORDER BY requests DESC, pool, instance, model
LIMIT 40
