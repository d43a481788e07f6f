-- The decisions of training_set.sql with what can go wrong: did a check find a hallucination in the answer, and was the request blocked
-- or called unsafe? NULL where nothing that could tell was reported.
SELECT
  decisions.*,
  CAST(CAST(outcomes.hallucination AS INT) AS DOUBLE) AS hallucination,
  CAST(CAST(outcomes.safety AS INT) AS DOUBLE) AS is_unsafe
FROM decisions
LEFT JOIN request_outcomes AS outcomes
  ON outcomes.request_id = decisions.request_id AND (outcomes.tenant IS NOT DISTINCT FROM decisions.tenant)
ORDER BY decisions.arrival_ms, decisions.request_id
