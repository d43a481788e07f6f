-- Is a window complete? One row for each 10 minutes of event time of each source that have rows, and whether more are to be
-- expected: `is_complete` where the source's watermark (view `watermarks`) has passed its end. `silent_partitions` are those
-- that had rows before or after but none in the window.
WITH counted AS (
  SELECT 'requests' AS source, source_topic, source_partition, arrival_ms AS event_ms FROM raw_requests
  UNION ALL
  SELECT 'feedback', source_topic, source_partition, event_ms FROM raw_feedback
  UNION ALL
  SELECT 'gpu_telemetry', source_topic, source_partition, event_ms FROM raw_gpu_telemetry
  UNION ALL
  SELECT 'router_events', source_topic, source_partition, event_ms FROM raw_router_events
),
windows AS (
  SELECT
    source,
    event_ms - (event_ms % 600000 + 600000) % 600000 AS window_start_ms,
    count(*) AS rows,
    count(DISTINCT source_topic || '/' || CAST(source_partition AS VARCHAR)) AS partitions
  FROM counted
  GROUP BY source, window_start_ms
),
sources AS (
  SELECT source, count(*) AS partitions, max(source_complete_to) AS complete_to FROM watermarks GROUP BY source
)
SELECT
  windows.source,
  to_timestamp_millis(window_start_ms) AS window_start,
  rows,
  windows.partitions,
  sources.partitions - windows.partitions AS silent_partitions,
  to_timestamp_millis(window_start_ms + 600000) <= complete_to AS is_complete
FROM windows
JOIN sources ON sources.source = windows.source
