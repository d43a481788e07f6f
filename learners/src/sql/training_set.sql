-- One row per finished request that a model answered, with what was known when the model was chosen and what followed.
-- Rewards are left-joined: a request that nobody judged has no quality, which is not a quality of zero.
-- An answer from the semantic cache is no evidence about the model that was not called.
SELECT
    r.tenant,
    r.request_id,
    r.arrival_ms,
    -- Decisions that may depend on each other. The repeats of one query of a replayed score matrix are sessions of their
    -- own, so that player's tag comes first; no other tag counts, since a gateway may tag every request by itself.
    COALESCE(r.gateway_tags['weir.query_id'], r.session_id, r.request_id) AS cluster,
    r.domain,
    r.complexity,
    r.language,
    r.api,
    COALESCE(r.prompt_tokens_before_compression, r.prompt_tokens) AS prompt_tokens,
    r.turn,
    r.message_count,
    array_length(r.tools_offered) AS tools_offered,
    r.fact_check,
    array_has_any(r.modalities, make_array('image', 'audio', 'video')) AS multimodal,
    r.embedding,
    r.embedding_model,
    -- A router that does not log what it intended cannot be evaluated; one that does not log what ran is believed.
    COALESCE(NULLIF(r.executed_model, ''), r.intended_model) AS executed_model,
    r.intended_model,
    r.provider,
    r.told_reasoning,
    r.policy_version,
    r.propensity,
    r.candidates,
    r.cost_usd,
    r.e2e_us / 1e6 AS latency_s,
    r.energy_joules / 3600 AS energy_wh,
    r.completion_tokens,
    r.gateway_tags,
    -- What one of our own estimators predicted is no outcome: a policy taught by it would learn the estimator's taste.
    CASE WHEN w.source_rank <> 4 THEN w.quality END AS quality
FROM requests AS r
LEFT JOIN rewards AS w ON w.request_id = r.request_id AND w.tenant IS NOT DISTINCT FROM r.tenant
WHERE COALESCE(r.executed_model, r.intended_model) IS NOT NULL
  AND r.semantic_cache_hit IS NOT TRUE
ORDER BY r.arrival_ms, r.request_id
