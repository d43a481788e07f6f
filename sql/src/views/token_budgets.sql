-- How many tokens has a session used by its n-th request? One row for each domain, system prompt and place up to 50, over the
-- sessions that got that far: prompts and completions of all requests so far. `trigger_tokens` is three times the median: who
-- is above it spends like few others. `failed_share` is the share of tokens that went into requests that failed.
SELECT
  domain,
  system_prompt_hash,
  place,
  count(*) AS sessions,
  ddsketch_quantile(ddsketch(tokens_so_far), 0.5) AS tokens_p50,
  ddsketch_quantile(ddsketch(tokens_so_far), 0.9) AS tokens_p90,
  ddsketch_quantile(ddsketch(tokens_so_far), 0.99) AS tokens_p99,
  3 * ddsketch_quantile(ddsketch(tokens_so_far), 0.5) AS trigger_tokens,
  sum(failed_so_far) / nullif(CAST(sum(tokens_so_far) AS DOUBLE), 0) AS failed_share
FROM session_tokens
WHERE place <= 50
GROUP BY domain, system_prompt_hash, place
