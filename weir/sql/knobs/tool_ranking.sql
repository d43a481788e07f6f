SELECT
  domain,
  stage,
  tool,
  model,
  place,
  CAST(is_authorised AS INT) AS is_authorised,
  reward,
  success_rate_low,
  success_rate_high,
  information_density,
  known AS evidence
FROM tool_ranking
WHERE known > 0
