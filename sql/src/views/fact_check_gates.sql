-- Which answers are worth checking for hallucination? One row for each domain, complexity and model, those first whose checks
-- find most. The order is learned from the older half of the verdicts, by rates that lean on others (`rate`). Down to a row lie
-- `answers_share` of all answers that could be checked, and `found_share` of all hallucinations in them, as the checks of the newer
-- half tell (`found` of `checks`; where there were none, `rate` does). A gate is a row: check what stands above it. Only
-- requests that seek facts count, where routers tell which do. What is never checked is never known, so leave some of it in.
WITH answers AS (
  SELECT
    domain,
    complexity,
    model,
    hallucination,
    ntile(2) OVER (PARTITION BY hallucination IS NOT NULL ORDER BY arrival_ms, tenant, request_id) = 1 AS is_older
  FROM (
    SELECT *, bool_or(is_fact_seeking IS NOT NULL) OVER () AS is_told FROM request_outcomes
  )
  WHERE NOT is_told OR is_fact_seeking
),
cells AS (
  SELECT
    domain,
    complexity,
    model,
    count(*) AS answers,
    count(hallucination) FILTER (WHERE is_older) AS learned_from,
    count(*) FILTER (WHERE is_older AND hallucination) AS learned_hallucinations,
    count(hallucination) FILTER (WHERE NOT is_older) AS checks,
    count(*) FILTER (WHERE NOT is_older AND hallucination) AS found
  FROM answers
  GROUP BY domain, complexity, model
),
rated AS (
  SELECT *, pooled_rates(learned_hallucinations, learned_from, domain, complexity, model) OVER () AS rates
  FROM cells
  -- Without a verdict there is nothing to learn from.
  WHERE (SELECT sum(learned_from) FROM cells) > 0
),
ranked AS (
  SELECT
    *,
    rates[3]['rate'] AS rate,
    answers * coalesce(found / nullif(CAST(checks AS DOUBLE), 0), rates[3]['rate']) AS hallucinations,
    row_number() OVER (ORDER BY rates[3]['rate'] DESC, domain, complexity, model) AS place
  FROM rated
)
SELECT
  place,
  domain,
  complexity,
  model,
  answers,
  learned_from,
  rate,
  rates[3]['low'] AS rate_low,
  rates[3]['high'] AS rate_high,
  checks,
  found,
  sum(answers) OVER down_to / nullif(CAST(sum(answers) OVER () AS DOUBLE), 0) AS answers_share,
  sum(hallucinations) OVER down_to / nullif(sum(hallucinations) OVER (), 0) AS found_share
FROM ranked
WINDOW down_to AS (ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
