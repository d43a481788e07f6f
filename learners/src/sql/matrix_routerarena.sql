-- Two models on queries of many data sets, with the cost of each call. A call that failed has no score. Columns by position.
SELECT
    q.query_id, q.query, q.dataset AS task, s.model,
    CASE WHEN s.success THEN s.score END AS score,
    s.cost_usd,
    CAST(NULL AS DOUBLE) AS input_usd_per_mtok, CAST(NULL AS DOUBLE) AS output_usd_per_mtok
FROM queries AS q
JOIN scores AS s ON s.query_id = q.query_id
ORDER BY q.query_id, s.model
