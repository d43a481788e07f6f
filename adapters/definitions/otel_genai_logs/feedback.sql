SELECT
  coalesce(nullif(trace_id, '') || '-' || nullif(span_id, ''), attributes['gen_ai.response.id'])
    || '/' || attributes['gen_ai.evaluation.name']
    || '/' || CAST(TRY_CAST(coalesce(nullif(time_ms, 0), observed_time_ms) AS BIGINT) AS VARCHAR) AS feedback_id,
  TRY_CAST(coalesce(nullif(time_ms, 0), observed_time_ms) AS BIGINT) AS event_ms,
  'evaluation' AS source,
  'rating' AS kind,
  coalesce(attributes['tenant.id'], resource['tenant.id'], resource['service.namespace']) AS tenant,
  coalesce(nullif(trace_id, '') || '-' || nullif(span_id, ''), attributes['gen_ai.response.id']) AS request_id,
  attributes['gen_ai.conversation.id'] AS session_id,
  CASE
    WHEN TRY_CAST(attributes['gen_ai.evaluation.score.value'] AS DOUBLE) BETWEEN 0 AND 1
    THEN TRY_CAST(attributes['gen_ai.evaluation.score.value'] AS DOUBLE)
  END AS value,
  word(replace(attributes['gen_ai.evaluation.score.label'], ' ', '_')) AS label,
  attributes['error.type'] IS NULL AS checked,
  word(replace(attributes['gen_ai.evaluation.name'], ' ', '_')) AS estimator,
  map(
    ['score', 'error_type'],
    [attributes['gen_ai.evaluation.score.value'], word(attributes['error.type'])]
  ) AS extra
FROM message
WHERE coalesce(nullif(event_name, ''), attributes['event.name']) = 'gen_ai.evaluation.result'
