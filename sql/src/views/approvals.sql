-- Each time that somebody or something said whether a tool call was allowed: feedback of kind `approval`, with the tool, and the
-- operation where the tool has several. Who asked, in which role and with which scopes, is the request's.
SELECT
  feedback.tenant,
  feedback.feedback_id,
  feedback.event_ms,
  feedback.source,
  feedback.request_id,
  requests.caller,
  requests.role,
  requests.scopes,
  requests.domain,
  feedback.tool,
  feedback.operation,
  feedback.value >= 0.5 AS is_approved
FROM feedback
LEFT JOIN requests
  ON requests.request_id = feedback.request_id AND (feedback.tenant IS NULL OR requests.tenant = feedback.tenant)
WHERE feedback.kind = 'approval' AND feedback.tool IS NOT NULL AND feedback.value BETWEEN 0 AND 1
