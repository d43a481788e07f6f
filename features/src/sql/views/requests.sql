-- What kind of request is each one? One row a finished request, from `terminal_requests`.
-- In the stream that is a raw version's rows; in a session it is the last revision of each tenant's request id.
-- A column is NULL where the router did not report what it takes to tell: null is never imputed.
SELECT
  *,
  -- Agent: it offers or calls tools, or an agent delegated it. Not agent: the router reports the request's structure
  -- (tools, messages or API) and none of that is there. Tool-less agents hidden behind a plain chat look like chat. A
  -- router that does not name the calls may still say that generation ended for them; Anthropic's word is the second.
  CASE
    WHEN cardinality(tools_offered) > 0 OR tools_called_count > 0 OR delegation_parent_id IS NOT NULL THEN TRUE
    WHEN finish_reason IN ('tool_calls', 'tool_use') THEN TRUE
    WHEN tools_offered IS NOT NULL OR message_count IS NOT NULL OR api IS NOT NULL THEN FALSE
  END AS is_agent,
  -- Multi-turn: not the first turn, or chained to an earlier response. A lone message cannot be a later turn.
  CASE
    WHEN turn > 0 OR chain_id IS NOT NULL THEN TRUE
    WHEN turn = 0 OR message_count = 1 THEN FALSE
  END AS is_multi_turn,
  -- Warm: some of the prompt came from the prefix cache.
  cached_prompt_tokens > 0 AS is_warm,
  -- Prefill-heavy: at least 8 prompt tokens to a completion token; decode-heavy: at least as many completion as prompt
  -- tokens; between them neither. The ratio is a convention: a prefill handles many tokens in a step, a decode one.
  prompt_tokens >= 8 * CAST(completion_tokens AS BIGINT) AND prompt_tokens > 0 AS is_prefill_heavy,
  completion_tokens >= prompt_tokens AND completion_tokens > 0 AS is_decode_heavy,
  array_has(modalities, 'image') AS has_image,
  array_has(modalities, 'audio') AS has_audio,
  array_has(modalities, 'video') AS has_video,
  -- Error: the router names a class, the client got a 4xx or 5xx, or generation ended with an error. No error: it got
  -- another status, or generation ended in another way.
  CASE
    WHEN error_class IS NOT NULL OR http_status >= 400 OR finish_reason = 'error' THEN TRUE
    WHEN http_status IS NOT NULL OR finish_reason IS NOT NULL THEN FALSE
  END AS is_error,
  -- Fallback: another model answered than the one chosen. Without both names nobody can tell.
  CASE
    WHEN fallback_reason IS NOT NULL THEN TRUE
    -- A draw may name the provider and the mode of reasoning too; which model answered is all that is compared.
    ELSE action_part(executed_model, 'model') <> action_part(intended_model, 'model')
  END AS is_fallback,
  -- What the call was told of reasoning, as actions name it: the effort, else the mode. Off is off, whatever effort a
  -- client sent along.
  CASE WHEN reasoning_mode = 'off' THEN 'off' ELSE coalesce(nullif(reasoning_effort, ''), reasoning_mode) END AS told_reasoning
FROM (
  SELECT
    *,
    to_timestamp_millis(arrival_ms) AS arrival_time,
    -- The model that answered. A router that does not log what ran is believed to have run what it chose. An answer from
    -- the semantic cache is no model's work.
    CASE WHEN semantic_cache_hit IS NOT TRUE THEN action_part(coalesce(executed_model, intended_model), 'model') END AS model,
    CAST(cardinality(tools_called) AS BIGINT) AS tools_called_count,
    failed_tool_calls(tools_called) AS tools_failed_count,
    -- Whole µs and nano-USD, so that sums do not depend on their order. Outside these bounds (11 days, a million USD;
    -- NaN too) a number is a broken clock or meter: it is left out of the sum and of its count.
    CASE WHEN ttft_ms BETWEEN 0 AND 1e9 THEN CAST(round(ttft_ms * 1e3) AS BIGINT) END AS ttft_us,
    CASE WHEN tpot_ms BETWEEN 0 AND 1e9 THEN CAST(round(tpot_ms * 1e3) AS BIGINT) END AS tpot_us,
    CASE WHEN end_to_end_ms BETWEEN 0 AND 1e9 THEN CAST(round(end_to_end_ms * 1e3) AS BIGINT) END AS e2e_us,
    CASE WHEN cost_usd BETWEEN 0 AND 1e6 THEN CAST(round(cost_usd * 1e9) AS BIGINT) END AS cost_nanousd
  FROM terminal_requests
)
