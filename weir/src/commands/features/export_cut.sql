-- A cluster is on the side of the cut on which all of it lies.
SELECT * EXCEPT (first_ms, last_ms), CASE WHEN last_ms < {cut_ms} THEN 'train' ELSE 'test' END AS split
FROM (
  SELECT
    *,
    min(arrival_ms) OVER (PARTITION BY tenant, cluster) AS first_ms,
    max(arrival_ms) OVER (PARTITION BY tenant, cluster) AS last_ms
  FROM training_examples
)
WHERE arrival_ms >= {from_ms} AND arrival_ms < {to_ms} AND (last_ms < {cut_ms} OR first_ms >= {cut_ms})
ORDER BY arrival_ms, tenant, request_id
