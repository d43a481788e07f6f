-- What a learner may learn from: one row for each routing decision, what was known when it was made, what was chosen with which
-- probability, and what became of it. Nothing in the context was known only later: what a session did before counts from
-- the moment at which a request of it had ended, and a request that tells no duration does not count at all. An answer
-- from the semantic cache is no evidence about the model that was not called.
--
-- A request that nobody judged yet is censored, not bad: `quality` is NULL. `reported_share` is the share of opinions that
-- have come by a request's age (view `reward_delays`), NULL for one that is younger than every delay seen; a judged request
-- of that age stands for `weight`, its inverse, of them. `cluster` is what may depend on each other: split by it and by
-- time, never by row. `fold` is 0 to 9, the same for a whole cluster.
WITH clock AS (
  SELECT max(at_ms) AS now_ms
  FROM (SELECT max(arrival_ms) AS at_ms FROM requests UNION ALL SELECT max(event_ms) FROM feedback)
),
decided AS (
  SELECT
    requests.*,
    coalesce(requests.gateway_tags['weir.query_id'], requests.session_id, requests.request_id) AS cluster,
    greatest(now_ms - requests.arrival_ms, 0) AS age_ms
  FROM requests
  CROSS JOIN clock
  WHERE requests.model IS NOT NULL AND requests.semantic_cache_hit IS NOT TRUE
),
-- What happens in a session: a request arrives and asks what is known, and ends and is known.
moments AS (
  SELECT tenant, session_id, session_start_ms, request_id, arrival_ms AS at_ms, 1 AS asks, 0 AS ended, 0 AS failed, 0 AS tokens
  FROM session_turns
  UNION ALL
  SELECT
    tenant,
    session_id,
    session_start_ms,
    request_id,
    end_ms,
    0,
    1,
    CASE WHEN is_failed THEN 1 ELSE 0 END,
    CAST(coalesce(prompt_tokens, 0) AS BIGINT) + coalesce(completion_tokens, 0)
  FROM session_turns
  WHERE has_end
),
known AS (
  SELECT
    *,
    sum(ended) OVER before AS ended_before,
    sum(failed) OVER before AS failed_before,
    sum(tokens) OVER before AS tokens_before
  FROM moments
  -- Who asks in the millisecond in which another one ends does not know of it.
  WINDOW before AS (
    PARTITION BY tenant, session_id, session_start_ms
    ORDER BY at_ms, asks DESC, request_id
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
  )
),
-- The share of opinions that have come by each age: that of the longest delay that is not longer.
reported AS (
  SELECT tenant, request_id, share AS reported_share
  FROM (
    SELECT
      *,
      last_value(share_to) IGNORE NULLS OVER (
        ORDER BY at_ms, is_request ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
      ) AS share
    FROM (
      SELECT delay_ms AS at_ms, share_to, FALSE AS is_request, NULL AS tenant, NULL AS request_id FROM reward_delays
      UNION ALL
      SELECT age_ms, NULL, TRUE, tenant, request_id FROM decided
    )
  )
  WHERE is_request
)
SELECT
  decided.tenant,
  decided.request_id,
  decided.cluster,
  spread(decided.cluster, 10) AS fold,
  decided.arrival_ms,
  -- Context.
  decided.domain,
  decided.complexity,
  decided.language,
  decided.api,
  decided.system_prompt_hash,
  coalesce(decided.prompt_tokens_before_compression, decided.prompt_tokens) AS prompt_tokens,
  decided.turn,
  decided.message_count,
  CAST(cardinality(decided.tools_offered) AS BIGINT) AS tools_offered,
  decided.fact_check,
  array_has_any(decided.modalities, make_array('image', 'audio', 'video')) AS is_multimodal,
  decided.embedding,
  decided.embedding_model,
  session_turns.place - 1 AS requests_before,
  session_turns.pause_ms,
  known.ended_before,
  known.failed_before,
  known.tokens_before,
  -- Action.
  decided.policy_version,
  decided.intended_model,
  decided.model AS executed_model,
  decided.propensity,
  decided.candidates,
  -- Where a draw names more than a model, what the log says of how the call was made must not contradict it.
  decided.model = action_part(decided.intended_model, 'model')
    AND coalesce(action_part(decided.intended_model, 'provider') = decided.provider, TRUE)
    AND coalesce(action_part(decided.intended_model, 'reasoning') = decided.told_reasoning, TRUE) AS is_executed_as_intended,
  -- Outcome.
  CASE WHEN rewards.source_rank <> 4 THEN rewards.quality END AS quality,
  CASE WHEN rewards.source_rank <> 4 THEN rewards.last_event_ms END AS judged_ms,
  rewards.quality IS NULL OR rewards.source_rank = 4 AS is_censored,
  decided.age_ms,
  reported.reported_share,
  CASE WHEN rewards.source_rank <> 4 AND rewards.quality IS NOT NULL THEN 1 / nullif(reported.reported_share, 0) END AS weight,
  decided.is_error,
  decided.completion_tokens,
  decided.ttft_us / 1e3 AS ttft_ms,
  decided.e2e_us / 1e3 AS end_to_end_ms,
  decided.cost_usd
FROM decided
LEFT JOIN session_turns
  ON session_turns.request_id = decided.request_id AND (session_turns.tenant IS NOT DISTINCT FROM decided.tenant)
LEFT JOIN known
  ON known.asks = 1 AND known.request_id = decided.request_id AND (known.tenant IS NOT DISTINCT FROM decided.tenant)
LEFT JOIN rewards
  ON rewards.request_id = decided.request_id AND (rewards.tenant IS NOT DISTINCT FROM decided.tenant)
LEFT JOIN reported
  ON reported.request_id = decided.request_id AND (reported.tenant IS NOT DISTINCT FROM decided.tenant)
