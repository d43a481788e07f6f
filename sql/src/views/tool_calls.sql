-- Each tool call: by which request, of which model, at which place in its session, whether it worked, and how long it took.
SELECT
  tenant,
  request_id,
  session_id,
  session_start_ms,
  place,
  arrival_ms,
  model,
  domain,
  system_prompt_hash,
  call['name'] AS tool,
  call['success'] AS is_success,
  call['error_class'] AS error_class,
  CASE WHEN call['latency_ms'] BETWEEN 0 AND 1e9 THEN CAST(round(call['latency_ms'] * 1e3) AS BIGINT) END AS latency_us
FROM (
  SELECT
    requests.tenant,
    requests.request_id,
    requests.session_id,
    session_turns.session_start_ms,
    session_turns.place,
    requests.arrival_ms,
    requests.model,
    requests.domain,
    requests.system_prompt_hash,
    unnest(requests.tools_called) AS call
  FROM requests
  LEFT JOIN session_turns
    ON session_turns.request_id = requests.request_id AND (session_turns.tenant IS NOT DISTINCT FROM requests.tenant)
  WHERE cardinality(requests.tools_called) > 0
)
