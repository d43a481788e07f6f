-- The Natural Questions part: one row per query and model, with the cost of the call. Columns by position.
SELECT
    q.query_id, q.query, 'natural_qa' AS task, s.model,
    s.score,
    s.cost_usd,
    CAST(NULL AS DOUBLE) AS input_usd_per_mtok, CAST(NULL AS DOUBLE) AS output_usd_per_mtok
FROM queries AS q
JOIN scores AS s ON s.query_id = q.query_id
ORDER BY q.query_id, s.model
