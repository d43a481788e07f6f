-- Milliseconds; time per output token is after the first. Quantiles are nearest-rank, within 1 %.
SELECT
  model,
  coalesce(ddsketch_count(ttft_us), 0) AS ttft_count,
  ddsketch_mean(ttft_us) / 1e3 AS ttft_mean_ms,
  ddsketch_quantile(ttft_us, 0.5) / 1e3 AS ttft_p50_ms,
  ddsketch_quantile(ttft_us, 0.9) / 1e3 AS ttft_p90_ms,
  ddsketch_quantile(ttft_us, 0.99) / 1e3 AS ttft_p99_ms,
  coalesce(ddsketch_count(tpot_us), 0) AS tpot_count,
  ddsketch_mean(tpot_us) / 1e3 AS tpot_mean_ms,
  ddsketch_quantile(tpot_us, 0.5) / 1e3 AS tpot_p50_ms,
  ddsketch_quantile(tpot_us, 0.99) / 1e3 AS tpot_p99_ms,
  coalesce(ddsketch_count(e2e_us), 0) AS e2e_count,
  ddsketch_mean(e2e_us) / 1e3 AS e2e_mean_ms,
  ddsketch_quantile(e2e_us, 0.5) / 1e3 AS e2e_p50_ms,
  ddsketch_quantile(e2e_us, 0.99) / 1e3 AS e2e_p99_ms
FROM (
  SELECT
    model,
    ddsketch_merge(ttft_us) AS ttft_us,
    ddsketch_merge(tpot_us) AS tpot_us,
    ddsketch_merge(e2e_us) AS e2e_us
  FROM workload_sketch
  GROUP BY model
)
