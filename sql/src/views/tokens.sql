-- Token counts per model and domain; quantiles are nearest-rank, within 1 %.
-- Sums and counts inside the sketches are whole numbers, so means are exact.
SELECT
  model,
  domain,
  requests,
  coalesce(ddsketch_count(prompt_tokens), 0) AS prompt_count,
  ddsketch_sum(prompt_tokens) AS prompt_sum,
  ddsketch_mean(prompt_tokens) AS prompt_mean,
  ddsketch_quantile(prompt_tokens, 0.5) AS prompt_p50,
  ddsketch_quantile(prompt_tokens, 0.9) AS prompt_p90,
  ddsketch_quantile(prompt_tokens, 0.99) AS prompt_p99,
  coalesce(ddsketch_count(completion_tokens), 0) AS completion_count,
  ddsketch_sum(completion_tokens) AS completion_sum,
  ddsketch_mean(completion_tokens) AS completion_mean,
  ddsketch_quantile(completion_tokens, 0.5) AS completion_p50,
  ddsketch_quantile(completion_tokens, 0.9) AS completion_p90,
  ddsketch_quantile(completion_tokens, 0.99) AS completion_p99
FROM (
  SELECT
    model,
    domain,
    sum(requests) AS requests,
    ddsketch_merge(prompt_tokens) AS prompt_tokens,
    ddsketch_merge(completion_tokens) AS completion_tokens
  FROM token_sketch
  GROUP BY model, domain
)
