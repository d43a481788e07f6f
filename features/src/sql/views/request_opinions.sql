-- Which request is each opinion about? One row for each request and opinion about it. An opinion about a whole session is
-- none of these.
--
-- Request ids are unique for a tenant only. An opinion that names a tenant is about that tenant's request; one that names
-- none is about every request of that id. An opinion whose request has not come yet waits for it.
--
-- Some opinions name no request: a router tells from what a user says next what the answer before was worth, and knows the
-- session and the turn. They are about the last request of that turn that had arrived by then or, where the turn is
-- unknown too, about the last one of the session that arrived before the user spoke. `is_by_id` tells the two ways apart.
WITH ended AS (
  -- Every revision: they agree on where the request stands.
  SELECT tenant, request_id, session_id, turn, arrival_ms FROM raw_requests WHERE coalesce(terminal, TRUE)
),
spoken AS (
  SELECT * FROM feedback WHERE request_id IS NULL AND session_id IS NOT NULL AND (turn IS NOT NULL OR kind = 'follow_up')
),
-- What happens in a session that someone spoke of. A request stands once under its turn, and once under none.
moments AS (
  SELECT
    asked.tenant,
    spoken.session_id,
    spoken.turn,
    spoken.event_ms AS at_ms,
    -- Who speaks without naming the turn does it with a request of its own, which arrives in the same millisecond.
    CASE WHEN spoken.turn IS NULL THEN 0 ELSE 2 END AS place,
    CAST(NULL AS VARCHAR) AS about_id,
    spoken.feedback_id,
    spoken.event_ms,
    spoken.source,
    spoken.kind,
    spoken.value,
    spoken.label,
    spoken.confidence,
    spoken.checked,
    spoken.estimator
  FROM spoken
  JOIN (SELECT DISTINCT tenant, session_id FROM ended) AS asked
    ON asked.session_id = spoken.session_id AND (spoken.tenant IS NULL OR spoken.tenant = asked.tenant)
  UNION ALL
  SELECT tenant, session_id, under.turn, arrival_ms, 1, request_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
  FROM (
    SELECT tenant, session_id, turn, arrival_ms, request_id FROM ended WHERE turn IS NOT NULL
    UNION ALL
    SELECT tenant, session_id, NULL, arrival_ms, request_id FROM ended
  ) AS under
  WHERE session_id IN (SELECT session_id FROM spoken)
),
placed AS (
  SELECT
    * EXCEPT (about_id),
    last_value(about_id) IGNORE NULLS OVER (
      PARTITION BY tenant, session_id, turn
      ORDER BY at_ms, place, about_id
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS request_id
  FROM moments
)
SELECT
  asked.tenant,
  asked.request_id,
  TRUE AS is_by_id,
  opinions.feedback_id,
  opinions.event_ms,
  opinions.source,
  opinions.kind,
  opinions.value,
  opinions.label,
  opinions.confidence,
  opinions.checked,
  opinions.estimator
FROM feedback AS opinions
JOIN (SELECT DISTINCT tenant, request_id FROM ended) AS asked
  ON asked.request_id = opinions.request_id
  AND (opinions.tenant IS NULL OR opinions.tenant = asked.tenant)
UNION ALL
SELECT
  tenant, request_id, FALSE, feedback_id, event_ms, source, kind, value, label, confidence, checked, estimator
FROM placed
WHERE feedback_id IS NOT NULL AND request_id IS NOT NULL
