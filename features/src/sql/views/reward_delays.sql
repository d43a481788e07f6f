-- How long does it take until a request is judged? The distribution of the time from a request's arrival to the last opinion
-- that counts for it (view `rewards`), a row for each delay that occurred. What is known today lacks the long delays of
-- young requests: a delay can only be seen once the request is old enough. So a delay counts among the requests that were
-- old enough to show it: the product-limit estimator in reversed time (Lagakos, Barraj and De Gruttola, Biometrika 75(3),
-- 1988). `share_to` is the share of opinions that come within the delay, of those that come within the longest one seen.
WITH clock AS (
  SELECT max(at_ms) AS now_ms
  FROM (SELECT max(arrival_ms) AS at_ms FROM requests UNION ALL SELECT max(event_ms) FROM feedback)
),
observed AS (
  SELECT
    greatest(rewards.last_event_ms - requests.arrival_ms, 0) AS delay_ms,
    greatest(now_ms - requests.arrival_ms, rewards.last_event_ms - requests.arrival_ms, 0) AS age_ms
  FROM requests
  JOIN rewards ON rewards.request_id = requests.request_id AND (rewards.tenant IS NOT DISTINCT FROM requests.tenant)
  CROSS JOIN clock
  WHERE rewards.source_rank <> 4
),
-- A request is among those that can show a delay from its own delay on, up to its age.
points AS (
  SELECT delay_ms, sum(opinions) AS opinions, sum(too_young) AS too_young
  FROM (
    SELECT delay_ms, 1 AS opinions, 0 AS too_young FROM observed
    UNION ALL
    SELECT age_ms + 1, 0, 1 FROM observed
  )
  GROUP BY delay_ms
),
at_risk AS (
  SELECT
    delay_ms,
    opinions,
    sum(opinions - too_young) OVER (ORDER BY delay_ms ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS old_enough
  FROM points
)
SELECT
  delay_ms,
  opinions,
  old_enough,
  coalesce(
    exp(
      sum(ln(greatest(1 - opinions / CAST(old_enough AS DOUBLE), 1e-9))) OVER (
        ORDER BY delay_ms ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
      )
    ),
    1
  ) AS share_to
FROM at_risk
WHERE opinions > 0
