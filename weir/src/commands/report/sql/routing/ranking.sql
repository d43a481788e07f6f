SELECT
  domain,
  stage,
  place,
  tool,
  model,
  CASE WHEN is_authorised THEN 'yes' ELSE 'no' END AS allowed,
  success_rate,
  information_density,
  reward
FROM tool_ranking
WHERE place <= 5
ORDER BY domain, stage, place
LIMIT 60
