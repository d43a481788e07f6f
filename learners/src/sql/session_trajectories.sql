-- One row per turn of each session that is over: what it asked, which model was chosen, what followed. What its choice knew of
-- earlier turns is up to the reader: calls overlap, and only those that had ended had shown anything.
WITH turns AS (
  SELECT
    session_turns.*,
    requests.intended_model,
    COALESCE(NULLIF(requests.executed_model, ''), requests.intended_model) AS executed_model,
    requests.semantic_cache_hit IS TRUE AS is_from_cache,
    -- A prompt has tokens: a call that says 0 has not counted them.
    NULLIF(COALESCE(requests.prompt_tokens_before_compression, requests.prompt_tokens), 0) AS asked_tokens,
    cardinality(requests.tools_offered) > 0 AS offers_tools,
    requests.propensity,
    requests.policy_version,
    requests.candidates,
    -- What one of our own estimators predicted is no outcome.
    CASE WHEN rewards.source_rank <> 4 THEN rewards.quality END AS quality
  FROM session_turns
  JOIN requests
    ON requests.request_id = session_turns.request_id AND (requests.tenant IS NOT DISTINCT FROM session_turns.tenant)
  LEFT JOIN rewards
    ON rewards.request_id = session_turns.request_id AND (rewards.tenant IS NOT DISTINCT FROM session_turns.tenant)
)
SELECT
  turns.tenant,
  turns.session_id,
  turns.session_start_ms,
  turns.place,
  turns.arrival_ms,
  turns.end_ms,
  turns.domain,
  turns.offers_tools,
  turns.asked_tokens AS prompt_tokens,
  turns.previous_model,
  -- What the model holds of the session afterwards, if nothing is evicted.
  CAST(turns.prompt_tokens AS BIGINT) + COALESCE(turns.completion_tokens, 0) AS held_tokens,
  turns.is_failed,
  turns.is_error,
  turns.tools_called_count,
  turns.intended_model,
  turns.executed_model,
  turns.is_from_cache,
  turns.policy_version,
  turns.propensity,
  turns.candidates,
  turns.quality,
  turns.cost_nanousd / 1e9 AS cost_usd,
  CASE WHEN turns.has_end THEN (turns.end_ms - turns.arrival_ms) / 1e3 END AS latency_s,
  turns.prompt_tokens - turns.cached_prompt_tokens AS cold_tokens,
  -- Was the task done? What was said of the session, or else of its turns; NULL where nobody said anything.
  COALESCE(sessions.task_success, avg(turns.quality) OVER whole) >= 0.5 AS completed
FROM turns
JOIN sessions
  ON sessions.session_id = turns.session_id
  AND sessions.session_start_ms = turns.session_start_ms
  AND (sessions.tenant IS NOT DISTINCT FROM turns.tenant)
WHERE NOT sessions.is_open
WINDOW
  whole AS (
    PARTITION BY turns.tenant, turns.session_id, turns.session_start_ms
    ORDER BY turns.place
    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
  )
ORDER BY turns.session_start_ms, turns.tenant, turns.session_id, turns.place
