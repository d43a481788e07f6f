-- The canonical row of each request: its highest revision that is finished. Of two deliveries of the same revision
-- the later one in its partition counts; both say the same unless the source broke its promise.
-- Request ids are unique for a tenant only; rows without a tenant are one tenant.
SELECT * EXCEPT (revision_rank)
FROM (
  SELECT
    *,
    row_number() OVER (
      PARTITION BY tenant, request_id
      ORDER BY coalesce(revision, 0) DESC, source_topic, source_partition, source_offset DESC
    ) AS revision_rank
  FROM raw_requests
  WHERE coalesce(terminal, TRUE)
)
WHERE revision_rank = 1
