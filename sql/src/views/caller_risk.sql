-- How much do the requests of a caller look unsafe, over all of the fleet? One row for each tenant and caller whose requests are
-- scored. `score_day` and `score_week` are sums of the confidences of 0.5 and above that forget half in a day and in a week, as
-- they weigh at the newest request of all: they fall while nothing happens. `safe_week` sums the requests below 0.5 in the same
-- way, so that `risk` = `score_week` / (`score_week` + `safe_week` + 1) also falls with every safe request.
WITH clock AS (
  SELECT max(arrival_ms) AS now_ms FROM requests
),
summed AS (
  SELECT
    tenant,
    caller,
    count(*) AS scored_requests,
    count(*) FILTER (WHERE score >= 0.5) AS unsafe_requests,
    max(arrival_ms) FILTER (WHERE score >= 0.5) AS last_unsafe_ms,
    decayed_sum(CAST(round(CASE WHEN score >= 0.5 THEN score ELSE 0 END * 1e6) AS BIGINT), arrival_ms, 86400000) AS day,
    decayed_sum(CAST(round(CASE WHEN score >= 0.5 THEN score ELSE 0 END * 1e6) AS BIGINT), arrival_ms, 604800000) AS week,
    decayed_sum(CAST(CASE WHEN score >= 0.5 THEN 0 ELSE 1000000 END AS BIGINT), arrival_ms, 604800000) AS safe
  FROM (SELECT *, least(greatest(safety_score, 0), 1) AS score FROM requests WHERE safety_score IS NOT NULL)
  WHERE caller IS NOT NULL
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
  tenant,
  caller,
  scored_requests,
  unsafe_requests,
  to_timestamp_millis(last_unsafe_ms) AS last_unsafe,
  score_day,
  score_week,
  safe_week,
  score_week / (score_week + safe_week + 1) AS risk
FROM weighed
