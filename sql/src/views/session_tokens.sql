-- Each request of a session, with the tokens of all requests so far, and of those that failed. The domain and the system prompt
-- are those with which the session began.
SELECT
  tenant,
  session_id,
  session_start_ms,
  place,
  request_id,
  first_value(domain) OVER so_far AS domain,
  first_value(system_prompt_hash) OVER so_far AS system_prompt_hash,
  CAST(sum(tokens) OVER so_far AS BIGINT) AS tokens_so_far,
  CAST(sum(CASE WHEN is_failed THEN tokens ELSE 0 END) OVER so_far AS BIGINT) AS failed_so_far
FROM (
  SELECT *, CAST(coalesce(prompt_tokens, 0) AS BIGINT) + coalesce(completion_tokens, 0) AS tokens
  FROM session_turns
)
WINDOW so_far AS (
  PARTITION BY tenant, session_id, session_start_ms ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
)
