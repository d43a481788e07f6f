SELECT
  model,
  requests,
  ddsketch_quantile(prompt_tokens, 0.5) AS prompt_p50,
  ddsketch_quantile(prompt_tokens, 0.9) AS prompt_p90,
  ddsketch_quantile(prompt_tokens, 0.99) AS prompt_p99,
  ddsketch_quantile(completion_tokens, 0.5) AS completion_p50,
  ddsketch_quantile(completion_tokens, 0.9) AS completion_p90,
  ddsketch_quantile(completion_tokens, 0.99) AS completion_p99
FROM (
  SELECT
    model,
    sum(requests) AS requests,
    ddsketch_merge(prompt_tokens) AS prompt_tokens,
    ddsketch_merge(completion_tokens) AS completion_tokens
  FROM workload_sketch
  WHERE window_start_ms >= {from_ms} AND window_start_ms < {to_ms}
  GROUP BY model
)
ORDER BY requests DESC, model
