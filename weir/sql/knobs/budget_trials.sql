SELECT
  domain,
  system_prompt_hash,
  action,
  multiple,
  reached,
  tokens_after / nullif(CAST(tokens AS DOUBLE), 0) AS tokens_after_share,
  reached_good / nullif(CAST(reached_judged AS DOUBLE), 0) AS reached_good_share,
  good / nullif(CAST(judged AS DOUBLE), 0) AS good_share,
  sessions AS evidence
FROM budget_trials
WHERE sessions >= 20
