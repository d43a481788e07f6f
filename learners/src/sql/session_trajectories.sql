-- One row per turn of each session that is over, with what was known when its model was chosen and what followed. Everything that describes
-- the session so far is of earlier turns: a turn's own failure, tools and cached tokens come after its choice.
WITH turns AS (
  SELECT
    session_turns.*,
    requests.intended_model,
    COALESCE(requests.executed_model, requests.intended_model) AS executed_model,
    COALESCE(requests.intended_model = COALESCE(requests.executed_model, requests.intended_model), FALSE)
      AND requests.semantic_cache_hit IS NOT TRUE AS executed_as_intended,
    COALESCE(requests.prompt_tokens_before_compression, requests.prompt_tokens) AS asked_tokens,
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
  turns.domain,
  turns.offers_tools,
  turns.asked_tokens AS prompt_tokens,
  turns.previous_model,
  -- What the model before holds of the session, if nothing was evicted.
  lag(CAST(turns.prompt_tokens AS BIGINT) + COALESCE(turns.completion_tokens, 0)) OVER so_far AS warm_tokens,
  COALESCE(sum(CASE WHEN turns.is_failed THEN 1 ELSE 0 END) OVER before, 0) AS failures,
  COALESCE(lag(turns.is_failed) OVER so_far, FALSE) AS failed_last,
  COALESCE(sum(turns.tools_called_count) OVER before, 0) AS tool_calls,
  turns.intended_model,
  turns.executed_model,
  turns.executed_as_intended,
  turns.propensity,
  turns.policy_version,
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
  so_far AS (PARTITION BY turns.tenant, turns.session_id, turns.session_start_ms ORDER BY turns.place),
  before AS (
    PARTITION BY turns.tenant, turns.session_id, turns.session_start_ms
    ORDER BY turns.place
    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
  ),
  whole AS (
    PARTITION BY turns.tenant, turns.session_id, turns.session_start_ms
    ORDER BY turns.place
    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
  )
ORDER BY turns.session_start_ms, turns.tenant, turns.session_id, turns.place
