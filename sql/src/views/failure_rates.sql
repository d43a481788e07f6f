-- How often does each model fail in each way, by domain? One row for each class, model and domain in which something that
-- could show the class was reported: `observed` requests, of which `failures` show it. `rate` with its interval of 95 % is the
-- cell's, by partial pooling with the model's other domains and with other models: a cell with little evidence is told mostly
-- by those. `model_rate` is that of the model over its domains, each counted once. A model sees the requests that it was
-- given: of two rates, part of the difference may be that.
SELECT
  class,
  model,
  domain,
  observed,
  failures,
  rates[2]['rate'] AS rate,
  rates[2]['low'] AS rate_low,
  rates[2]['high'] AS rate_high,
  rates[1]['rate'] AS model_rate,
  rates[1]['low'] AS model_rate_low,
  rates[1]['high'] AS model_rate_high
FROM (
  SELECT *, pooled_rates(failures, observed, model, domain) OVER (PARTITION BY class) AS rates
  FROM (
    SELECT class, model, domain, count(*) AS observed, count(*) FILTER (WHERE is_failure) AS failures
    FROM failure_checks
    GROUP BY class, model, domain
  )
)
