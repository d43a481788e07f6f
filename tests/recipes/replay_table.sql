-- The replay table of vLLM Semantic Router (3d48f8c9, 2026-08-22): its columns and their types.
CREATE TABLE router_replay_records (
  id varchar(255) PRIMARY KEY, timestamp timestamp NOT NULL, request_id varchar(255), recipe text,
  decision varchar(255), decision_tier int, decision_priority int, category varchar(255), original_model varchar(255),
  selected_model varchar(255), reasoning_mode varchar(255),
  signals jsonb, projections jsonb, projection_scores jsonb, signal_confidences jsonb, signal_values jsonb,
  tool_trace jsonb, projection_trace jsonb, session_policy jsonb, route_diagnostics jsonb, learning jsonb, outcomes jsonb,
  request_body text, response_body text, response_status int,
  lifecycle_state varchar(32) NOT NULL, ended_at timestamp, duration_ms bigint, terminal_reason text,
  from_cache boolean, streaming boolean, request_body_truncated boolean, response_body_truncated boolean,
  guardrails_enabled boolean, jailbreak_enabled boolean, pii_enabled boolean,
  prompt text, prompt_truncated boolean, tool_definitions text, tool_definitions_truncated boolean,
  rag_enabled boolean, rag_backend varchar(255), rag_context_length int, rag_similarity_score real,
  hallucination_enabled boolean, hallucination_detected boolean, hallucination_confidence real,
  hallucination_spans jsonb, hallucination_span_details jsonb,
  prompt_tokens int, cached_prompt_tokens int, cache_write_tokens int, completion_tokens int, total_tokens int,
  actual_cost double precision, baseline_cost double precision, cost_savings double precision, currency varchar(32),
  baseline_model varchar(255), created_at timestamp DEFAULT now(),
  session_id varchar(255), turn_index int, previous_response_id varchar(255), conversation_id varchar(255),
  cache_similarity real, context_token_count int
);
-- So that an update carries the large columns that it does not change.
ALTER TABLE router_replay_records REPLICA IDENTITY FULL;
