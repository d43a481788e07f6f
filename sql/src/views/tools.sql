-- What does each tool do in whose hands? One row for each domain, tool, model and stage of the session (places 1 to 4, 5 to 12,
-- later): calls, how many are known to have worked, the rate with an interval of 95 % by partial pooling (the cell leans on
-- the tool with that model in the domain, that on the tool in the domain, that on the domain), and latency.
SELECT
  domain,
  tool,
  model,
  stage,
  calls,
  known,
  successes,
  rates[4]['rate'] AS success_rate,
  rates[4]['low'] AS success_rate_low,
  rates[4]['high'] AS success_rate_high,
  rates[2]['rate'] AS tool_success_rate,
  latency_p50_ms,
  latency_p99_ms
FROM (
  SELECT *, pooled_rates(successes, known, domain, tool, model, stage) OVER () AS rates
  FROM (
    SELECT
      domain,
      tool,
      model,
      CASE WHEN place <= 4 THEN '1 to 4' WHEN place <= 12 THEN '5 to 12' WHEN place > 12 THEN 'later' END AS stage,
      count(*) AS calls,
      count(is_success) AS known,
      count(*) FILTER (WHERE is_success) AS successes,
      ddsketch_quantile(ddsketch(latency_us), 0.5) / 1e3 AS latency_p50_ms,
      ddsketch_quantile(ddsketch(latency_us), 0.99) / 1e3 AS latency_p99_ms
    FROM tool_calls
    GROUP BY 1, 2, 3, 4
  )
)
