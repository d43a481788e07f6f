SELECT
  window_s,
  ddsketch_mean(by_window) / window_s AS rate_mean_per_s,
  ddsketch_quantile(by_window, 0.99) / window_s AS rate_p99_per_s,
  ddsketch_max(by_window) / CAST(window_s AS DOUBLE) AS rate_max_per_s,
  dispersion
FROM (
  SELECT
    window_s,
    second_counts_by_window(arrivals, window_s) AS by_window,
    dispersion_at(arrivals, window_s) AS dispersion
  FROM (
    SELECT second_counts_merge(arrivals) AS arrivals
    FROM workload_sketch
    WHERE window_start_ms >= {from_ms} AND window_start_ms < {to_ms}
  )
  CROSS JOIN (VALUES (1), (10), (60), (600), (3600)) AS lengths (window_s)
)
WHERE by_window IS NOT NULL
ORDER BY window_s
