-- Each time that somebody or something said whether a tool call was allowed: feedback of kind `approval`, with the tool, and the
-- operation where the tool has several. Who asked, in which role and with which scopes, is the request's. One that names no
-- tenant is about the request of that id where only one tenant has it.
SELECT
  coalesce(feedback.tenant, requests.tenant) AS tenant,
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
LEFT JOIN (
  SELECT *, count(*) OVER (PARTITION BY request_id) AS tenants FROM requests WHERE request_id IN (SELECT request_id FROM feedback)
) AS requests
  ON requests.request_id = feedback.request_id
  AND (requests.tenant = feedback.tenant OR (feedback.tenant IS NULL AND requests.tenants = 1))
WHERE feedback.kind = 'approval' AND feedback.tool IS NOT NULL AND feedback.value BETWEEN 0 AND 1
