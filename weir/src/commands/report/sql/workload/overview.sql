SELECT
  coalesce(sum(requests), 0) AS requests,
  count(DISTINCT model) AS models,
  count(DISTINCT tenant) AS tenants,
  sum(prompt_tokens_sum) AS prompt_tokens,
  sum(cached_prompt_tokens) / nullif(CAST(sum(cache_reported_prompt_tokens) AS DOUBLE), 0) AS cached_prompt_share,
  sum(completion_tokens_sum) AS completion_tokens,
  sum(errors) / nullif(CAST(sum(outcome_reported_requests) AS DOUBLE), 0) AS error_share,
  CAST(sum(cost_nanousd_sum) AS DOUBLE) / 1e9 AS cost_usd
FROM workload_minute
WHERE window_start_ms >= {from_ms} AND window_start_ms < {to_ms}
