-- One quality per request, 0 to 1: the mean of the opinions of the best source that has any.
-- Sources, best first:
--   1 evaluation without an estimator: scored against a known answer
--   2 user, agent, operator: whoever used the response, or runs the application that did
--   3 judge: a model that was asked
--   4 evaluation by an estimator: a prediction of ours
--   5 router, and any other source
-- Opinions without a value, withdrawn ones, pairwise ones (they rate two models), ones about a session, and checks that
-- did not run do not count: an evaluation must say that it checked, any other source must not say that it did not.
--
-- Request ids are unique for a tenant only. An opinion that names a tenant counts for that tenant's request; one that
-- names none counts for every request of that id. So a request is (tenant, request_id), with NULL a tenant of its own:
-- join on `tenant IS NOT DISTINCT FROM` and `request_id`. An opinion whose request has not come yet waits for it.
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
      judged.tenant, judged.request_id, opinions.value, opinions.event_ms,
      CASE
        WHEN opinions.source = 'evaluation' AND opinions.estimator IS NULL THEN 1
        WHEN opinions.source IN ('user', 'agent', 'operator') THEN 2
        WHEN opinions.source = 'judge' THEN 3
        WHEN opinions.source = 'evaluation' THEN 4
        ELSE 5
      END AS source_rank
    FROM feedback AS opinions
    JOIN (SELECT DISTINCT tenant, request_id FROM raw_requests WHERE coalesce(terminal, TRUE)) AS judged
      ON judged.request_id = opinions.request_id
      AND (opinions.tenant IS NULL OR opinions.tenant = judged.tenant)
    WHERE opinions.value BETWEEN 0 AND 1
      AND opinions.kind <> 'pairwise'
      AND (opinions.checked OR (opinions.checked IS NULL AND opinions.source <> 'evaluation'))
  )
)
GROUP BY tenant, request_id
