SELECT
  model,
  sum(requests) AS requests,
  sum(requests) / CAST(sum(sum(requests)) OVER () AS DOUBLE) AS share,
  sum(errors) / nullif(CAST(sum(outcome_reported_requests) AS DOUBLE), 0) AS error_share,
  sum(fallback_requests) / nullif(CAST(sum(fallback_reported_requests) AS DOUBLE), 0) AS fallback_share,
  CAST(sum(cost_nanousd_sum) AS DOUBLE) / 1e9 AS cost_usd,
  CAST(sum(cost_nanousd_sum) AS DOUBLE) / 1e9 / nullif(sum(cost_nanousd_count), 0) * 1000 AS cost_usd_per_1000
FROM workload_minute
WHERE window_start_ms >= {from_ms} AND window_start_ms < {to_ms}
GROUP BY model
ORDER BY requests DESC, model
