-- The agents' calls of tau-bench simulations; those of the simulated user are left out. The trace counts tool calls, but does
-- not name the tools, so no call can be written down. Runs were started by experimenters: their times are no traffic.
SELECT
  calls.sim_id || '/' || calls.i AS request_id,
  CAST(calls.t_unix_s * 1000 AS BIGINT) AS arrival_ms,
  calls.sim_id AS session_id,
  CAST(row_number() OVER (PARTITION BY calls.sim_id ORDER BY calls.i) - 1 AS INT) AS turn,
  simulations.domain,
  simulations.agent_model AS executed_model,
  calls.prompt_tokens,
  calls.completion_tokens,
  calls.cost_usd
FROM llm_calls AS calls
JOIN simulations ON simulations.sim_id = calls.sim_id
WHERE calls.role = 'assistant'
