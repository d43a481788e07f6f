-- The decisions of training_set.sql with the risk of each answer: 1 where a check found a hallucination or the answer was unsafe, 0
-- where a check found none. An answer that nobody checked has no risk that is known.
SELECT
  decisions.*,
  CASE
    WHEN outcomes.hallucination IS NULL THEN NULL
    WHEN outcomes.hallucination OR coalesce(outcomes.safety, FALSE) THEN 1.0
    ELSE 0.0
  END AS risk
FROM decisions
LEFT JOIN request_outcomes AS outcomes
  ON outcomes.request_id = decisions.request_id AND (outcomes.tenant IS NOT DISTINCT FROM decisions.tenant)
ORDER BY decisions.arrival_ms, decisions.request_id
