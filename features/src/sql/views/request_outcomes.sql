-- What became of each request that a model answered: was it checked and by whom judged, and which failures does it show? One
-- row a request. A class of failure is TRUE or FALSE where something that could show it was reported, NULL elsewhere: what
-- nobody looked at is missing, never clean. An answer from the semantic cache is no model's work.
--
-- The rules:
--   hallucination     an evaluation that checked says below 0.5 (a verdict of an estimator, or a label `hallucination`)
--   wrong_tool        a call of a tool that was not offered, or that the tools' side did not know
--   bad_arguments     a call whose arguments were refused
--   tool_error        a call that failed otherwise
--   retry_loop        a tool failed in this request and in both before it in its session
--   refusal           generation ended by a filter, or with a refusal
--   time_out          the error's class says so, or the status is 408 or 504
--   truncation        generation ended at the limit of tokens
--   schema_violation  the error's class or a verdict's label says so
--   dissatisfaction   whoever used the answer, or what a user said next, says below 0.5
--   safety            the error's class says that it was blocked, or a verdict's label that it was unsafe
--   fallback          another model answered than was chosen
--   other_error       it failed, and none of these says how
WITH said AS (
  SELECT
    tenant,
    request_id,
    min(value) FILTER (
      WHERE source = 'evaluation' AND checked AND (estimator IS NOT NULL OR label IN ('hallucination', 'supported'))
    ) AS supported,
    min(value) FILTER (
      WHERE (source IN ('user', 'agent', 'operator') OR kind = 'follow_up')
        AND kind NOT IN ('pairwise', 'approval', 'security_event')
        AND checked IS NOT FALSE
    ) AS satisfied,
    bool_or(label = 'schema_violation') AS says_schema,
    bool_or(label IN ('unsafe', 'jailbreak')) AS says_unsafe,
    bool_or(label = 'safe') AS says_safe
  FROM request_opinions
  GROUP BY tenant, request_id
),
told AS (
  SELECT
    requests.*,
    session_turns.session_start_ms,
    session_turns.place,
    rewards.quality,
    rewards.source_rank,
    said.supported,
    said.satisfied,
    said.says_schema,
    said.says_unsafe,
    said.says_safe,
    lower(requests.error_class) AS class,
    tool_failures(requests.tools_called, requests.tools_offered) AS tool_classes,
    failed_tools(requests.tools_called) AS failed_now
  FROM requests
  LEFT JOIN session_turns
    ON session_turns.request_id = requests.request_id AND (session_turns.tenant IS NOT DISTINCT FROM requests.tenant)
  LEFT JOIN rewards ON rewards.request_id = requests.request_id AND (rewards.tenant IS NOT DISTINCT FROM requests.tenant)
  LEFT JOIN said ON said.request_id = requests.request_id AND (said.tenant IS NOT DISTINCT FROM requests.tenant)
  WHERE requests.model IS NOT NULL
),
in_turn AS (
  SELECT
    *,
    lag(failed_now, 1) OVER in_session AS failed_before,
    lag(failed_now, 2) OVER in_session AS failed_before_that
  FROM told
  WINDOW in_session AS (PARTITION BY tenant, session_id, session_start_ms ORDER BY place)
),
classes AS (
  SELECT
    *,
    supported < 0.5 AS hallucination,
    array_has(tool_classes, 'wrong_tool') AS wrong_tool,
    array_has(tool_classes, 'bad_arguments') AS bad_arguments,
    array_has(tool_classes, 'tool_error') AS tool_error,
    CASE
      WHEN session_id IS NULL OR failed_now IS NULL THEN NULL
      ELSE coalesce(
        cardinality(array_intersect(array_intersect(failed_now, failed_before), failed_before_that)) > 0, FALSE
      )
    END AS retry_loop,
    finish_reason IN ('content_filter', 'refusal', 'safety') AS refusal,
    CASE
      WHEN class LIKE '%timeout%' OR class LIKE '%timed_out%' OR class LIKE '%time_out%' OR http_status IN (408, 504) THEN TRUE
      WHEN is_error IS NOT NULL THEN FALSE
    END AS time_out,
    finish_reason IN ('length', 'max_tokens') AS truncation,
    CASE
      WHEN says_schema OR class LIKE '%schema%' THEN TRUE
      WHEN is_error IS NOT NULL THEN FALSE
    END AS schema_violation,
    satisfied < 0.5 AS dissatisfaction,
    CASE
      WHEN says_unsafe OR class LIKE '%blocked%' OR class LIKE '%jailbreak%' OR class LIKE '%guardrail%' THEN TRUE
      WHEN is_error IS NOT NULL OR says_safe THEN FALSE
    END AS safety,
    is_fallback AS fallback
  FROM in_turn
)
SELECT
  tenant,
  request_id,
  session_id,
  session_start_ms,
  place,
  arrival_ms,
  caller,
  model,
  domain,
  complexity,
  reasoning_mode,
  system_prompt_hash,
  policy_version,
  propensity,
  -- A router that does not say which requests seek facts has told nothing of it.
  fact_check AS is_fact_seeking,
  supported IS NOT NULL AS is_checked,
  CASE WHEN source_rank <> 4 THEN quality END AS quality,
  CASE WHEN source_rank <> 4 THEN quality >= 0.5 END AS is_success,
  hallucination,
  wrong_tool,
  bad_arguments,
  tool_error,
  retry_loop,
  refusal,
  time_out,
  truncation,
  schema_violation,
  dissatisfaction,
  safety,
  fallback,
  CASE
    WHEN is_error IS NULL THEN NULL
    ELSE is_error AND NOT coalesce(time_out OR schema_violation OR safety OR refusal OR truncation, FALSE)
  END AS other_error,
  CAST(coalesce(prompt_tokens, 0) AS BIGINT) + coalesce(completion_tokens, 0) AS total_tokens,
  semantic_cache_similarity,
  cost_usd,
  e2e_us
FROM classes
