-- Arrivals counted in windows of several lengths: one row a length. Is it a Poisson process? Then `dispersion`, variance
-- over mean of the counts, is near 1 at every length. A curve that rises with the length is a rate that changes, or bursts
-- that are longer than the short windows.
--
-- Windows begin at multiples of their length, and only those count that lie wholly between the first arrival and the last;
-- silent ones are among them. Rates are nearest-rank quantiles over windows, within 1 %. A length of which no window is
-- whole has no figures. What never reached an engine is not counted.
SELECT
  window_s,
  coalesce(ddsketch_count(by_window), 0) AS windows,
  ddsketch_sum(by_window) AS requests,
  ddsketch_mean(by_window) / window_s AS rate_mean_per_s,
  ddsketch_quantile(by_window, 0.5) / window_s AS rate_p50_per_s,
  ddsketch_quantile(by_window, 0.9) / window_s AS rate_p90_per_s,
  ddsketch_quantile(by_window, 0.99) / window_s AS rate_p99_per_s,
  ddsketch_max(by_window) / CAST(window_s AS DOUBLE) AS rate_max_per_s,
  dispersion
FROM (
  SELECT
    lengths.window_s,
    second_counts_by_window(observed.arrivals, lengths.window_s) AS by_window,
    dispersion_at(observed.arrivals, lengths.window_s) AS dispersion
  FROM (SELECT second_counts_merge(arrivals) AS arrivals FROM workload_sketch) AS observed
  CROSS JOIN (VALUES (1), (10), (60), (600), (3600)) AS lengths (window_s)
)
