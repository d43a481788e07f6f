SELECT
  model,
  ddsketch_share_to(ttft_us, CAST({ttft_ms} * 1000 AS BIGINT)) AS ttft_share,
  ddsketch_share_to(tpot_us, CAST({tpot_ms} * 1000 AS BIGINT)) AS tpot_share
FROM (
  SELECT model, ddsketch_merge(ttft_us) AS ttft_us, ddsketch_merge(tpot_us) AS tpot_us
  FROM workload_sketch
  WHERE window_start_ms >= {from_ms} AND window_start_ms < {to_ms}
  GROUP BY model
)
WHERE coalesce(ddsketch_count(ttft_us), 0) + coalesce(ddsketch_count(tpot_us), 0) > 0
ORDER BY model
