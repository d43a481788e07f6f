-- What would the prefix caches of a pool's instances have held, had its router sent requests another way? One row for each
-- way, number of instances and size of each instance's cache, in blocks. `as_routed` is where the router did send them, if
-- it says so; `by_session` keeps a session at one instance; `at_random` knows nothing of sessions. `prefix_cache` at
-- `instances` times the size is what a router reaches that always finds the prefix. Ask for one `routing`, and for one
-- `places`, which is `instances` where the router's own are not meant: the others are then not computed.
WITH ways AS (
  SELECT
    'as_routed' AS routing,
    CAST(NULL AS BIGINT) AS places,
    pool,
    model,
    instance,
    tenant,
    request_id,
    arrival_ms,
    prefix_block_hashes
  FROM requests
  WHERE instance IS NOT NULL AND cardinality(prefix_block_hashes) > 0
  UNION ALL
  SELECT
    routing,
    places,
    pool,
    model,
    CAST(
      spread(
        concat_ws('/', tenant, CASE routing WHEN 'by_session' THEN session_id ELSE request_id END),
        places
      ) AS VARCHAR
    ) AS instance,
    tenant,
    request_id,
    arrival_ms,
    prefix_block_hashes
  FROM requests
  CROSS JOIN (VALUES ('by_session'), ('at_random')) AS routings (routing)
  CROSS JOIN (VALUES (2), (4), (8), (16)) AS sizes (places)
  WHERE cardinality(prefix_block_hashes) > 0 AND (routing = 'at_random' OR session_id IS NOT NULL)
),
sized AS (
  SELECT *, unnest(range(0, 1 + CAST(ceil(log2(CAST(deepest AS DOUBLE))) AS BIGINT))) AS doublings
  FROM (
    SELECT *, coalesce(max(array_max(depths)) OVER (PARTITION BY routing, places, pool, model), 1) AS deepest
    FROM (
      SELECT
        routing,
        places,
        pool,
        model,
        instance,
        CAST(cardinality(prefix_block_hashes) AS BIGINT) AS blocks,
        prefix_depths(prefix_block_hashes) OVER (
          PARTITION BY routing, places, pool, model, instance
          ORDER BY arrival_ms, tenant, request_id
        ) AS depths
      FROM ways
    )
  )
)
SELECT
  routing,
  places,
  coalesce(places, count(DISTINCT instance)) AS instances,
  pool,
  model,
  CAST(power(2, doublings) AS BIGINT) AS capacity_blocks,
  count(*) AS requests,
  CAST(sum(blocks) AS BIGINT) AS blocks,
  CAST(sum(prefix_hits(depths, CAST(power(2, doublings) AS BIGINT))) AS BIGINT) AS hit_blocks,
  sum(prefix_hits(depths, CAST(power(2, doublings) AS BIGINT))) / CAST(sum(blocks) AS DOUBLE) AS block_hit_ratio
FROM sized
GROUP BY routing, places, pool, model, doublings
