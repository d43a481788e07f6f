-- What a system prompt foretells: by its fingerprint, how long sessions are, how many tools they call, how long they pause.
-- A session is what the router calls one, and its part with this fingerprint counts, so a subagent with a system prompt of
-- its own is a session of its own. Requests without a session are in `requests` and `agent_share` only. A figure is NULL
-- where no request has what it takes.
--
-- A gap is from one arrival to the next; a pause begins when the answer ends, so that it is the time of whoever uses the
-- answer: a person who thinks, a tool that runs. Requests that overlap have no pause between them.
WITH turns AS (
  SELECT
    tenant,
    session_id,
    system_prompt_hash,
    is_agent,
    tools_called_count,
    arrival_ms - lag(arrival_ms) OVER in_session AS gap_ms,
    arrival_ms - lag(arrival_ms + e2e_us / 1000) OVER in_session AS pause_ms
  FROM requests
  WHERE system_prompt_hash IS NOT NULL
  WINDOW in_session AS (
    -- A request without a session is alone.
    PARTITION BY tenant, system_prompt_hash, session_id, CASE WHEN session_id IS NULL THEN request_id END
    ORDER BY arrival_ms, request_id
  )
),
sessions AS (
  SELECT
    system_prompt_hash,
    session_id IS NOT NULL AS is_session,
    count(*) AS requests,
    count(is_agent) AS classified_requests,
    count(*) FILTER (WHERE is_agent) AS agent_requests,
    sum(tools_called_count) AS tool_calls,
    ddsketch(gap_ms) AS gaps_ms,
    ddsketch(pause_ms) FILTER (WHERE pause_ms >= 0) AS pauses_ms
  FROM turns
  GROUP BY tenant, system_prompt_hash, session_id
),
merged AS (
  SELECT
    system_prompt_hash,
    sum(requests) AS requests,
    sum(classified_requests) AS classified_requests,
    sum(agent_requests) AS agent_requests,
    count(*) FILTER (WHERE is_session) AS sessions,
    sum(requests) FILTER (WHERE is_session) AS session_requests,
    ddsketch(requests) FILTER (WHERE is_session) AS turns,
    sum(tool_calls) FILTER (WHERE is_session) AS tool_calls,
    count(tool_calls) FILTER (WHERE is_session) AS tool_reporting_sessions,
    ddsketch_merge(gaps_ms) AS gaps_ms,
    ddsketch_merge(pauses_ms) AS pauses_ms
  FROM sessions
  GROUP BY system_prompt_hash
)
SELECT
  system_prompt_hash,
  requests,
  agent_requests / nullif(CAST(classified_requests AS DOUBLE), 0) AS agent_share,
  sessions,
  session_requests / nullif(CAST(sessions AS DOUBLE), 0) AS turns_per_session,
  ddsketch_quantile(turns, 0.5) AS turns_p50,
  ddsketch_quantile(turns, 0.9) AS turns_p90,
  tool_calls / nullif(CAST(tool_reporting_sessions AS DOUBLE), 0) AS tool_calls_per_session,
  ddsketch_quantile(gaps_ms, 0.5) AS gap_p50_ms,
  ddsketch_quantile(pauses_ms, 0.5) AS pause_p50_ms
FROM merged
