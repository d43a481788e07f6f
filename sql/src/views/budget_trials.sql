-- What if sessions had been stopped at three times the median of their place? One row for each domain and system prompt, over
-- sessions that have ended and places that at least 20 sessions got to: how many would have been stopped, which tokens they
-- went on to use, and how many of those that were judged came out well. A session that would have been stopped and was
-- good is harm; what it would have done with less is not known from what it did.
WITH crossed AS (
  SELECT
    session_tokens.tenant,
    session_tokens.session_id,
    session_tokens.session_start_ms,
    session_tokens.domain,
    session_tokens.system_prompt_hash,
    max(tokens_so_far) AS tokens,
    min(tokens_so_far) FILTER (WHERE token_budgets.sessions >= 20 AND tokens_so_far > trigger_tokens) AS tokens_at_trigger
  FROM session_tokens
  LEFT JOIN token_budgets
    ON token_budgets.place = session_tokens.place
    AND (token_budgets.domain IS NOT DISTINCT FROM session_tokens.domain)
    AND (token_budgets.system_prompt_hash IS NOT DISTINCT FROM session_tokens.system_prompt_hash)
  GROUP BY 1, 2, 3, 4, 5
),
judged AS (
  SELECT crossed.*, tokens_at_trigger IS NOT NULL AS is_stopped, coalesce(task_success, quality_mean) AS quality
  FROM crossed
  JOIN sessions
    ON sessions.session_id = crossed.session_id
    AND sessions.session_start_ms = crossed.session_start_ms
    AND (sessions.tenant IS NOT DISTINCT FROM crossed.tenant)
  WHERE NOT is_open
)
SELECT
  domain,
  system_prompt_hash,
  count(*) AS sessions,
  count(*) FILTER (WHERE is_stopped) AS stopped,
  CAST(sum(tokens) AS BIGINT) AS tokens,
  CAST(coalesce(sum(tokens - tokens_at_trigger) FILTER (WHERE is_stopped), 0) AS BIGINT) AS tokens_saved,
  count(quality) FILTER (WHERE is_stopped) AS stopped_judged,
  count(*) FILTER (WHERE is_stopped AND quality >= 0.5) AS stopped_good,
  count(quality) AS judged,
  count(*) FILTER (WHERE quality >= 0.5) AS good
FROM judged
GROUP BY domain, system_prompt_hash
