-- What if something had been done about sessions that use several times the median of their place? One row for each domain,
-- system prompt and step of the response, over sessions that have ended and places that at least 20 sessions got to. The
-- steps, by multiples of the median: offer fewer tools from 2, compress the prompt from 3, take a cheaper model from 4, stop at
-- 6. `reached` sessions would have met the step, and `tokens_after` is what they went on to use: all of it is saved by
-- stopping, some of it by the others. `reached_good` of the `reached_judged` came out well all the same: to have stopped them
-- would have been harm. What they would have done with less is not known from what they did.
--
-- To compress only helps where the model at work reads more than it can use: `beyond_context` sessions had a prompt above its
-- `effective_context` when they met the step, as far as that is known.
WITH steps AS (
  SELECT * FROM (VALUES (1, 'offer fewer tools', 2), (2, 'compress', 3), (3, 'cheaper model', 4), (4, 'stop', 6))
    AS steps (step, action, multiple)
),
contexts AS (
  SELECT DISTINCT model, domain, effective_tokens FROM effective_context
),
places AS (
  SELECT
    session_tokens.tenant,
    session_tokens.session_id,
    session_tokens.session_start_ms,
    session_tokens.domain,
    session_tokens.system_prompt_hash,
    session_tokens.place,
    tokens_so_far,
    CASE WHEN token_budgets.sessions >= 20 THEN tokens_p50 END AS tokens_p50,
    session_turns.prompt_tokens > contexts.effective_tokens AS is_beyond
  FROM session_tokens
  JOIN session_turns
    ON session_turns.session_id = session_tokens.session_id
    AND session_turns.session_start_ms = session_tokens.session_start_ms
    AND session_turns.place = session_tokens.place
    AND (session_turns.tenant IS NOT DISTINCT FROM session_tokens.tenant)
  LEFT JOIN contexts
    ON contexts.model = session_turns.model AND (contexts.domain IS NOT DISTINCT FROM session_turns.domain)
  LEFT JOIN token_budgets
    ON token_budgets.place = session_tokens.place
    AND (token_budgets.domain IS NOT DISTINCT FROM session_tokens.domain)
    AND (token_budgets.system_prompt_hash IS NOT DISTINCT FROM session_tokens.system_prompt_hash)
),
met AS (
  SELECT
    places.tenant,
    places.session_id,
    places.session_start_ms,
    places.domain,
    places.system_prompt_hash,
    steps.step,
    steps.action,
    steps.multiple,
    max(tokens_so_far) AS tokens,
    min(tokens_so_far) FILTER (WHERE tokens_so_far > multiple * tokens_p50) AS tokens_at_step,
    first_value(is_beyond ORDER BY place) FILTER (WHERE tokens_so_far > multiple * tokens_p50) AS is_beyond
  FROM places
  CROSS JOIN steps
  GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
),
judged AS (
  SELECT met.*, tokens_at_step IS NOT NULL AS is_met, coalesce(task_success, quality_mean) AS quality
  FROM met
  JOIN sessions
    ON sessions.session_id = met.session_id
    AND sessions.session_start_ms = met.session_start_ms
    AND (sessions.tenant IS NOT DISTINCT FROM met.tenant)
  WHERE NOT is_open
)
SELECT
  domain,
  system_prompt_hash,
  step,
  action,
  multiple,
  count(*) AS sessions,
  count(*) FILTER (WHERE is_met) AS reached,
  CAST(sum(tokens) AS BIGINT) AS tokens,
  CAST(coalesce(sum(tokens - tokens_at_step) FILTER (WHERE is_met), 0) AS BIGINT) AS tokens_after,
  count(quality) FILTER (WHERE is_met) AS reached_judged,
  count(*) FILTER (WHERE is_met AND quality >= 0.5) AS reached_good,
  count(quality) AS judged,
  count(*) FILTER (WHERE quality >= 0.5) AS good,
  count(*) FILTER (WHERE is_met AND is_beyond) AS beyond_context
FROM judged
GROUP BY domain, system_prompt_hash, step, action, multiple
