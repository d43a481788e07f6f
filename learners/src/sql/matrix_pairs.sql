-- Two models on the same queries: id, text, subject, benchmark, and both scores.
SELECT
  query_id,
  query,
  coalesce(subject, benchmark) AS domain,
  benchmark,
  CAST(weak_score AS DOUBLE) AS weak_score,
  CAST(strong_score AS DOUBLE) AS strong_score,
  weak_model,
  strong_model
FROM pairs
WHERE query IS NOT NULL AND weak_score IS NOT NULL AND strong_score IS NOT NULL
ORDER BY query_id
