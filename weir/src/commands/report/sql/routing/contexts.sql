SELECT
  model,
  domain,
  from_tokens,
  to_tokens,
  judged,
  success_rate,
  success_rate_low,
  success_rate_high,
  CASE WHEN is_effective THEN '' ELSE 'too much' END AS said
FROM effective_context
WHERE judged >= 20
-- Those in which a length is too much, then those that were judged most.
ORDER BY effective_tokens IS NULL, sum(judged) OVER (PARTITION BY model, domain) DESC, model, domain, from_tokens
LIMIT 60
