SELECT
  model,
  ddsketch_quantile(ttft_us, 0.5) / 1e3 AS ttft_p50_ms,
  ddsketch_quantile(ttft_us, 0.99) / 1e3 AS ttft_p99_ms,
  ddsketch_quantile(tpot_us, 0.5) / 1e3 AS tpot_p50_ms,
  ddsketch_quantile(tpot_us, 0.99) / 1e3 AS tpot_p99_ms,
  ddsketch_quantile(e2e_us, 0.5) / 1e3 AS e2e_p50_ms,
  ddsketch_quantile(e2e_us, 0.99) / 1e3 AS e2e_p99_ms
FROM (
  SELECT
    model,
    ddsketch_merge(ttft_us) AS ttft_us,
    ddsketch_merge(tpot_us) AS tpot_us,
    ddsketch_merge(e2e_us) AS e2e_us
  FROM workload_sketch
  WHERE window_start_ms >= {from_ms} AND window_start_ms < {to_ms}
  GROUP BY model
)
WHERE coalesce(ddsketch_count(ttft_us), 0) + coalesce(ddsketch_count(tpot_us), 0) + coalesce(ddsketch_count(e2e_us), 0) > 0
ORDER BY model
