-- How much do the requests of a session look unsafe? One row for each session whose router scores safety. `score_fast` and
-- `score_slow` are sums of the confidences that forget half in 5 minutes and in an hour, as they weigh at the session's last
-- request. Beside them the parts of another score: the `peak`, the `persistence` (share of requests at 0.5 or above), and the
-- `categories` of hazard that reached 0.5. `worst_request_id` is the request to look at.
WITH scored AS (
  SELECT
    session_turns.tenant,
    session_turns.session_id,
    session_turns.session_start_ms,
    session_turns.request_id,
    session_turns.arrival_ms,
    requests.caller,
    requests.hazard_scores,
    least(greatest(session_turns.safety_score, 0), 1) AS score
  FROM session_turns
  JOIN requests
    ON requests.request_id = session_turns.request_id AND (requests.tenant IS NOT DISTINCT FROM session_turns.tenant)
  WHERE session_turns.safety_score IS NOT NULL
),
hazards AS (
  SELECT tenant, session_id, session_start_ms, count(DISTINCT hazard['key']) AS categories
  FROM (
    SELECT tenant, session_id, session_start_ms, unnest(map_entries(hazard_scores)) AS hazard
    FROM scored
    WHERE hazard_scores IS NOT NULL
  )
  WHERE hazard['value'] >= 0.5
  GROUP BY tenant, session_id, session_start_ms
),
summed AS (
  SELECT
    tenant,
    session_id,
    session_start_ms,
    max(caller) AS caller,
    count(*) AS scored_requests,
    max(arrival_ms) AS last_ms,
    decayed_sum(CAST(round(score * 1e6) AS BIGINT), arrival_ms, 300000) AS fast,
    decayed_sum(CAST(round(score * 1e6) AS BIGINT), arrival_ms, 3600000) AS slow,
    max(score) AS peak,
    count(*) FILTER (WHERE score >= 0.5) / CAST(count(*) AS DOUBLE) AS persistence,
    first_value(request_id ORDER BY score DESC, arrival_ms) AS worst_request_id
  FROM scored
  GROUP BY tenant, session_id, session_start_ms
)
SELECT
  summed.tenant,
  summed.session_id,
  summed.session_start_ms,
  caller,
  scored_requests,
  decayed_sum_at(fast, last_ms) / 1e6 AS score_fast,
  decayed_sum_at(slow, last_ms) / 1e6 AS score_slow,
  peak,
  persistence,
  coalesce(categories, 0) AS categories,
  worst_request_id
FROM summed
LEFT JOIN hazards
  ON hazards.session_id = summed.session_id
  AND hazards.session_start_ms = summed.session_start_ms
  AND (hazards.tenant IS NOT DISTINCT FROM summed.tenant)
