-- Coding agents on GitHub issues: one row per issue and model, with the cost of the whole run. There is no text; the repository is all
-- that is known of an issue. Columns by position.
SELECT
    query_id, '' AS query, repo AS task, model,
    score,
    cost_usd,
    CAST(NULL AS DOUBLE) AS input_usd_per_mtok, CAST(NULL AS DOUBLE) AS output_usd_per_mtok
FROM scores
ORDER BY query_id, model
