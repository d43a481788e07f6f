SELECT
  trace_id || '-' || span_id AS request_id,
  TRY_CAST(start_time_ms AS BIGINT) AS arrival_ms,
  coalesce(attributes['gen_ai.conversation.id'], attributes['session.id']) AS session_id,
  CASE WHEN parent_span_id <> '' THEN trace_id || '-' || parent_span_id END AS parent_request_id,
  coalesce(attributes['tenant.id'], resource['tenant.id'], resource['service.namespace']) AS tenant,
  coalesce(attributes['user.id'], attributes['enduser.id']) AS caller,
  service_name AS router,
  1000.0 * TRY_CAST(attributes['gen_ai.response.time_to_first_chunk'] AS DOUBLE) AS ttft_ms,
  CASE
    WHEN TRY_CAST(attributes['gen_ai.usage.output_tokens'] AS INT) > 1
    THEN (end_time_ms - start_time_ms - 1000.0 * TRY_CAST(attributes['gen_ai.response.time_to_first_chunk'] AS DOUBLE))
      / (TRY_CAST(attributes['gen_ai.usage.output_tokens'] AS INT) - 1)
  END AS tpot_ms,
  end_time_ms - start_time_ms AS end_to_end_ms,
  CASE attributes['gen_ai.operation.name'] WHEN 'chat' THEN 'chat_completions' ELSE attributes['gen_ai.operation.name'] END
    AS api,
  json_length(attributes['gen_ai.input.messages'], '$') AS message_count,
  json_words(attributes['gen_ai.tool.definitions'], '[*].name') AS tools_offered,
  text_hash(attributes['gen_ai.system_instructions']) AS system_prompt_hash,
  attributes['gen_ai.request.model'] AS requested_model,
  attributes['gen_ai.request.model'] AS intended_model,
  -- A provider answers with a dated name of the model that was asked for (gpt-4o, gpt-4o-2024-08-06): that is no
  -- fallback. Without an error and without a name, the requested model answered.
  CASE
    WHEN starts_with(attributes['gen_ai.response.model'], attributes['gen_ai.request.model'])
      OR (
        attributes['gen_ai.response.model'] IS NULL
        AND attributes['error.type'] IS NULL
        AND status_code IS DISTINCT FROM 'error'
      )
    THEN attributes['gen_ai.request.model']
    ELSE attributes['gen_ai.response.model']
  END AS executed_model,
  coalesce(attributes['gen_ai.provider.name'], attributes['gen_ai.system']) AS provider,
  attributes['gen_ai.request.reasoning.level'] AS reasoning_effort,
  coalesce(attributes['server.address'], resource['service.instance.id']) AS instance,
  TRY_CAST(coalesce(attributes['gen_ai.usage.input_tokens'], attributes['gen_ai.usage.prompt_tokens']) AS INT)
    AS prompt_tokens,
  TRY_CAST(attributes['gen_ai.usage.cache_read.input_tokens'] AS INT) AS cached_prompt_tokens,
  TRY_CAST(coalesce(attributes['gen_ai.usage.output_tokens'], attributes['gen_ai.usage.completion_tokens']) AS INT)
    AS completion_tokens,
  TRY_CAST(attributes['gen_ai.usage.reasoning.output_tokens'] AS INT) AS reasoning_tokens,
  TRY_CAST(attributes['http.response.status_code'] AS INT) AS http_status,
  coalesce(attributes['error.type'], CASE WHEN status_code = 'error' THEN 'unknown' END) AS error_class,
  -- A list of one per choice, written as JSON; the first choice's counts.
  coalesce(json_word(attributes['gen_ai.response.finish_reasons'], '[0]'), word(attributes['gen_ai.response.finish_reasons']))
    AS finish_reason,
  CASE
    WHEN attributes['gen_ai.response.model'] IS NOT NULL
    THEN map(['gen_ai_response_model'], [attributes['gen_ai.response.model']])
  END AS extra,
  coalesce(attributes['gen_ai.input.messages'], attributes['gen_ai.prompt']) AS prompt_text,
  coalesce(attributes['gen_ai.output.messages'], attributes['gen_ai.completion']) AS response_text
FROM message
WHERE attributes['gen_ai.operation.name'] IN ('chat', 'text_completion', 'generate_content')
