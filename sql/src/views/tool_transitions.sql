-- Which tool follows which? One row for each pair of tools called in two requests of a session, one after the other, with the
-- model that called the second, and how often the second worked.
SELECT
  before.tool AS from_tool,
  after.tool AS to_tool,
  after.model,
  count(*) AS times,
  count(after.is_success) AS known,
  count(*) FILTER (WHERE after.is_success) AS successes
FROM tool_calls AS before
JOIN tool_calls AS after
  ON after.session_id = before.session_id
  AND after.session_start_ms = before.session_start_ms
  AND (after.tenant IS NOT DISTINCT FROM before.tenant)
  AND after.place = before.place + 1
GROUP BY 1, 2, 3
