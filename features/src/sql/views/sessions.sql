-- What became of each session? One row a session of `session_turns`: its length, models and switches, tools, failures and
-- the tokens that went into them, growth of its context, pauses, and what was said of it. A figure is NULL where no
-- request of the session tells what it takes.
--
-- A session is `is_open` while a request that belongs to it may still come: 30 minutes have not passed between its end and
-- the newest arrival of all. Until then its row is provisional, and so is `session_start_ms`, by which it is known.
WITH verdicts AS (
  -- What estimators say of each request. A check that did not run is missing, never clean.
  SELECT tenant, request_id, min(value) AS worst
  FROM request_opinions
  WHERE source = 'evaluation' AND estimator IS NOT NULL AND kind = 'verdict' AND checked AND value IS NOT NULL
  GROUP BY tenant, request_id
),
judged_turns AS (
  SELECT session_turns.*, rewards.quality, verdicts.worst
  FROM session_turns
  LEFT JOIN rewards
    ON (rewards.tenant IS NOT DISTINCT FROM session_turns.tenant) AND rewards.request_id = session_turns.request_id
  LEFT JOIN verdicts
    ON (verdicts.tenant IS NOT DISTINCT FROM session_turns.tenant) AND verdicts.request_id = session_turns.request_id
),
turns AS (
  SELECT
    tenant,
    session_id,
    session_start_ms,
    max(end_ms) AS end_ms,
    count(*) AS requests,
    first_value(model ORDER BY place) AS first_model,
    last_value(model ORDER BY place) AS last_model,
    array_agg(model ORDER BY place) FILTER (WHERE coalesce(is_switch, place = 1)) AS model_sequence,
    count(*) FILTER (WHERE is_switch) AS model_switches,
    count(DISTINCT policy_version) AS policy_versions,
    count(*) FILTER (WHERE is_error) AS errors,
    count(is_error) AS outcome_reported_requests,
    count(*) FILTER (WHERE is_fallback) AS fallbacks,
    CAST(sum(tools_called_count) AS BIGINT) AS tool_calls,
    CAST(sum(tools_failed_count) AS BIGINT) AS tool_errors,
    CAST(sum(CAST(prompt_tokens AS BIGINT)) AS BIGINT) AS prompt_tokens,
    CAST(sum(CAST(cached_prompt_tokens AS BIGINT)) AS BIGINT) AS cached_prompt_tokens,
    CAST(sum(CAST(completion_tokens AS BIGINT)) AS BIGINT) AS completion_tokens,
    CAST(
      sum(
        CASE
          WHEN is_failed THEN CAST(coalesce(prompt_tokens, 0) AS BIGINT) + coalesce(completion_tokens, 0)
          WHEN NOT is_failed THEN 0
        END
      ) AS BIGINT
    ) AS failed_tokens,
    first_value(prompt_tokens ORDER BY place) FILTER (WHERE prompt_tokens IS NOT NULL) AS first_prompt_tokens,
    last_value(prompt_tokens ORDER BY place) FILTER (WHERE prompt_tokens IS NOT NULL) AS last_prompt_tokens,
    max(prompt_tokens) AS prompt_tokens_max,
    ddsketch(pause_ms) AS pauses,
    max(safety_score) AS safety_score_max,
    CAST(sum(CAST(cost_nanousd AS DECIMAL(38, 0))) AS DOUBLE) / 1e9 AS cost_usd,
    count(quality) AS judged_requests,
    avg(quality) AS quality_mean,
    count(worst) AS checked_requests,
    count(*) FILTER (WHERE worst < 0.5) AS bad_verdict_requests
  FROM judged_turns
  GROUP BY tenant, session_id, session_start_ms
),
spans AS (
  SELECT
    *,
    lead(session_start_ms) OVER in_id AS next_start_ms,
    lag(session_start_ms) OVER in_id IS NULL AS is_first
  FROM (SELECT DISTINCT tenant, session_id, session_start_ms FROM session_turns)
  WINDOW in_id AS (PARTITION BY tenant, session_id ORDER BY session_start_ms)
),
opinions AS (
  -- What was said of a session as a whole: it belongs to the session of that id that had begun last. What was said of one of
  -- its turns is an opinion about a request, with or without the request's id.
  SELECT
    spans.tenant,
    spans.session_id,
    spans.session_start_ms,
    count(*) AS opinions,
    avg(value) AS opinion_mean,
    last_value(value ORDER BY event_ms, feedback_id) FILTER (WHERE kind = 'task_success') AS task_success
  FROM spans
  JOIN feedback
    ON feedback.session_id = spans.session_id
    AND (feedback.tenant IS NOT DISTINCT FROM spans.tenant)
    AND (feedback.event_ms >= spans.session_start_ms OR spans.is_first)
    AND (spans.next_start_ms IS NULL OR feedback.event_ms < spans.next_start_ms)
  WHERE feedback.request_id IS NULL
    AND feedback.turn IS NULL
    AND feedback.kind <> 'follow_up'
    AND feedback.value IS NOT NULL
    AND feedback.kind NOT IN ('pairwise', 'approval', 'security_event')
    AND (feedback.checked OR (feedback.checked IS NULL AND feedback.source <> 'evaluation'))
  GROUP BY spans.tenant, spans.session_id, spans.session_start_ms
),
clock AS (
  SELECT max(arrival_ms) AS newest_ms FROM requests
)
SELECT
  turns.tenant,
  turns.session_id,
  turns.session_start_ms,
  to_timestamp_millis(turns.session_start_ms) AS session_start,
  end_ms - turns.session_start_ms AS duration_ms,
  end_ms + 1800000 >= newest_ms AS is_open,
  requests,
  first_model,
  last_model,
  model_sequence,
  model_switches,
  policy_versions,
  CASE WHEN outcome_reported_requests > 0 THEN errors END AS errors,
  fallbacks,
  tool_calls,
  tool_errors,
  prompt_tokens,
  cached_prompt_tokens,
  completion_tokens,
  failed_tokens,
  prompt_tokens_max,
  last_prompt_tokens - first_prompt_tokens AS prompt_growth_tokens,
  ddsketch_quantile(pauses, 0.5) AS pause_p50_ms,
  safety_score_max,
  cost_usd,
  judged_requests,
  quality_mean,
  checked_requests,
  bad_verdict_requests,
  opinions,
  opinion_mean,
  task_success
FROM turns
CROSS JOIN clock
LEFT JOIN opinions
  ON (opinions.tenant IS NOT DISTINCT FROM turns.tenant)
  AND opinions.session_id = turns.session_id
  AND opinions.session_start_ms = turns.session_start_ms
