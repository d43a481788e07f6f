-- Messages that aider sent. A session is approximated at the source by the number of the program's launch. The one absurd
-- price is clipped, as the source's notes advise.
SELECT
  'aider/' || row_number() OVER (ORDER BY time_unix_s, "user", session, prompt_tokens, completion_tokens) AS request_id,
  time_unix_s * 1000 AS arrival_ms,
  "user" || '/' || session AS session_id,
  main_model AS executed_model,
  prompt_tokens,
  completion_tokens,
  least(cost, 5) AS cost_usd
FROM events
WHERE event = 'message_send'
