SELECT
  to_timestamp_millis(window_start_ms - (window_start_ms % {step_ms} + {step_ms}) % {step_ms}) AS moment,
  sum(requests) AS requests,
  sum(agent_requests) / nullif(CAST(sum(agent_requests) + sum(chat_requests) AS DOUBLE), 0) AS agent_share,
  sum(prompt_tokens_sum) / nullif(CAST(sum(prompt_tokens_count) AS DOUBLE), 0) AS prompt_tokens_mean,
  sum(completion_tokens_sum) / nullif(CAST(sum(completion_tokens_count) AS DOUBLE), 0) AS completion_tokens_mean
FROM workload_minute
WHERE window_start_ms >= {from_ms} AND window_start_ms < {to_ms}
GROUP BY moment
ORDER BY moment
