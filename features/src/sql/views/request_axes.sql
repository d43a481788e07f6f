-- On which side of every workload axis does each request lie, and which rule said so? One row a request of `requests`.
-- An axis has a value and beside it the name of the rule that gave it, the first one of its list that holds. Both are
-- NULL where no rule holds, because what it takes to tell was not reported: null is never imputed. The rules read
-- structure and metadata; none needs text. `docs/concepts/axes.md` says where they come from.
SELECT
  tenant,
  request_id,
  arrival_ms,
  arrival_time,
  session_id,
  domain,
  model,
  pool,
  system_prompt_hash,
  prompt_tokens,
  cached_prompt_tokens,
  completion_tokens,

  -- The same answers as `is_agent` gives, with what decided. A router that reports structure (tools, messages or API) and
  -- no tools is believed to have seen none.
  CASE is_agent WHEN TRUE THEN 'agent' WHEN FALSE THEN 'chat' END AS chat_agent,
  CASE
    WHEN tools_called_count > 0 THEN 'tools_called'
    WHEN finish_reason IN ('tool_calls', 'tool_use') THEN 'ended_for_tools'
    WHEN cardinality(tools_offered) > 0 THEN 'tools_offered'
    WHEN delegation_parent_id IS NOT NULL THEN 'delegated'
    WHEN tools_offered IS NOT NULL THEN 'no_tools_offered'
    WHEN message_count IS NOT NULL THEN 'messages_without_tools'
    WHEN api IS NOT NULL THEN 'api_without_tools'
  END AS chat_agent_rule,

  -- The same answers as `is_multi_turn` gives, and one more: a request of a session that had one before is a later turn.
  -- The first request that we saw of a session proves nothing, because the log may have begun in its middle.
  CASE
    WHEN turn > 0 OR chain_id IS NOT NULL THEN 'multi'
    WHEN turn = 0 OR message_count = 1 THEN 'single'
    WHEN has_earlier_in_session THEN 'multi'
  END AS turns,
  CASE
    WHEN turn > 0 THEN 'later_turn'
    WHEN chain_id IS NOT NULL THEN 'chained'
    WHEN turn = 0 THEN 'first_turn'
    WHEN message_count = 1 THEN 'one_message'
    WHEN has_earlier_in_session THEN 'earlier_in_session'
  END AS turns_rule,

  -- What the engine said that it read from its prefix cache. A share needs a prompt.
  CASE WHEN cached_prompt_tokens > 0 THEN 'warm' WHEN cached_prompt_tokens = 0 THEN 'cold' END AS cache,
  CASE
    WHEN cached_prompt_tokens > 0 THEN 'cached_tokens'
    WHEN cached_prompt_tokens = 0 THEN 'no_cached_tokens'
  END AS cache_rule,
  cached_prompt_tokens / nullif(CAST(prompt_tokens AS DOUBLE), 0) AS cached_prompt_share,

  -- 8 prompt tokens to a completion token, and 1 to 1: the thresholds of `is_prefill_heavy` and `is_decode_heavy`. A
  -- request without any token has no phase.
  CASE
    WHEN is_prefill_heavy THEN 'prefill_heavy'
    WHEN is_decode_heavy THEN 'decode_heavy'
    WHEN prompt_tokens > 0 AND completion_tokens > 0 THEN 'balanced'
  END AS phase,
  CASE
    WHEN is_prefill_heavy THEN 'prompt_8_to_1'
    WHEN is_decode_heavy THEN 'completion_1_to_1'
    WHEN prompt_tokens > 0 AND completion_tokens > 0 THEN 'between'
  END AS phase_rule,
  prompt_tokens / nullif(CAST(completion_tokens AS DOUBLE), 0) AS prompt_per_completion,

  -- The one kind of content beside text, `mixed` for several. An empty list says nothing.
  CASE modality_rule
    WHEN 'several_kinds' THEN 'mixed'
    WHEN 'image_part' THEN 'image'
    WHEN 'audio_part' THEN 'audio'
    WHEN 'video_part' THEN 'video'
    WHEN 'only_text' THEN 'text'
    WHEN 'other_part' THEN 'other'
  END AS modality,
  modality_rule,

  -- Did the model reason? What it spent comes before what it was told, and a mode before an effort that was asked for.
  CASE
    WHEN reasoning_tokens > 0 THEN 'on'
    WHEN reasoning_tokens = 0 THEN 'off'
    WHEN reasoning_mode IN ('on', 'off') THEN reasoning_mode
    WHEN reasoning_effort IN ('low', 'medium', 'high') THEN 'on'
  END AS reasoning,
  CASE
    WHEN reasoning_tokens > 0 THEN 'reasoning_tokens'
    WHEN reasoning_tokens = 0 THEN 'no_reasoning_tokens'
    WHEN reasoning_mode = 'on' THEN 'mode_on'
    WHEN reasoning_mode = 'off' THEN 'mode_off'
    WHEN reasoning_effort IN ('low', 'medium', 'high') THEN 'effort_asked'
  END AS reasoning_rule,

  -- As reported. A model's name is no evidence: several providers serve the same one.
  provider,
  CASE WHEN provider IS NOT NULL THEN 'reported' END AS provider_rule
FROM (
  SELECT
    *,
    -- A request without a session is alone: together they would be one group that has to fit in memory.
    arrival_ms > min(arrival_ms) OVER (
      PARTITION BY tenant, session_id, CASE WHEN session_id IS NULL THEN request_id END
    ) AS has_earlier_in_session,
    CASE
      WHEN CAST(has_image AS INT) + CAST(has_audio AS INT) + CAST(has_video AS INT) > 1 THEN 'several_kinds'
      WHEN has_image THEN 'image_part'
      WHEN has_audio THEN 'audio_part'
      WHEN has_video THEN 'video_part'
      WHEN cardinality(array_remove_all(modalities, 'text')) > 0 THEN 'other_part'
      WHEN array_has(modalities, 'text') THEN 'only_text'
    END AS modality_rule
  FROM requests
)
