-- How large must a pool's prefix cache be? The hit ratio at every power of two of blocks, up to the size from which more
-- blocks help nobody: that row is what a cache without an end holds. Twice the cache is the next row. By requests a hit is
-- a prompt of which at least one block was held; tokens are those of a prompt times the share of its blocks that were held,
-- which is within one block of what an engine would report; `reported_token_hit_ratio` is what engines did report for the
-- same requests, where they did.
WITH sized AS (
  SELECT
    pool,
    model,
    CAST(power(2, doublings) AS BIGINT) AS capacity_blocks,
    blocks,
    prefix_hits(depths, CAST(power(2, doublings) AS BIGINT)) AS hit_blocks,
    CAST(prompt_tokens AS BIGINT) AS prompt_tokens,
    CASE WHEN prompt_tokens IS NOT NULL THEN CAST(cached_prompt_tokens AS BIGINT) END AS reported_tokens,
    CASE WHEN cached_prompt_tokens IS NOT NULL THEN CAST(prompt_tokens AS BIGINT) END AS reported_of_tokens
  FROM (
    SELECT *, unnest(range(0, 1 + CAST(ceil(log2(CAST(deepest AS DOUBLE))) AS BIGINT))) AS doublings
    FROM (
      SELECT *, coalesce(max(array_max(depths)) OVER (PARTITION BY pool, model), 1) AS deepest
      FROM prefix_requests
    )
  )
)
SELECT
  pool,
  model,
  capacity_blocks,
  count(*) AS requests,
  count(*) FILTER (WHERE hit_blocks > 0) AS hit_requests,
  count(*) FILTER (WHERE hit_blocks > 0) / CAST(count(*) AS DOUBLE) AS request_hit_ratio,
  CAST(sum(blocks) AS BIGINT) AS blocks,
  CAST(sum(hit_blocks) AS BIGINT) AS hit_blocks,
  sum(hit_blocks) / CAST(sum(blocks) AS DOUBLE) AS block_hit_ratio,
  sum(prompt_tokens * hit_blocks / CAST(blocks AS DOUBLE)) / nullif(CAST(sum(prompt_tokens) AS DOUBLE), 0)
    AS token_hit_ratio,
  sum(reported_tokens) / nullif(CAST(sum(reported_of_tokens) AS DOUBLE), 0) AS reported_token_hit_ratio
FROM sized
GROUP BY pool, model, capacity_blocks
