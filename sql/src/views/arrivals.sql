-- The index of dispersion is variance over mean of arrivals per second, silent seconds between the first and the last
-- arrival included.
SELECT
  to_timestamp_millis(window_start_ms) AS window_start,
  second_counts_count(arrivals) AS requests,
  second_counts_span(arrivals) AS span_s,
  second_counts_count(arrivals) / CAST(second_counts_span(arrivals) AS DOUBLE) AS requests_per_s,
  dispersion(arrivals) AS dispersion
FROM (
  SELECT window_start_ms, second_counts_merge(arrivals) AS arrivals
  FROM workload_sketch
  GROUP BY window_start_ms
)
