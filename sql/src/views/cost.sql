-- Dollars from whole nano-dollars. Per-token prices are over the requests of models that report both; NULL otherwise.
SELECT
  model,
  sum(requests) AS requests,
  sum(cost_nanousd_count) AS priced_requests,
  sum(cost_nanousd_sum) / 1e9 AS total_usd,
  sum(cost_nanousd_sum) / nullif(CAST(sum(cost_nanousd_count) AS DOUBLE), 0) / 1e9 AS usd_per_request,
  CASE
    WHEN sum(cost_nanousd_count) = sum(requests) AND sum(tokens_reported_requests) = sum(requests)
    THEN sum(cost_nanousd_sum) / nullif(CAST(sum(prompt_tokens_sum) + sum(completion_tokens_sum) AS DOUBLE), 0) / 1e3
  END AS usd_per_mtok
FROM workload_minute
GROUP BY model
