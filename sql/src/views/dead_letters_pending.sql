-- A letter is dealt with once a replay has stored it, or found that ingest had. Turned down again, it is still pending, and
-- the reason that the last replay gave is the one that holds.
SELECT
  letters.source_topic,
  letters.source_partition,
  letters.source_offset,
  coalesce(latest.reason_class, letters.reason_class) AS reason_class,
  coalesce(latest.reason, letters.reason) AS reason,
  letters.observed_ms,
  letters.observed_date,
  letters.payload_bytes,
  latest.replayed_ms AS last_replayed_ms
FROM dead_letters AS letters
LEFT JOIN (
  SELECT
    source_topic,
    source_partition,
    source_offset,
    bool_or(outcome <> 'rejected') AS is_dealt_with,
    last_value(reason_class ORDER BY epoch) AS reason_class,
    last_value(reason ORDER BY epoch) AS reason,
    max(replayed_ms) AS replayed_ms
  FROM dead_letter_replays
  GROUP BY source_topic, source_partition, source_offset
) AS latest
  ON latest.source_topic = letters.source_topic
  AND latest.source_partition = letters.source_partition
  AND latest.source_offset = letters.source_offset
WHERE latest.is_dealt_with IS NOT TRUE
