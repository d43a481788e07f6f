-- Which requests are worth checking for hallucination? One row for each domain, complexity and model, those first whose checks
-- find most. The order is learned from the older half of the verdicts, by rates that lean on others (`rate`); what it finds is
-- counted in the newer half: to check everything down to a row takes `checks_share` of all checks and finds `found_share` of
-- all hallucinations. A gate is a row: check what stands above it. Only requests that seek facts count, where routers tell
-- which do, and only those that were checked: of what was never checked nothing is known, so leave some of it in.
WITH verdicts AS (
  SELECT
    domain,
    complexity,
    model,
    hallucination,
    ntile(2) OVER (ORDER BY arrival_ms, tenant, request_id) = 1 AS is_older
  FROM (
    SELECT *, bool_or(is_fact_seeking IS NOT NULL) OVER () AS is_told FROM request_outcomes WHERE hallucination IS NOT NULL
  )
  WHERE NOT is_told OR is_fact_seeking
),
cells AS (
  SELECT
    domain,
    complexity,
    model,
    count(*) FILTER (WHERE is_older) AS learned_from,
    count(*) FILTER (WHERE is_older AND hallucination) AS learned_hallucinations,
    count(*) FILTER (WHERE NOT is_older) AS checks,
    count(*) FILTER (WHERE NOT is_older AND hallucination) AS found
  FROM verdicts
  GROUP BY domain, complexity, model
),
rated AS (
  SELECT *, pooled_rates(learned_hallucinations, learned_from, domain, complexity, model) OVER () AS rates FROM cells
),
ranked AS (
  SELECT
    *,
    rates[3]['rate'] AS rate,
    row_number() OVER (ORDER BY rates[3]['rate'] DESC, domain, complexity, model) AS place
  FROM rated
)
SELECT
  place,
  domain,
  complexity,
  model,
  learned_from,
  rate,
  rates[3]['low'] AS rate_low,
  rates[3]['high'] AS rate_high,
  checks,
  found,
  sum(checks) OVER down_to / nullif(CAST(sum(checks) OVER () AS DOUBLE), 0) AS checks_share,
  sum(found) OVER down_to / nullif(CAST(sum(found) OVER () AS DOUBLE), 0) AS found_share
FROM ranked
WINDOW down_to AS (ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
