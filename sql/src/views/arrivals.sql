-- Rates are over the seconds that were observed: a whole window has 600, silent ones included. Nothing says whether
-- somebody listened before the very first arrival or after the very last one, so the first window counts from the one
-- and the newest window to the other; NULL below a minute, which is too little for a rate.
-- The index of dispersion is variance over mean of arrivals per second, silent seconds between a window's first and last
-- arrival included.
SELECT
  to_timestamp_millis(window_start_ms) AS window_start,
  second_counts_count(arrivals) AS requests,
  observed_s,
  CASE WHEN observed_s >= 60 THEN second_counts_count(arrivals) / CAST(observed_s AS DOUBLE) END AS requests_per_s,
  dispersion(arrivals) AS dispersion
FROM (
  SELECT
    window_start_ms,
    arrivals,
    CASE
      WHEN window_start_ms = max(window_start_ms) OVER () THEN second_counts_last_s(arrivals) + 1
      ELSE window_start_ms / 1000 + 600
    END
    - CASE
      WHEN window_start_ms = min(window_start_ms) OVER () THEN second_counts_first_s(arrivals)
      ELSE window_start_ms / 1000
    END AS observed_s
  FROM (
    SELECT window_start_ms, second_counts_merge(arrivals) AS arrivals
    FROM workload_sketch
    GROUP BY window_start_ms
  )
  WHERE arrivals IS NOT NULL
)
