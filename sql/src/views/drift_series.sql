-- The series that `drift` watches: one row for each metric, model and closed window of ten minutes of arrival. `model` is NULL
-- for what is about all traffic. A window is closed once a whole one has begun behind it. A mean or share of fewer than 20
-- requests is noise, and is left out. Traffic follows the clock: `requests_vs_day_before` is the logarithm of the ratio to the
-- same ten minutes a day before, and `requests` itself is watched where there is no day before.
WITH windows AS (
  SELECT
    window_start_ms - (window_start_ms % 600000 + 600000) % 600000 AS at_ms,
    model,
    sum(requests) AS requests,
    sum(errors) AS errors,
    sum(outcome_reported_requests) AS outcomes,
    sum(agent_requests) AS agents,
    sum(agent_requests) + sum(chat_requests) AS classified,
    sum(prompt_tokens_sum) AS prompt_tokens,
    sum(prompt_tokens_count) AS prompts,
    sum(completion_tokens_sum) AS completion_tokens,
    sum(completion_tokens_count) AS completions,
    sum(ttft_us_sum) AS ttft_us,
    sum(ttft_us_count) AS ttfts,
    sum(e2e_us_sum) AS e2e_us,
    sum(e2e_us_count) AS e2es,
    CAST(sum(cost_nanousd_sum) AS DOUBLE) AS cost_nanousd,
    sum(cost_nanousd_count) AS costs
  FROM workload_minute
  GROUP BY 1, 2
),
closed AS (
  SELECT * FROM windows WHERE at_ms <= (SELECT max(at_ms) FROM windows) - 1200000
),
totals AS (
  SELECT
    at_ms,
    sum(requests) AS requests,
    sum(agents) AS agents,
    sum(classified) AS classified,
    sum(prompt_tokens) AS prompt_tokens,
    sum(prompts) AS prompts,
    sum(completion_tokens) AS completion_tokens,
    sum(completions) AS completions
  FROM closed
  GROUP BY at_ms
),
judged AS (
  SELECT
    arrival_ms - (arrival_ms % 600000 + 600000) % 600000 AS at_ms,
    model,
    sum(quality) AS quality,
    count(*) AS judged
  FROM requests
  JOIN rewards ON rewards.request_id = requests.request_id AND (rewards.tenant IS NOT DISTINCT FROM requests.tenant)
  GROUP BY 1, 2
),
series AS (
  SELECT
    'requests' AS metric,
    CAST(NULL AS VARCHAR) AS model,
    now.at_ms,
    CAST(now.requests AS DOUBLE) AS value,
    now.requests AS events
  FROM totals AS now LEFT JOIN totals AS then ON now.at_ms = then.at_ms + 86400000
  WHERE then.at_ms IS NULL
  UNION ALL
  SELECT 'requests_vs_day_before', NULL, now.at_ms, ln(now.requests / CAST(then.requests AS DOUBLE)), now.requests
  FROM totals AS now JOIN totals AS then ON now.at_ms = then.at_ms + 86400000
  UNION ALL
  SELECT 'agent_share', NULL, at_ms, agents / CAST(classified AS DOUBLE), classified FROM totals WHERE classified >= 20
  UNION ALL
  SELECT 'prompt_tokens_mean', NULL, at_ms, prompt_tokens / CAST(prompts AS DOUBLE), prompts FROM totals WHERE prompts >= 20
  UNION ALL
  SELECT 'completion_tokens_mean', NULL, at_ms, completion_tokens / CAST(completions AS DOUBLE), completions
  FROM totals WHERE completions >= 20
  UNION ALL
  SELECT 'request_share', model, closed.at_ms, closed.requests / CAST(totals.requests AS DOUBLE), totals.requests
  FROM closed JOIN totals ON totals.at_ms = closed.at_ms
  WHERE totals.requests >= 20 AND model IS NOT NULL
  UNION ALL
  SELECT 'error_share', model, at_ms, errors / CAST(outcomes AS DOUBLE), outcomes
  FROM closed WHERE outcomes >= 20 AND model IS NOT NULL
  UNION ALL
  SELECT 'completion_tokens_mean', model, at_ms, completion_tokens / CAST(completions AS DOUBLE), completions
  FROM closed WHERE completions >= 20 AND model IS NOT NULL
  UNION ALL
  SELECT 'ttft_ms_mean', model, at_ms, ttft_us / 1e3 / ttfts, ttfts FROM closed WHERE ttfts >= 20 AND model IS NOT NULL
  UNION ALL
  SELECT 'end_to_end_ms_mean', model, at_ms, e2e_us / 1e3 / e2es, e2es FROM closed WHERE e2es >= 20 AND model IS NOT NULL
  UNION ALL
  SELECT 'cost_usd_mean', model, at_ms, cost_nanousd / 1e9 / costs, costs FROM closed WHERE costs >= 20 AND model IS NOT NULL
  UNION ALL
  SELECT 'quality_mean', judged.model, judged.at_ms, quality / judged, judged
  FROM judged
  WHERE judged >= 20 AND judged.model IS NOT NULL AND judged.at_ms <= (SELECT max(at_ms) FROM windows) - 1200000
)
SELECT metric, model, at_ms, to_timestamp_millis(at_ms) AS window_start, value, CAST(events AS BIGINT) AS events FROM series
