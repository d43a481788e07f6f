-- Do embeddings of requests tell which tool will work, better than counts do? One row for each embedding's model and domain, over
-- requests whose router logs an embedding and in which a tool worked. Two rankings of tools are learned from the older half
-- and tried on the newer: by the nearness (cosine) of the request to the mean embedding of requests in which the tool worked,
-- as tool selectors on embeddings do (OATS, arXiv 2603.13426, refines those means by outcomes too), and by how often the tool
-- worked in the domain. NDCG at 5 and the share of first places hold the rankings against the tools that then worked; 1 is a
-- ranking that always has those on top.
WITH called AS (
  SELECT
    requests.tenant,
    requests.request_id,
    requests.arrival_ms,
    requests.domain,
    requests.embedding_model,
    requests.embedding,
    cardinality(requests.embedding) AS dimensions,
    tool_calls.tool,
    bool_or(tool_calls.is_success) AS is_success
  FROM tool_calls
  JOIN requests
    ON requests.request_id = tool_calls.request_id AND (requests.tenant IS NOT DISTINCT FROM tool_calls.tenant)
  WHERE cardinality(requests.embedding) > 0 AND tool_calls.is_success IS NOT NULL
  GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
),
halves AS (
  SELECT *, rank > 0.5 AS is_newer
  FROM (SELECT *, percent_rank() OVER (ORDER BY arrival_ms, request_id, tenant) AS rank FROM called WHERE is_success)
),
means AS (
  SELECT embedding_model, dimensions, tool, dimension, avg(CAST(value AS DOUBLE)) AS mean
  FROM (
    SELECT
      embedding_model,
      dimensions,
      tool,
      unnest(embedding) AS value,
      unnest(range(0, CAST(cardinality(embedding) AS BIGINT))) AS dimension
    FROM halves
    WHERE NOT is_newer
  )
  GROUP BY embedding_model, dimensions, tool, dimension
),
centroids AS (
  SELECT embedding_model, dimensions, tool, array_agg(mean ORDER BY dimension) AS centroid
  FROM means
  GROUP BY embedding_model, dimensions, tool
),
counts AS (
  SELECT embedding_model, domain, tool, count(*) AS times FROM halves WHERE NOT is_newer GROUP BY embedding_model, domain, tool
),
asked AS (
  SELECT tenant, request_id, domain, embedding_model, dimensions, first_value(embedding) AS embedding
  FROM halves
  WHERE is_newer
  GROUP BY tenant, request_id, domain, embedding_model, dimensions
),
ranked AS (
  SELECT
    asked.tenant,
    asked.request_id,
    asked.domain,
    asked.embedding_model,
    halves.tool IS NOT NULL AS is_wanted,
    row_number() OVER (
      PARTITION BY asked.tenant, asked.request_id
      ORDER BY cosine_distance(asked.embedding, centroid), centroids.tool
    ) AS place_by_embedding,
    row_number() OVER (
      PARTITION BY asked.tenant, asked.request_id
      ORDER BY coalesce(times, 0) DESC, centroids.tool
    ) AS place_by_counts
  FROM asked
  -- Vectors of another length are another model's, whatever it is called.
  JOIN centroids
    ON centroids.dimensions = asked.dimensions AND (centroids.embedding_model IS NOT DISTINCT FROM asked.embedding_model)
  LEFT JOIN counts
    ON counts.tool = centroids.tool
    AND (counts.embedding_model IS NOT DISTINCT FROM asked.embedding_model)
    AND (counts.domain IS NOT DISTINCT FROM asked.domain)
  LEFT JOIN halves
    ON halves.tool = centroids.tool
    AND halves.is_newer
    AND halves.request_id = asked.request_id
    AND (halves.tenant IS NOT DISTINCT FROM asked.tenant)
),
gains AS (
  SELECT
    tenant,
    request_id,
    domain,
    embedding_model,
    sum(CASE WHEN is_wanted AND place_by_embedding <= 5 THEN 1 / log2(place_by_embedding + 1.0) ELSE 0 END) AS by_embedding,
    sum(CASE WHEN is_wanted AND place_by_counts <= 5 THEN 1 / log2(place_by_counts + 1.0) ELSE 0 END) AS by_counts,
    bool_or(is_wanted AND place_by_embedding = 1) AS first_by_embedding,
    bool_or(is_wanted AND place_by_counts = 1) AS first_by_counts,
    count(*) FILTER (WHERE is_wanted) AS wanted
  FROM ranked
  GROUP BY tenant, request_id, domain, embedding_model
),
-- The most that so many wanted tools can give.
ideal AS (
  SELECT wanted, sum(1 / log2(place + 1.0)) AS best
  FROM (SELECT 1 AS wanted UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5)
  JOIN (SELECT 1 AS place UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5) ON place <= wanted
  GROUP BY wanted
)
SELECT
  embedding_model,
  domain,
  count(*) AS requests,
  avg(by_embedding / best) AS ndcg5_by_embedding,
  avg(by_counts / best) AS ndcg5_by_counts,
  count(*) FILTER (WHERE first_by_embedding) / CAST(count(*) AS DOUBLE) AS first_by_embedding,
  count(*) FILTER (WHERE first_by_counts) / CAST(count(*) AS DOUBLE) AS first_by_counts
FROM gains
JOIN ideal ON ideal.wanted = least(gains.wanted, 5)
WHERE gains.wanted > 0
GROUP BY embedding_model, domain
