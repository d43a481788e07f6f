-- When is it worth to reason? One row for each domain, complexity and model that was asked in both modes: success rates with
-- and without reasoning, by partial pooling, and what the mode costs in tokens, time and dollars a request. Who is sent to
-- reason is chosen by somebody: of a gain, part may be that.
WITH modes AS (
  SELECT
    request_outcomes.model,
    request_outcomes.domain,
    request_outcomes.complexity,
    request_outcomes.reasoning_mode AS mode,
    count(*) AS requests,
    count(is_success) AS judged,
    count(*) FILTER (WHERE is_success) AS successes,
    avg(total_tokens) AS tokens_mean,
    avg(e2e_us) / 1e3 AS e2e_mean_ms,
    avg(cost_usd) AS cost_usd_mean
  FROM request_outcomes
  WHERE reasoning_mode IN ('on', 'off')
  GROUP BY 1, 2, 3, 4
),
rated AS (
  SELECT *, pooled_rates(successes, judged, model, domain, complexity) OVER (PARTITION BY mode) AS rates FROM modes
)
SELECT
  reasons.model,
  reasons.domain,
  reasons.complexity,
  reasons.requests AS requests_on,
  plain.requests AS requests_off,
  reasons.judged AS judged_on,
  plain.judged AS judged_off,
  reasons.rates[3]['rate'] AS success_on,
  reasons.rates[3]['low'] AS success_on_low,
  reasons.rates[3]['high'] AS success_on_high,
  plain.rates[3]['rate'] AS success_off,
  plain.rates[3]['low'] AS success_off_low,
  plain.rates[3]['high'] AS success_off_high,
  reasons.rates[3]['rate'] - plain.rates[3]['rate'] AS gain,
  reasons.tokens_mean - plain.tokens_mean AS extra_tokens,
  reasons.e2e_mean_ms - plain.e2e_mean_ms AS extra_ms,
  reasons.cost_usd_mean - plain.cost_usd_mean AS extra_cost_usd
FROM rated AS reasons
JOIN rated AS plain
  ON plain.model = reasons.model
  AND (plain.domain IS NOT DISTINCT FROM reasons.domain)
  AND (plain.complexity IS NOT DISTINCT FROM reasons.complexity)
WHERE reasons.mode = 'on' AND plain.mode = 'off'
