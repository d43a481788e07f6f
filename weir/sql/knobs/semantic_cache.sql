SELECT
  domain,
  CAST(threshold AS VARCHAR) AS threshold,
  bad_rate,
  bad_rate_low,
  bad_rate_high,
  judged AS evidence
FROM semantic_cache
WHERE judged > 0
