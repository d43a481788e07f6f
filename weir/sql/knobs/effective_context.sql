SELECT
  model,
  domain,
  CAST(from_tokens AS VARCHAR) AS from_tokens,
  success_rate,
  success_rate_low,
  success_rate_high,
  effective_tokens,
  judged AS evidence
FROM effective_context
