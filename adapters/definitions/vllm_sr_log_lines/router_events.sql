SELECT
  request_id,
  epoch_ms(ts) AS event_ms,
  event AS kind,
  'vllm-semantic-router' AS router,
  replay_id,
  -- Where the client named no session the router makes one up, another one on each turn: that is none.
  CASE
    WHEN NOT regexp_like(coalesce(session_id, ''), '^(rid|cc-full)-[0-9a-f]{16}$')
    THEN coalesce(nullif(session_id, ''), nullif(conversation_id, ''))
    ELSE nullif(conversation_id, '')
  END AS session_id,
  nullif(previous_response_id, '') AS chain_id,
  turn_index AS turn,
  reason_code,
  original_model AS requested_model,
  coalesce(selected_model, model) AS model,
  nullif(decision, '') AS decision,
  nullif(category, '') AS domain,
  nullif(selection_method, '') AS selection_method,
  confidence_score AS confidence,
  coalesce(nullif(reasoning_mode, ''), CASE WHEN reasoning_enabled THEN 'on' WHEN NOT reasoning_enabled THEN 'off' END)
    AS reasoning_mode,
  nullif(reasoning_effort, '') AS reasoning_effort,
  routing_latency_ms,
  completion_latency_ms,
  prompt_tokens,
  cached_prompt_tokens,
  completion_tokens,
  -- Without prices the router writes a cost of 0 in the currency "unknown".
  CASE WHEN upper(currency) = 'USD' OR from_cache THEN coalesce(actual_cost, cost) END AS cost_usd,
  from_cache AS semantic_cache_hit,
  streaming,
  nullif(response_status, 0) AS http_status,
  nullif(lifecycle_state, '') AS lifecycle_state,
  word(terminal_reason) AS terminal_reason,
  epoch_ms(timestamp) AS recorded_ms,
  epoch_ms(ended_at) AS ended_ms,
  duration_ms AS end_to_end_ms,
  json_map(signals, '$') AS axes,
  tool_names AS tools_called,
  CASE WHEN jailbreak_detected THEN jailbreak_confidence END AS safety_score,
  coalesce(pii_detected OR pii_blocked, pii_detected, pii_blocked) AS pii_detected,
  hallucination_detected,
  hallucination_confidence
FROM message
WHERE event IN ('routing_decision', 'llm_usage', 'router_replay_start', 'router_replay_complete')
