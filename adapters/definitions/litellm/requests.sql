SELECT
  id AS request_id,
  epoch_ms(startTime) AS arrival_ms,
  -- Releases before 1.80 have no session_id: there trace_id is the client's session where it names one.
  coalesce(nullif(session_id, ''), trace_id) AS session_id,
  coalesce(metadata.user_api_key_org_id, metadata.user_api_key_team_id) AS tenant,
  coalesce(
    nullif(end_user, ''),
    metadata.user_api_key_end_user_id,
    metadata.user_api_key_user_id,
    json_word(model_parameters, 'user'),
    metadata.user_api_key_hash
  ) AS caller,
  tag_map(request_tags) AS gateway_tags,
  'litellm' AS router,
  -- Each attempt of a call brings the draw, and only the last one can succeed: so one draw is one decision.
  CASE WHEN status = 'success' THEN metadata.requester_metadata.weir.decision.policy_id END AS policy_version,
  CASE WHEN status = 'success' AND stream THEN 1000.0 * (completionStartTime - startTime) END AS ttft_ms,
  CASE
    WHEN status = 'success' AND stream AND completion_tokens > 1
    THEN 1000.0 * (endTime - completionStartTime) / (completion_tokens - 1)
  END AS tpot_ms,
  1000.0 * (endTime - startTime) AS end_to_end_ms,
  CASE
    WHEN call_type IN ('completion', 'acompletion') THEN 'chat_completions'
    WHEN call_type IN ('responses', 'aresponses') THEN 'responses'
    WHEN call_type LIKE '%anthropic_messages' THEN 'messages'
    ELSE call_type
  END AS api,
  json_length(messages, '$') AS message_count,
  json_words(model_parameters, 'tools[*].function.name') AS tools_offered,
  array_transform(
    json_words(response, 'choices[*].message.tool_calls[*].function.name'),
    name -> named_struct('name', name)
  ) AS tools_called,
  CASE
    WHEN json_word(messages, '[0].role') IN ('system', 'developer')
    THEN text_hash(json_text(messages, '[0].content'))
  END AS system_prompt_hash,
  -- What callers claim may be anything: a value that Weir's door refuses must not take the request with it.
  CASE
    WHEN metadata.requester_metadata.weir.context.turn >= 0 THEN metadata.requester_metadata.weir.context.turn
  END AS turn,
  word(metadata.requester_metadata.weir.context.domain) AS domain,
  coalesce(word(metadata.requester_metadata.weir.context.complexity), metadata.routing_decision.tier) AS complexity,
  word(metadata.requester_metadata.weir.context.language) AS language,
  metadata.requester_metadata.weir.context.fact_check AS fact_check,
  -- Without a router there is no group.
  coalesce(nullif(model_group, ''), model) AS requested_model,
  metadata.routing_decision.cause AS decision,
  CASE
    WHEN status = 'success'
      AND coalesce(metadata.requester_metadata.weir.decision.propensity, 1) > 0
      AND coalesce(metadata.requester_metadata.weir.decision.propensity, 1) <= 1
      AND coalesce(
        array_min(array_transform(metadata.requester_metadata.weir.decision.candidates, one -> one['propensity'])) >= 0,
        TRUE
      )
      AND coalesce(
        array_max(array_transform(metadata.requester_metadata.weir.decision.candidates, one -> one['propensity'])) <= 1,
        TRUE
      )
    THEN metadata.requester_metadata.weir.decision.candidates
  END AS candidates,
  -- A draw before the call comes first: a fallback is a call of another group that keeps the metadata.
  coalesce(
    metadata.requester_metadata.weir.decision.model,
    metadata.routing_decision.routed_model,
    nullif(model_group, ''),
    model
  ) AS intended_model,
  CASE
    WHEN status = 'success'
      AND coalesce(metadata.requester_metadata.weir.decision.propensity, 1) > 0
      AND coalesce(metadata.requester_metadata.weir.decision.propensity, 1) <= 1
      AND coalesce(
        array_min(array_transform(metadata.requester_metadata.weir.decision.candidates, one -> one['propensity'])) >= 0,
        TRUE
      )
      AND coalesce(
        array_max(array_transform(metadata.requester_metadata.weir.decision.candidates, one -> one['propensity'])) <= 1,
        TRUE
      )
    THEN metadata.requester_metadata.weir.decision.propensity
  END AS propensity,
  CASE WHEN status = 'success' THEN coalesce(nullif(model_group, ''), model) END AS executed_model,
  1 + TRY_CAST(json_number(hidden_params.additional_headers, '["x-litellm-attempted-retries"]') AS INT) AS attempt,
  custom_llm_provider AS provider,
  json_word(model_parameters, 'reasoning_effort') AS reasoning_effort,
  model_id AS instance,
  -- A call that failed counts 0 where nothing was counted.
  CASE WHEN status = 'success' OR prompt_tokens > 0 THEN prompt_tokens END AS prompt_tokens,
  TRY_CAST(json_number(metadata.usage_object, 'prompt_tokens_details.cached_tokens') AS INT) AS cached_prompt_tokens,
  CASE WHEN status = 'success' OR completion_tokens > 0 THEN completion_tokens END AS completion_tokens,
  TRY_CAST(json_number(metadata.usage_object, 'completion_tokens_details.reasoning_tokens') AS INT)
    AS reasoning_tokens,
  CASE WHEN status = 'success' THEN 200 ELSE TRY_CAST(error_information.error_code AS INT) END AS http_status,
  CASE WHEN status <> 'success' THEN coalesce(nullif(error_information.error_class, ''), 'unknown') END AS error_class,
  json_word(response, 'choices[0].finish_reason') AS finish_reason,
  cache_hit AS semantic_cache_hit,
  -- 0 also stands for a price that LiteLLM does not know.
  CASE
    WHEN response_cost > 0 OR (status = 'success' AND response_cost_failure_debug_info IS NULL) THEN response_cost
  END AS cost_usd,
  messages AS prompt_text,
  CASE
    WHEN status = 'success'
    THEN coalesce(json_text(response, 'choices[0].message.content'), json_text(response, 'choices[0].text'), response)
  END AS response_text,
  map(['litellm_model', 'litellm_call_type'], [model, call_type]) AS extra
FROM message
WHERE call_type IS NULL OR NOT regexp_like(
  call_type,
  'embed|image|speech|transcription|rerank|moderation|search|ocr|video|file|batch|fine_tun|assistant|thread|vector_store|mcp|realtime|container|pass_through'
)
