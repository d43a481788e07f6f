SELECT
  domain,
  system_prompt_hash,
  CAST(place AS VARCHAR) AS place,
  tokens_p50,
  tokens_p90,
  tokens_p99,
  trigger_tokens,
  sessions AS evidence
FROM token_budgets
WHERE sessions >= 20
