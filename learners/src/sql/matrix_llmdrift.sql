-- Four versions of two models, with the cost of each call. Columns by position.
--
-- The sets of primes and of composites ask the same question and have one right answer each, so which of them a query is from must
-- not be known: they are one domain. What has no score stays out, and so does "sensitiveq", whose score says that a model answered an
-- offensive request, not that the answer was good.
SELECT
    dataset || '/' || id AS query_id, query,
    CASE WHEN dataset IN ('prime', 'composite') THEN 'primality' ELSE dataset END AS task,
    model,
    score,
    cost_usd,
    CAST(NULL AS DOUBLE) AS input_usd_per_mtok, CAST(NULL AS DOUBLE) AS output_usd_per_mtok
FROM scores
WHERE score IS NOT NULL AND dataset <> 'sensitiveq'
ORDER BY query_id, model
