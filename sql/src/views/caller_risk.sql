-- How much do the requests of a caller look unsafe, over all of the fleet? One row for each tenant and caller whose requests are
-- scored, or of whom a security event was told (feedback of kind `security_event`: a guard that stopped an agent at a screen
-- made to mislead it, or a tool that was called out of bounds; the caller is that of the request, or where none is named the
-- one that the event names). `score_day` and `score_week` are sums of the confidences of 0.5
-- and above, and of the events' severities (1 less their value; 1 where they tell none), that forget half in a day and in a week,
-- as they weigh at the newest of all of these: they fall while nothing happens. `safe_week` sums the requests below 0.5 in the
-- same way, so that `risk` = `score_week` / (`score_week` + `safe_week` + 1) also falls with every safe request. `reason` is
-- what weighs most in it: the category of an event, or `requests`.
WITH told AS (
  SELECT tenant, caller, arrival_ms, least(greatest(safety_score, 0), 1) AS score, 'requests' AS category, FALSE AS is_event
  FROM requests
  WHERE safety_score IS NOT NULL AND caller IS NOT NULL
  UNION ALL
  SELECT
    coalesce(feedback.tenant, requests.tenant),
    coalesce(requests.caller, feedback.caller),
    feedback.event_ms,
    1 - least(greatest(coalesce(feedback.value, 0), 0), 1),
    coalesce(feedback.label, 'security event'),
    TRUE
  FROM feedback
  LEFT JOIN requests
    ON requests.request_id = feedback.request_id AND (feedback.tenant IS NULL OR requests.tenant = feedback.tenant)
  WHERE feedback.kind = 'security_event' AND coalesce(requests.caller, feedback.caller) IS NOT NULL
),
clock AS (
  SELECT max(arrival_ms) AS now_ms FROM told
),
reasons AS (
  SELECT tenant, caller, first_value(category ORDER BY weight DESC, category) AS reason
  FROM (
    SELECT
      tenant,
      caller,
      category,
      sum(CASE WHEN is_event OR score >= 0.5 THEN score ELSE 0 END * power(0.5, (now_ms - arrival_ms) / 604800000.0)) AS weight
    FROM told
    CROSS JOIN clock
    GROUP BY tenant, caller, category
  )
  WHERE weight > 0
  GROUP BY tenant, caller
),
summed AS (
  SELECT
    tenant,
    caller,
    count(*) FILTER (WHERE NOT is_event) AS scored_requests,
    count(*) FILTER (WHERE NOT is_event AND score >= 0.5) AS unsafe_requests,
    count(*) FILTER (WHERE is_event) AS security_events,
    max(arrival_ms) FILTER (WHERE is_event OR score >= 0.5) AS last_unsafe_ms,
    decayed_sum(CAST(round(CASE WHEN is_event OR score >= 0.5 THEN score ELSE 0 END * 1e6) AS BIGINT), arrival_ms, 86400000)
      AS day,
    decayed_sum(CAST(round(CASE WHEN is_event OR score >= 0.5 THEN score ELSE 0 END * 1e6) AS BIGINT), arrival_ms, 604800000)
      AS week,
    decayed_sum(CAST(CASE WHEN is_event OR score >= 0.5 THEN 0 ELSE 1000000 END AS BIGINT), arrival_ms, 604800000) AS safe
  FROM told
  GROUP BY tenant, caller
),
weighed AS (
  SELECT
    *,
    decayed_sum_at(day, now_ms) / 1e6 AS score_day,
    decayed_sum_at(week, now_ms) / 1e6 AS score_week,
    decayed_sum_at(safe, now_ms) / 1e6 AS safe_week
  FROM summed
  CROSS JOIN clock
)
SELECT
  weighed.tenant,
  weighed.caller,
  scored_requests,
  unsafe_requests,
  security_events,
  to_timestamp_millis(last_unsafe_ms) AS last_unsafe,
  score_day,
  score_week,
  safe_week,
  score_week / (score_week + safe_week + 1) AS risk,
  reasons.reason
FROM weighed
LEFT JOIN reasons ON reasons.caller = weighed.caller AND (reasons.tenant IS NOT DISTINCT FROM weighed.tenant)
