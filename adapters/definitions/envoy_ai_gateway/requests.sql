SELECT
  "x-request-id" AS request_id,
  epoch_ms(start_time) AS arrival_ms,
  "session.id" AS session_id,
  'envoy-ai-gateway' AS router,
  duration AS end_to_end_ms,
  CASE
    WHEN "x-envoy-origin-path" LIKE '%/chat/completions' THEN 'chat_completions'
    WHEN "x-envoy-origin-path" LIKE '%/responses' THEN 'responses'
    WHEN "x-envoy-origin-path" LIKE '%/messages' THEN 'messages'
    WHEN "x-envoy-origin-path" LIKE '%/completions' THEN 'completions'
    WHEN "x-envoy-origin-path" LIKE '%/embeddings' THEN 'embeddings'
  END AS api,
  "gen_ai.request.model" AS requested_model,
  word(route_name) AS decision,
  "gen_ai.request.model" AS intended_model,
  CASE WHEN response_code BETWEEN 200 AND 299 THEN "gen_ai.request.model" END AS executed_model,
  "gen_ai.provider.name" AS provider,
  upstream_host AS instance,
  "gen_ai.usage.input_tokens" AS prompt_tokens,
  "gen_ai.usage.cache_read.input_tokens" AS cached_prompt_tokens,
  "gen_ai.usage.output_tokens" AS completion_tokens,
  "gen_ai.usage.reasoning_tokens" AS reasoning_tokens,
  -- 0 says that no answer went to the client.
  nullif(response_code, 0) AS http_status,
  CASE
    WHEN response_code = 0 OR response_code >= 400
    THEN coalesce(word(nullif(response_flags, '-')), 'http_' || CAST(response_code AS VARCHAR))
  END AS error_class,
  map(
    ['gen_ai_request_model_override', 'gen_ai_response_model'],
    ["gen_ai.request.model_override", "gen_ai.response.model"]
  ) AS extra
FROM message
WHERE "gen_ai.request.model" IS NOT NULL
