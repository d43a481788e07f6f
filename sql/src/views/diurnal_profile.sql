-- The day's profile: one row an hour of the day, UTC, with the mean over the days that were seen, and how it compares with
-- the mean over all hours. Only hours that lie wholly between the first arrival and the last count, to the minute; silent
-- ones are among them. An hour of the day that was never seen whole has no row.
SELECT
  hour_ms / 3600000 % 24 AS hour_of_day,
  count(*) AS hours,
  sum(requests) AS requests,
  avg(CAST(requests AS DOUBLE)) AS requests_per_hour,
  min(requests) AS requests_min,
  max(requests) AS requests_max,
  avg(CAST(requests AS DOUBLE)) / nullif(avg(requests_mean), 0) AS relative_rate
FROM (
  SELECT
    *,
    avg(CAST(requests AS DOUBLE)) OVER () AS requests_mean
  FROM (
    SELECT hours.hour_ms, coalesce(counted.requests, 0) AS requests
    FROM (
      SELECT unnest(generate_series(from_ms, to_ms - 3600000, 3600000)) AS hour_ms
      FROM (
        SELECT
          (min(window_start_ms) + 3599999) / 3600000 * 3600000 AS from_ms,
          (max(last_arrival_ms) + 60000) / 3600000 * 3600000 AS to_ms
        FROM workload_minute
      )
      WHERE to_ms > from_ms
    ) AS hours
    LEFT JOIN (
      SELECT window_start_ms / 3600000 * 3600000 AS hour_ms, sum(requests) AS requests
      FROM workload_minute
      GROUP BY 1
    ) AS counted ON counted.hour_ms = hours.hour_ms
  )
)
GROUP BY 1
