SELECT
  axis,
  value,
  sum(requests) AS requests,
  sum(requests) / CAST(sum(sum(requests)) OVER (PARTITION BY axis) AS DOUBLE) AS share,
  sum(prompt_tokens) / nullif(CAST(sum(requests) AS DOUBLE), 0) AS prompt_tokens_mean,
  sum(completion_tokens) / nullif(CAST(sum(requests) AS DOUBLE), 0) AS completion_tokens_mean
FROM axis_mix
WHERE value IS NOT NULL AND hour >= to_timestamp_millis({from_ms}) AND hour < to_timestamp_millis({to_ms})
GROUP BY axis, value
ORDER BY axis, requests DESC, value
