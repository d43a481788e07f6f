-- Claude Code sessions as requests. An agent of a session is a session of ours: its requests follow each other. The clock
-- of every session begins at 0, so arrivals of different sessions cannot be compared.
-- Not taken: tools, because calls have no names; `hit_blocks`, because it is computed for a cache without limits, not
-- reported by an engine; block ids, because they mean something only inside a session.
SELECT
  trace_id || '/' || agent || '/' || seq AS request_id,
  CAST(1700006400000 + t_s * 1000 AS BIGINT) AS arrival_ms,
  trace_id || '/' || agent AS session_id,
  seq AS turn,
  model AS executed_model,
  input_tokens AS prompt_tokens,
  output_tokens AS completion_tokens,
  CASE stop WHEN 'tool_use' THEN 'tool_calls' WHEN 'end_turn' THEN 'stop' END AS finish_reason,
  -- An answer with a part that thinks was made in reasoning mode. One without says nothing of the mode.
  CASE WHEN output_types LIKE '%thinking%' THEN 'on' END AS reasoning_mode,
  ttft_s * 1000 AS ttft_ms,
  api_time_s * 1000 AS end_to_end_ms
FROM requests
