SELECT
  domain,
  system_prompt_hash,
  action,
  multiple,
  sessions,
  reached,
  tokens_after / nullif(CAST(tokens AS DOUBLE), 0) AS tokens_after_share,
  beyond_context,
  reached_judged,
  reached_good / nullif(CAST(reached_judged AS DOUBLE), 0) AS reached_good_share,
  good / nullif(CAST(judged AS DOUBLE), 0) AS good_share
FROM budget_trials
WHERE reached > 0
ORDER BY sum(tokens_after) OVER (PARTITION BY domain, system_prompt_hash) DESC, domain, system_prompt_hash, step
LIMIT 40
