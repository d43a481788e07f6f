-- One quality per request, 0 to 1: the mean of the opinions of the best source that has any.
-- Sources, best first:
--   1 evaluation without an estimator: scored against a known answer
--   2 user, agent, operator: whoever used the response, or runs the application that did
--   3 judge: a model that was asked; and follow-ups, what a router's classifier made of the user's next words
--   4 evaluation by an estimator: a prediction of ours
--   5 router, and any other source
-- Opinions without a value, withdrawn ones, pairwise ones (they rate two models), approvals of tool calls and security events
-- (they rate no answer), ones about a session, and checks that did not run do not count: an evaluation must say that it
-- checked, any other source must not say that it did not.
--
-- Which request an opinion is about, `request_opinions` says. A request is (tenant, request_id), with NULL a tenant of its
-- own: join on `tenant IS NOT DISTINCT FROM` and `request_id`.
SELECT
  tenant,
  request_id,
  min(source_rank) AS source_rank,
  avg(value) FILTER (WHERE source_rank = best_rank) AS quality,
  count(*) FILTER (WHERE source_rank = best_rank) AS opinions,
  max(event_ms) FILTER (WHERE source_rank = best_rank) AS last_event_ms
FROM (
  SELECT *, min(source_rank) OVER (PARTITION BY tenant, request_id) AS best_rank
  FROM (
    SELECT
      tenant, request_id, value, event_ms,
      CASE
        WHEN source = 'evaluation' AND estimator IS NULL THEN 1
        WHEN source IN ('user', 'agent', 'operator') THEN 2
        WHEN source = 'judge' OR kind = 'follow_up' THEN 3
        WHEN source = 'evaluation' THEN 4
        ELSE 5
      END AS source_rank
    FROM request_opinions
    WHERE value BETWEEN 0 AND 1
      AND kind NOT IN ('pairwise', 'approval', 'security_event')
      AND (checked OR (checked IS NULL AND source <> 'evaluation'))
  )
)
GROUP BY tenant, request_id
