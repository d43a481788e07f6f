-- The last revision of each opinion, unless it was withdrawn. Like request ids, ids of opinions are unique for a tenant
-- only: no tenant can revise or withdraw what another one said.
SELECT * EXCEPT (revision_rank), to_timestamp_millis(event_ms) AS event_time
FROM (
  SELECT
    *,
    row_number() OVER (
      PARTITION BY tenant, feedback_id
      ORDER BY coalesce(revision, 0) DESC, source_topic, source_partition, source_offset DESC
    ) AS revision_rank
  FROM raw_feedback
)
WHERE revision_rank = 1 AND NOT coalesce(retracted, FALSE)
