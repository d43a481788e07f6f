-- Up to when has each partition of each source told everything? One row a partition. In a partition events come roughly in
-- the order of their time; how late some are is `late_ms_p999`, which one row in a thousand of its source exceeds. So a
-- partition is complete up to its newest event less that, and a source up to the least of its partitions. A partition whose
-- newest event is five minutes older than its source's newest is idle and holds nobody up: nothing comes, or ingest does not
-- get at it, which `weir positions list` and the metrics of `weir run` tell apart. Clocks more than an hour ahead of ours
-- do not count.
WITH events AS (
  SELECT 'requests' AS source, source_topic, source_partition, source_offset, arrival_ms AS event_ms FROM raw_requests
  UNION ALL
  SELECT 'feedback', source_topic, source_partition, source_offset, event_ms FROM raw_feedback
  UNION ALL
  SELECT 'gpu_telemetry', source_topic, source_partition, source_offset, event_ms FROM raw_gpu_telemetry
  UNION ALL
  SELECT 'router_events', source_topic, source_partition, source_offset, event_ms FROM raw_router_events
),
late AS (
  SELECT
    *,
    max(event_ms) OVER (
      PARTITION BY source, source_topic, source_partition
      ORDER BY source_offset
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) - event_ms AS late_ms
  FROM events
  WHERE to_timestamp_millis(event_ms) <= now() + INTERVAL '1 hour'
),
partitions AS (
  SELECT
    source,
    source_topic,
    source_partition,
    count(*) AS rows,
    max(source_offset) AS last_offset,
    max(event_ms) AS newest_ms,
    ddsketch(late_ms) AS lateness
  FROM late
  GROUP BY source, source_topic, source_partition
),
sources AS (
  SELECT
    source,
    max(newest_ms) AS newest_ms,
    ddsketch_quantile(ddsketch_merge(lateness), 0.999) AS late_ms_p999
  FROM partitions
  GROUP BY source
),
judged AS (
  SELECT
    partitions.*,
    late_ms_p999,
    sources.newest_ms - partitions.newest_ms AS behind_ms,
    sources.newest_ms - partitions.newest_ms > 300000 AS is_idle,
    partitions.newest_ms - late_ms_p999 AS complete_to_ms
  FROM partitions
  JOIN sources ON sources.source = partitions.source
)
SELECT
  source,
  source_topic,
  source_partition,
  rows,
  last_offset,
  to_timestamp_millis(newest_ms) AS newest,
  late_ms_p999,
  behind_ms,
  is_idle,
  to_timestamp_millis(complete_to_ms) AS complete_to,
  to_timestamp_millis(min(complete_to_ms) FILTER (WHERE NOT is_idle) OVER (PARTITION BY source)) AS source_complete_to
FROM judged
