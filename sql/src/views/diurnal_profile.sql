-- The day's profile: one row an hour of the day, UTC, with the mean over the days that were seen, and how it compares with
-- the mean over all hours. Only hours that lie wholly between the first arrival and the last count, to the minute; silent
-- ones are among them. An hour of the day that was never seen whole has no row.
--
-- Silent hours are counted, not listed: one arrival from a broken clock may lie millions of years from the others. Before
-- 1970 division would round towards zero; each remainder is made positive first.
WITH counted AS (
  SELECT
    (minute - (minute % 60 + 60) % 60) / 60 AS hour,
    sum(requests) AS requests
  FROM (SELECT window_start_ms / 60000 AS minute, requests FROM workload_minute)
  GROUP BY 1
),
-- From the first whole hour to the one after the last.
observed AS (
  SELECT
    (first_minute + 59 - ((first_minute + 59) % 60 + 60) % 60) / 60 AS from_hour,
    (last_minute + 1 - ((last_minute + 1) % 60 + 60) % 60) / 60 AS to_hour
  FROM (
    SELECT min(window_start_ms) / 60000 AS first_minute, max(window_start_ms) / 60000 AS last_minute FROM workload_minute
  )
),
whole AS (
  SELECT
    hour,
    (hour % 24 + 24) % 24 AS hour_of_day,
    requests
  FROM counted
  WHERE hour >= (SELECT from_hour FROM observed) AND hour < (SELECT to_hour FROM observed)
),
-- How many whole hours there are of each hour of the day.
days AS (
  SELECT
    hour_of_day,
    to_hour - from_hour AS all_hours,
    (until - (until % 24 + 24) % 24) / 24 - (since - (since % 24 + 24) % 24) / 24 AS hours
  FROM (
    SELECT
      hour_of_day,
      from_hour,
      to_hour,
      to_hour - 1 - hour_of_day AS until,
      from_hour - 1 - hour_of_day AS since
    FROM (SELECT unnest(generate_series(0, 23)) AS hour_of_day, from_hour, to_hour FROM observed)
  )
  WHERE to_hour > from_hour
),
profile AS (
  SELECT
    days.hour_of_day,
    days.all_hours,
    days.hours,
    coalesce(sum(whole.requests), 0) AS requests,
    CASE WHEN count(whole.hour) < days.hours THEN 0 ELSE min(whole.requests) END AS requests_min,
    coalesce(max(whole.requests), 0) AS requests_max
  FROM days
  LEFT JOIN whole ON whole.hour_of_day = days.hour_of_day
  WHERE days.hours > 0
  GROUP BY days.hour_of_day, days.all_hours, days.hours
)
SELECT
  hour_of_day,
  hours,
  requests,
  requests / CAST(hours AS DOUBLE) AS requests_per_hour,
  requests_min,
  requests_max,
  requests / CAST(hours AS DOUBLE) / nullif(sum(requests) OVER () / CAST(all_hours AS DOUBLE), 0) AS relative_rate
FROM profile
