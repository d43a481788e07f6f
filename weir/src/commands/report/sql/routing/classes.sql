-- The classes of failure that there are, as columns of the view that decides them.
SELECT column_name AS name
FROM information_schema.columns
WHERE table_name = 'request_outcomes'
  AND column_name IN (
    'hallucination', 'wrong_tool', 'bad_arguments', 'tool_error', 'retry_loop', 'refusal', 'time_out', 'truncation',
    'schema_violation', 'dissatisfaction', 'safety', 'fallback', 'other_error'
  )
ORDER BY column_name
