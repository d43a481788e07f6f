SELECT
  source,
  count(*) AS partitions,
  count(*) FILTER (WHERE is_idle) AS idle_partitions,
  sum(rows) AS rows,
  max(late_ms_p999) AS late_ms_p999,
  max(source_complete_to) AS complete_to
FROM watermarks
GROUP BY source
ORDER BY source
