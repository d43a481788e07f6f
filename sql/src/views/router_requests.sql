-- One row per request of a router that logs line by line: the parts joined by request id, in whatever order and however
-- often they came. A part that is not there yet leaves its columns NULL, and `has_*` say which are. Of several lines of
-- one kind the last one counts: a request that calls several models has a usage line for each, and shows the last.
WITH last_lines AS (
  SELECT * EXCEPT (line_rank)
  FROM (
    SELECT
      *,
      row_number() OVER (
        PARTITION BY tenant, request_id, kind
        ORDER BY event_ms DESC, source_topic, source_partition, source_offset DESC
      ) AS line_rank
    FROM raw_router_events
  )
  WHERE line_rank = 1
),
decisions AS (SELECT * FROM last_lines WHERE kind = 'routing_decision'),
usages AS (SELECT * FROM last_lines WHERE kind = 'llm_usage'),
starts AS (SELECT * FROM last_lines WHERE kind = 'router_replay_start'),
completions AS (SELECT * FROM last_lines WHERE kind = 'router_replay_complete'),
ids AS (SELECT DISTINCT tenant, request_id FROM last_lines)
SELECT
  ids.tenant,
  ids.request_id,
  -- The router's record is made when routing ends, and so is the line about the decision: the request came before that.
  CAST(
    coalesce(c.recorded_ms, s.recorded_ms, d.event_ms) - coalesce(d.routing_latency_ms, 0) AS BIGINT
  ) AS arrival_ms,
  coalesce(c.router, s.router, d.router, u.router) AS router,
  coalesce(c.replay_id, s.replay_id) AS replay_id,
  coalesce(c.session_id, s.session_id) AS session_id,
  coalesce(c.chain_id, s.chain_id) AS chain_id,
  coalesce(c.turn, s.turn) AS turn,
  coalesce(c.domain, s.domain) AS domain,
  coalesce(c.axes, s.axes) AS axes,
  coalesce(c.requested_model, s.requested_model, d.requested_model) AS requested_model,
  coalesce(c.decision, s.decision, d.decision) AS decision,
  d.reason_code,
  coalesce(c.selection_method, s.selection_method) AS selection_method,
  coalesce(c.confidence, s.confidence) AS confidence,
  coalesce(c.model, s.model, d.model) AS intended_model,
  -- An answer from the semantic cache is no model's work.
  CASE WHEN coalesce(c.semantic_cache_hit, u.semantic_cache_hit) IS NOT TRUE THEN u.model END AS executed_model,
  coalesce(c.reasoning_mode, s.reasoning_mode, d.reasoning_mode) AS reasoning_mode,
  d.reasoning_effort,
  d.routing_latency_ms,
  u.completion_latency_ms,
  c.end_to_end_ms,
  coalesce(u.prompt_tokens, c.prompt_tokens) AS prompt_tokens,
  coalesce(u.cached_prompt_tokens, c.cached_prompt_tokens) AS cached_prompt_tokens,
  coalesce(u.completion_tokens, c.completion_tokens) AS completion_tokens,
  coalesce(u.cost_usd, c.cost_usd) AS cost_usd,
  coalesce(c.semantic_cache_hit, u.semantic_cache_hit) AS semantic_cache_hit,
  c.http_status,
  coalesce(c.lifecycle_state, s.lifecycle_state) AS lifecycle_state,
  c.terminal_reason,
  c.ended_ms,
  coalesce(c.tools_called, s.tools_called) AS tools_called,
  coalesce(c.safety_score, s.safety_score) AS safety_score,
  coalesce(c.pii_detected, s.pii_detected) AS pii_detected,
  c.hallucination_detected,
  c.hallucination_confidence,
  d.request_id IS NOT NULL AS has_decision,
  u.request_id IS NOT NULL AS has_usage,
  s.request_id IS NOT NULL AS has_start,
  c.request_id IS NOT NULL AS has_completion
FROM ids
LEFT JOIN decisions AS d ON d.request_id = ids.request_id AND d.tenant IS NOT DISTINCT FROM ids.tenant
LEFT JOIN usages AS u ON u.request_id = ids.request_id AND u.tenant IS NOT DISTINCT FROM ids.tenant
LEFT JOIN starts AS s ON s.request_id = ids.request_id AND s.tenant IS NOT DISTINCT FROM ids.tenant
LEFT JOIN completions AS c ON c.request_id = ids.request_id AND c.tenant IS NOT DISTINCT FROM ids.tenant
