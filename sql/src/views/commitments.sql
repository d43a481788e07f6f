-- Where has a model said what it will not do, or not again? One row for each answer that is kept and in which a rule finds such a
-- declaration: proposals for block rules, for the owner of the agent to look at. Nothing acts by them. `declaration` is the
-- rule that found it, `subject` the words that follow, for a person to see what it is about. Rules read English, and miss what
-- is put in other words: docs/concepts/outcomes.md says how often they are right.
SELECT
  tenant,
  request_id,
  session_id,
  arrival_ms,
  caller,
  model,
  found['declaration'] AS declaration,
  found['subject'] AS subject
FROM (
  SELECT *, boundary_declaration(response_text) AS found FROM requests WHERE response_text IS NOT NULL
)
WHERE found IS NOT NULL
