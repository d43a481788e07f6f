-- Was what a tool returned of use? One row for each request that went on after tools had been called, where prompts and answers
-- are kept: `information_density` is the share of the words that came with the new part of the prompt, the results among them,
-- which the answer then takes up (words of four letters and more, each once). NULL where nothing new came. A result that is
-- read and rightly found irrelevant counts as not used.
SELECT
  tenant,
  session_id,
  session_start_ms,
  place,
  model,
  domain,
  tool,
  new_words_used(previous_prompt, prompt_text, response_text) AS information_density
FROM (
  SELECT
    session_turns.tenant,
    session_turns.session_id,
    session_turns.session_start_ms,
    session_turns.place,
    session_turns.model,
    session_turns.domain,
    lag(session_turns.tools_called[CAST(cardinality(session_turns.tools_called) AS BIGINT)]['name']) OVER in_session AS tool,
    lag(requests.prompt_text) OVER in_session AS previous_prompt,
    requests.prompt_text,
    requests.response_text
  FROM session_turns
  JOIN requests
    ON requests.request_id = session_turns.request_id AND (requests.tenant IS NOT DISTINCT FROM session_turns.tenant)
  WINDOW in_session AS (
    PARTITION BY session_turns.tenant, session_turns.session_id, session_turns.session_start_ms ORDER BY session_turns.place
  )
)
WHERE tool IS NOT NULL AND previous_prompt IS NOT NULL AND prompt_text IS NOT NULL AND response_text IS NOT NULL
