SELECT
  domain,
  system_prompt_hash,
  sessions,
  stopped,
  tokens_saved / nullif(CAST(tokens AS DOUBLE), 0) AS saved_share,
  stopped_judged,
  stopped_good / nullif(CAST(stopped_judged AS DOUBLE), 0) AS stopped_good_share,
  good / nullif(CAST(judged AS DOUBLE), 0) AS good_share
FROM budget_trials
WHERE stopped > 0
ORDER BY tokens_saved DESC, domain, system_prompt_hash
LIMIT 40
