-- The nine-model part: one row per query and model, with list prices. Columns by position.
SELECT
    q.query_id, q.query, q.task, s.model,
    s.score,
    CAST(NULL AS DOUBLE) AS cost_usd,
    m.input_usd_per_mtok, m.output_usd_per_mtok
FROM queries AS q
JOIN scores AS s ON s.query_id = q.query_id
JOIN models AS m ON m.model = s.model
ORDER BY q.query_id, s.model
