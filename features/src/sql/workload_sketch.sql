-- Coarse partial: sketches per 10 minutes x tenant x model x pool.
-- `joint_tokens` and `arrivals` size a fleet, so they hold what reached an engine: no answer from the semantic cache, and
-- no request that was refused before, which is one that failed, names no model that ran, and has no token.
SELECT
  arrival_ms - (arrival_ms % 600000 + 600000) % 600000 AS window_start_ms,
  tenant,
  model,
  pool,
  count(*) AS requests,
  ddsketch(ttft_us) AS ttft_us,
  ddsketch(tpot_us) AS tpot_us,
  ddsketch(e2e_us) AS e2e_us,
  ddsketch(prompt_tokens) AS prompt_tokens,
  ddsketch(completion_tokens) AS completion_tokens,
  joint_histogram(prompt_tokens, completion_tokens) FILTER (WHERE reached_engine) AS joint_tokens,
  second_counts(arrival_ms) FILTER (WHERE reached_engine) AS arrivals
FROM (
  SELECT
    *,
    -- IS TRUE would do, but the planner and the plan disagree on whether it can be NULL.
    CASE
      WHEN semantic_cache_hit THEN FALSE
      WHEN is_error AND executed_model IS NULL AND ttft_ms IS NULL AND coalesce(completion_tokens, 0) = 0 THEN FALSE
      ELSE TRUE
    END AS reached_engine
  FROM requests
)
GROUP BY 1, 2, 3, 4
