-- How much of each prompt would its pool's prefix cache have held? One row a request whose router tells the hashes of its
-- prefix blocks. `depths` has a number per block, from the prompt's beginning: a cache of at least that many blocks, which
-- evicts what was used least recently, still held it; NULL for a block that never came before. A request counts at its
-- arrival. `prefix_hits(depths, c)` says how many blocks a cache of `c` blocks held. A pool's models share no blocks, its
-- instances all of them: that is the cache of a pool whose router always finds the instance that has the prefix.
SELECT
  tenant,
  request_id,
  arrival_ms,
  arrival_time,
  session_id,
  domain,
  model,
  pool,
  instance,
  prompt_tokens,
  cached_prompt_tokens,
  CAST(cardinality(prefix_block_hashes) AS BIGINT) AS blocks,
  prefix_hits(depths, NULL) AS seen_blocks,
  depths
FROM (
  SELECT
    *,
    prefix_depths(prefix_block_hashes) OVER (PARTITION BY pool, model ORDER BY arrival_ms, tenant, request_id) AS depths
  FROM requests
  WHERE cardinality(prefix_block_hashes) > 0
)
