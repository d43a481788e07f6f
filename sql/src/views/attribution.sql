-- Why did a session come out badly, and which knob could have prevented it? One row for each session whose task failed or whose
-- answers were judged below a half. The class of failure is the one into whose requests most tokens went; `unexplained` where no
-- request of the session shows any. The knob is the part of a routing policy that is set from that class.
--
-- `better_model` would have been less likely to fail like that in the same domain: its interval of view `failure_rates` lies
-- below that of the model that failed, which takes evidence of both (`support` requests of the better one). Without one,
-- nobody can say that another choice would have helped. Others' requests were others: it is a hint, not a proof.
WITH poor AS (
  SELECT tenant, session_id, session_start_ms, coalesce(task_success, quality_mean) AS quality, prompt_tokens, completion_tokens
  FROM sessions
  WHERE coalesce(task_success, quality_mean) < 0.5
),
shown AS (
  SELECT
    poor.tenant,
    poor.session_id,
    poor.session_start_ms,
    failure_checks.class,
    last_value(failure_checks.model ORDER BY failure_checks.place) AS model,
    last_value(failure_checks.domain ORDER BY failure_checks.place) AS domain,
    count(*) AS requests,
    sum(failure_checks.total_tokens) AS tokens
  FROM poor
  JOIN failure_checks
    ON failure_checks.session_id = poor.session_id
    AND failure_checks.session_start_ms = poor.session_start_ms
    AND (failure_checks.tenant IS NOT DISTINCT FROM poor.tenant)
  WHERE failure_checks.is_failure
  GROUP BY poor.tenant, poor.session_id, poor.session_start_ms, failure_checks.class
),
ranked AS (
  SELECT
    *,
    row_number() OVER (
      PARTITION BY tenant, session_id, session_start_ms ORDER BY tokens DESC, requests DESC, class
    ) AS rank
  FROM shown
),
better AS (
  SELECT
    here.class,
    here.model,
    here.domain,
    first_value(other.model ORDER BY other.rate) AS better_model,
    first_value(other.rate ORDER BY other.rate) AS better_rate,
    first_value(other.observed ORDER BY other.rate) AS support,
    min(here.rate) AS rate
  FROM failure_rates AS here
  JOIN failure_rates AS other
    ON other.class = here.class AND (other.domain IS NOT DISTINCT FROM here.domain) AND other.rate_high < here.rate_low
  GROUP BY here.class, here.model, here.domain
)
SELECT
  poor.tenant,
  poor.session_id,
  poor.session_start_ms,
  poor.quality,
  CAST(coalesce(poor.prompt_tokens, 0) + coalesce(poor.completion_tokens, 0) AS BIGINT) AS tokens,
  coalesce(ranked.class, 'unexplained') AS class,
  CASE
    WHEN ranked.class = 'hallucination' THEN 'model reputation'
    WHEN ranked.class IN ('wrong_tool', 'bad_arguments', 'tool_error') THEN 'tools'
    WHEN ranked.class = 'retry_loop' THEN 'session length'
    WHEN ranked.class IN ('refusal', 'safety') THEN 'risk'
    WHEN ranked.class IN ('time_out', 'fallback') THEN 'pools'
    WHEN ranked.class = 'truncation' THEN 'output lengths'
    WHEN ranked.class IS NOT NULL THEN 'failure classes'
  END AS knob,
  ranked.model,
  ranked.domain,
  ranked.requests AS failed_requests,
  better.rate,
  better.better_model,
  better.better_rate,
  better.support
FROM poor
LEFT JOIN ranked
  ON ranked.rank = 1
  AND ranked.session_id = poor.session_id
  AND ranked.session_start_ms = poor.session_start_ms
  AND (ranked.tenant IS NOT DISTINCT FROM poor.tenant)
LEFT JOIN better
  ON better.class = ranked.class
  AND better.model = ranked.model
  AND (better.domain IS NOT DISTINCT FROM ranked.domain)
