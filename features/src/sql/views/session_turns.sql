-- Where does each request stand in its session? A session is what the router calls one (`session_id`), until nothing of it
-- has arrived or run for 30 minutes: what comes later under the same id is another session. A session is known by its id
-- and the arrival of its first request. All of it is a function of the rows: a request that comes late can join two
-- sessions, or become the first of one. Requests without a session id are in none.
SELECT
  tenant,
  session_id,
  min(arrival_ms) OVER (PARTITION BY tenant, session_id, sitting) AS session_start_ms,
  CAST(row_number() OVER (PARTITION BY tenant, session_id, sitting ORDER BY arrival_ms, request_id) AS BIGINT) AS place,
  request_id,
  arrival_ms,
  end_ms,
  e2e_us IS NOT NULL AS has_end,
  -- From the end of what came before to the arrival: the time of a person who thinks or of a tool that runs. Requests that
  -- overlap have no pause between them, and one whose predecessor tells no duration has none that is known.
  CASE WHEN NOT begins AND previous_has_end AND arrival_ms >= previous_end_ms THEN arrival_ms - previous_end_ms END
    AS pause_ms,
  CASE WHEN NOT begins THEN previous_model END AS previous_model,
  CASE WHEN NOT begins THEN model <> previous_model END AS is_switch,
  CASE WHEN NOT begins THEN prompt_tokens - previous_prompt_tokens END AS prompt_growth_tokens,
  -- Failed: the call ended with an error, or a tool that it called did.
  CASE
    WHEN is_error OR tools_failed_count > 0 THEN TRUE
    WHEN is_error IS NOT NULL OR tools_failed_count IS NOT NULL THEN FALSE
  END AS is_failed,
  model,
  pool,
  domain,
  system_prompt_hash,
  policy_version,
  is_agent,
  is_error,
  is_fallback,
  error_class,
  tools_called,
  tools_called_count,
  tools_failed_count,
  prompt_tokens,
  cached_prompt_tokens,
  completion_tokens,
  safety_score,
  ttft_us,
  cost_nanousd
FROM (
  SELECT
    *,
    sum(CASE WHEN begins THEN 1 ELSE 0 END) OVER (
      PARTITION BY tenant, session_id
      ORDER BY arrival_ms, request_id
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS sitting
  FROM (
    SELECT *, coalesce(arrival_ms - last_end_ms > 1800000, TRUE) AS begins
    FROM (
      SELECT
        *,
        max(end_ms) OVER (
          PARTITION BY tenant, session_id
          ORDER BY arrival_ms, request_id
          ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS last_end_ms,
        lag(end_ms) OVER in_session AS previous_end_ms,
        lag(e2e_us IS NOT NULL) OVER in_session AS previous_has_end,
        lag(model) OVER in_session AS previous_model,
        lag(prompt_tokens) OVER in_session AS previous_prompt_tokens
      FROM (SELECT *, arrival_ms + coalesce(e2e_us, 0) / 1000 AS end_ms FROM requests WHERE session_id IS NOT NULL)
      WINDOW in_session AS (PARTITION BY tenant, session_id ORDER BY arrival_ms, request_id)
    )
  )
)
