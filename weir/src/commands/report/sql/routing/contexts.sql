SELECT
  model,
  from_tokens,
  to_tokens,
  judged,
  success_rate,
  success_rate_low,
  success_rate_high,
  CASE WHEN is_effective THEN '' ELSE 'too much' END AS said
FROM effective_context
WHERE judged >= 20
ORDER BY model, from_tokens
LIMIT 60
