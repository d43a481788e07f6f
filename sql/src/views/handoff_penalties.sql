-- What does it cost to change the model in the middle of a session? One row for each pair of models: how many more requests a
-- session takes after a switch than it would have taken without one.
--
-- Routers switch when things go badly already, and sessions that go badly take longer whoever serves them. So a switch is
-- compared with requests that stayed at the same model in the same situation: as far into the session, with as many failed
-- requests so far, after a request that failed or not, in the same domain (`extra_requests`, over `matched` switches, whose
-- situation someone stayed in). `extra_requests_unadjusted` compares with all that stayed at the model. What routers
-- know beyond that situation is in neither figure. The interval is of 95 %; it takes requests for independent, and those of one
-- session are not quite. Sessions that are still open are left out.
WITH steps AS (
  SELECT
    session_turns.previous_model AS from_model,
    session_turns.model AS to_model,
    session_turns.domain,
    CASE WHEN session_turns.place <= 4 THEN session_turns.place WHEN session_turns.place <= 8 THEN 5 ELSE 9 END AS stage,
    least(failed_before, 2) AS failed_before,
    failed_last,
    CAST(sessions.requests - session_turns.place AS DOUBLE) AS requests_after,
    CAST(tokens_in_all - tokens_so_far AS DOUBLE) AS tokens_after
  FROM (
    SELECT
      *,
      sum(CASE WHEN is_failed THEN 1 ELSE 0 END) OVER before AS failed_before,
      coalesce(lag(is_failed) OVER in_session, FALSE) AS failed_last,
      sum(CAST(coalesce(prompt_tokens, 0) AS BIGINT) + coalesce(completion_tokens, 0)) OVER so_far AS tokens_so_far,
      sum(CAST(coalesce(prompt_tokens, 0) AS BIGINT) + coalesce(completion_tokens, 0)) OVER whole AS tokens_in_all
    FROM session_turns
    WINDOW
      in_session AS (PARTITION BY tenant, session_id, session_start_ms ORDER BY place),
      so_far AS (
        PARTITION BY tenant, session_id, session_start_ms ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
      ),
      before AS (
        PARTITION BY tenant, session_id, session_start_ms ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
      ),
      whole AS (
        PARTITION BY tenant, session_id, session_start_ms
        ORDER BY place
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
      )
  ) AS session_turns
  JOIN sessions
    ON sessions.session_id = session_turns.session_id
    AND sessions.session_start_ms = session_turns.session_start_ms
    AND (sessions.tenant IS NOT DISTINCT FROM session_turns.tenant)
  WHERE NOT sessions.is_open AND session_turns.previous_model IS NOT NULL AND session_turns.model IS NOT NULL
),
cells AS (
  SELECT
    from_model,
    to_model,
    domain,
    stage,
    failed_before,
    failed_last,
    count(*) AS n,
    avg(requests_after) AS mean,
    coalesce(var_samp(requests_after), 0) AS variance,
    avg(tokens_after) AS tokens_mean
  FROM steps
  GROUP BY from_model, to_model, domain, stage, failed_before, failed_last
),
-- The variance of a few rows is mostly chance, and too small a one more often than not: each situation's leans on that of all
-- its model's, as if four of those rows had been its own.
spread AS (
  SELECT from_model, var_samp(requests_after) AS variance FROM steps GROUP BY from_model
),
stayed AS (
  SELECT from_model, avg(requests_after) AS mean FROM steps WHERE from_model = to_model GROUP BY from_model
),
pairs AS (
  SELECT
    switched.from_model,
    switched.to_model,
    CAST(switched.n AS DOUBLE) AS n,
    switched.mean,
    kept.n IS NOT NULL AS is_matched,
    switched.mean - kept.mean AS extra,
    switched.tokens_mean - kept.tokens_mean AS extra_tokens,
    ((switched.n - 1) * switched.variance + 4 * spread.variance) / (switched.n + 3) / switched.n
      + ((kept.n - 1) * kept.variance + 4 * spread.variance) / (kept.n + 3) / kept.n AS variance
  FROM cells AS switched
  JOIN spread ON spread.from_model = switched.from_model
  LEFT JOIN cells AS kept
    ON kept.from_model = switched.from_model
    AND kept.to_model = switched.from_model
    AND (kept.domain IS NOT DISTINCT FROM switched.domain)
    AND kept.stage = switched.stage
    AND kept.failed_before = switched.failed_before
    AND kept.failed_last = switched.failed_last
  WHERE switched.to_model <> switched.from_model
),
weighed AS (
  SELECT
    from_model,
    to_model,
    sum(n) AS switches,
    sum(n) FILTER (WHERE is_matched) AS matched,
    sum(n * extra) FILTER (WHERE is_matched) / sum(n) FILTER (WHERE is_matched) AS extra,
    sum(n * extra_tokens) FILTER (WHERE is_matched) / sum(n) FILTER (WHERE is_matched) AS extra_tokens,
    sqrt(sum(n * n * variance) FILTER (WHERE is_matched)) / sum(n) FILTER (WHERE is_matched) AS standard_error,
    sum(n * mean) / sum(n) AS mean
  FROM pairs
  GROUP BY from_model, to_model
)
SELECT
  weighed.from_model,
  to_model,
  CAST(switches AS BIGINT) AS switches,
  CAST(coalesce(matched, 0) AS BIGINT) AS matched,
  extra AS extra_requests,
  extra - 1.959964 * standard_error AS extra_requests_low,
  extra + 1.959964 * standard_error AS extra_requests_high,
  weighed.mean - stayed.mean AS extra_requests_unadjusted,
  extra_tokens
FROM weighed
LEFT JOIN stayed ON stayed.from_model = weighed.from_model
