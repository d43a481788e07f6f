SELECT
  capacity_blocks,
  sum(prefix_hits(depths, capacity_blocks)) / CAST(sum(blocks) AS DOUBLE) AS block_hit_ratio,
  count(*) FILTER (WHERE prefix_hits(depths, capacity_blocks) > 0) / CAST(count(*) AS DOUBLE) AS request_hit_ratio,
  count(*) AS requests
FROM (
  SELECT depths, blocks, CAST(power(2, unnest(range(0, 1 + CAST(ceil(log2(CAST(deepest AS DOUBLE))) AS BIGINT)))) AS BIGINT)
    AS capacity_blocks
  FROM (
    SELECT depths, blocks, coalesce(max(array_max(depths)) OVER (), 1) AS deepest
    FROM prefix_requests
    WHERE arrival_ms >= {from_ms} AND arrival_ms < {to_ms}
  )
)
GROUP BY capacity_blocks
ORDER BY capacity_blocks
