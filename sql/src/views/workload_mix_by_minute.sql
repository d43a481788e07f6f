-- Shares of the requests whose class is known; NULL where no router said. warm_share counts requests that hit the prefix
-- cache at all, warm_token_share the prompt tokens that it served.
SELECT
  to_timestamp_millis(window_start_ms) AS minute,
  requests,
  errors / nullif(CAST(outcome_reported_requests AS DOUBLE), 0) AS error_share,
  fallback_requests / nullif(CAST(fallback_reported_requests AS DOUBLE), 0) AS fallback_share,
  chat_requests / nullif(CAST(chat_requests + agent_requests AS DOUBLE), 0) AS chat_share,
  agent_requests / nullif(CAST(chat_requests + agent_requests AS DOUBLE), 0) AS agent_share,
  single_turn_requests / nullif(CAST(single_turn_requests + multi_turn_requests AS DOUBLE), 0) AS single_turn_share,
  multi_turn_requests / nullif(CAST(single_turn_requests + multi_turn_requests AS DOUBLE), 0) AS multi_turn_share,
  warm_requests / nullif(CAST(cache_reported_requests AS DOUBLE), 0) AS warm_share,
  cached_prompt_tokens / nullif(CAST(cache_reported_prompt_tokens AS DOUBLE), 0) AS warm_token_share,
  prefill_heavy_requests / nullif(CAST(tokens_reported_requests AS DOUBLE), 0) AS prefill_heavy_share,
  decode_heavy_requests / nullif(CAST(tokens_reported_requests AS DOUBLE), 0) AS decode_heavy_share,
  image_requests / nullif(CAST(modality_reported_requests AS DOUBLE), 0) AS image_share,
  audio_requests / nullif(CAST(modality_reported_requests AS DOUBLE), 0) AS audio_share,
  video_requests / nullif(CAST(modality_reported_requests AS DOUBLE), 0) AS video_share,
  tool_calls,
  tool_errors
FROM (
  SELECT
    window_start_ms,
    sum(requests) AS requests,
    sum(errors) AS errors,
    sum(outcome_reported_requests) AS outcome_reported_requests,
    sum(fallback_requests) AS fallback_requests,
    sum(fallback_reported_requests) AS fallback_reported_requests,
    sum(chat_requests) AS chat_requests,
    sum(agent_requests) AS agent_requests,
    sum(single_turn_requests) AS single_turn_requests,
    sum(multi_turn_requests) AS multi_turn_requests,
    sum(warm_requests) AS warm_requests,
    sum(cache_reported_requests) AS cache_reported_requests,
    sum(cached_prompt_tokens) AS cached_prompt_tokens,
    sum(cache_reported_prompt_tokens) AS cache_reported_prompt_tokens,
    sum(prefill_heavy_requests) AS prefill_heavy_requests,
    sum(decode_heavy_requests) AS decode_heavy_requests,
    sum(tokens_reported_requests) AS tokens_reported_requests,
    sum(image_requests) AS image_requests,
    sum(audio_requests) AS audio_requests,
    sum(video_requests) AS video_requests,
    sum(modality_reported_requests) AS modality_reported_requests,
    sum(tool_calls) AS tool_calls,
    sum(tool_errors) AS tool_errors
  FROM workload_minute
  GROUP BY window_start_ms
)
