-- Outcomes by hour, tenant, model, domain and kind of traffic, as far back as memory goes: from the raw rows that are kept, and from
-- `outcome_memory` for days whose rows are not. Of each tenant's day the side counts that has observed more; what came after a day
-- was put down is in the rows alone.
SELECT
  window_start_ms,
  tenant,
  model,
  domain,
  is_fact_seeking,
  requests,
  judged,
  successes,
  hallucination_observed,
  hallucination_failures,
  wrong_tool_observed,
  wrong_tool_failures,
  bad_arguments_observed,
  bad_arguments_failures,
  tool_error_observed,
  tool_error_failures,
  retry_loop_observed,
  retry_loop_failures,
  refusal_observed,
  refusal_failures,
  time_out_observed,
  time_out_failures,
  truncation_observed,
  truncation_failures,
  schema_violation_observed,
  schema_violation_failures,
  dissatisfaction_observed,
  dissatisfaction_failures,
  safety_observed,
  safety_failures,
  fallback_observed,
  fallback_failures,
  other_error_observed,
  other_error_failures
FROM (
  SELECT
    *,
    sum(CASE WHEN is_memory THEN evidence ELSE 0 END) OVER of_day AS remembered,
    sum(CASE WHEN is_memory THEN 0 ELSE evidence END) OVER of_day AS live
  FROM (
    SELECT
      *,
      requests + judged + hallucination_observed + wrong_tool_observed + bad_arguments_observed + tool_error_observed
        + retry_loop_observed + refusal_observed + time_out_observed + truncation_observed
        + schema_violation_observed + dissatisfaction_observed + safety_observed + fallback_observed
        + other_error_observed AS evidence
    FROM (
      SELECT *, FALSE AS is_memory FROM live_outcome_pieces
      UNION ALL
      SELECT *, TRUE AS is_memory FROM outcome_memory
    )
  )
  WINDOW of_day AS (PARTITION BY tenant, window_start_ms - (window_start_ms % 86400000 + 86400000) % 86400000)
)
WHERE is_memory = (remembered > live)
