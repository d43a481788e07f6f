-- Counts, means and costs are exact; quantiles are within 1 %.
SELECT
  counts.model,
  counts.requests,
  counts.requests / sum(CAST(counts.requests AS DOUBLE)) OVER () AS traffic_share,
  counts.errors / nullif(CAST(counts.outcome_reported_requests AS DOUBLE), 0) AS error_share,
  counts.prompt_tokens_sum / nullif(CAST(counts.prompt_tokens_count AS DOUBLE), 0) AS prompt_tokens_mean,
  counts.completion_tokens_sum / nullif(CAST(counts.completion_tokens_count AS DOUBLE), 0) AS completion_tokens_mean,
  latency.ttft_p50_ms,
  latency.ttft_p99_ms,
  latency.tpot_p50_ms,
  cost.total_usd,
  cost.usd_per_request
FROM (
  SELECT
    model,
    sum(requests) AS requests,
    sum(errors) AS errors,
    sum(outcome_reported_requests) AS outcome_reported_requests,
    sum(prompt_tokens_sum) AS prompt_tokens_sum,
    sum(prompt_tokens_count) AS prompt_tokens_count,
    sum(completion_tokens_sum) AS completion_tokens_sum,
    sum(completion_tokens_count) AS completion_tokens_count
  FROM workload_minute
  GROUP BY model
) AS counts
LEFT JOIN latency ON latency.model IS NOT DISTINCT FROM counts.model
LEFT JOIN cost ON cost.model IS NOT DISTINCT FROM counts.model
