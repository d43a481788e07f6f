-- What would it gain to cut a session back to an earlier request and go on from there? One row for each domain, situation and
-- number of requests that are cut. A situation is how far into the session, how many requests have failed (up to 2), and
-- whether the last one did. `success_now` is the share of judged sessions that came out well of those that were ever in the
-- situation; `success_back` the same of the situations in which these sessions stood so many requests before, as they were
-- visited, so that `gain` is the difference (G_k of session-length policies). Each session counts once for a situation.
--
-- `extra_tokens` is what going back costs: what sessions use after the earlier situation, less what they use after this one;
-- the prompts of what follows are in both, as if nothing of them were cached. It takes what follows to depend on the situation
-- alone: how a session got there, and which model would go on, is not in it (`handoff_penalties` has the latter). The interval
-- is of 95 %; it takes both shares for independent, which is on the safe side where the same sessions are in both.
WITH turns AS (
  SELECT
    session_turns.tenant,
    session_turns.session_id,
    session_turns.session_start_ms,
    session_turns.place,
    first_value(session_turns.domain) OVER so_far AS domain,
    CASE WHEN session_turns.place <= 4 THEN session_turns.place WHEN session_turns.place <= 8 THEN 5 ELSE 9 END AS stage,
    least(sum(CASE WHEN is_failed THEN 1 ELSE 0 END) OVER so_far, 2) AS failed,
    coalesce(is_failed, FALSE) AS failed_last,
    sum(tokens) OVER so_far AS tokens_so_far,
    sum(tokens) OVER whole AS tokens_in_all
  FROM (
    SELECT *, CAST(coalesce(prompt_tokens, 0) AS BIGINT) + coalesce(completion_tokens, 0) AS tokens FROM session_turns
  ) AS session_turns
  WINDOW
    so_far AS (
      PARTITION BY tenant, session_id, session_start_ms ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ),
    whole AS (
      PARTITION BY tenant, session_id, session_start_ms
      ORDER BY place
      ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    )
),
judged AS (
  SELECT turns.*, coalesce(sessions.task_success, sessions.quality_mean) >= 0.5 AS is_good
  FROM turns
  JOIN sessions
    ON sessions.session_id = turns.session_id
    AND sessions.session_start_ms = turns.session_start_ms
    AND (sessions.tenant IS NOT DISTINCT FROM turns.tenant)
  WHERE NOT sessions.is_open AND coalesce(sessions.task_success, sessions.quality_mean) IS NOT NULL
),
-- The first time that each session was in each situation.
visits AS (
  SELECT *
  FROM (
    SELECT
      *,
      row_number() OVER (
        PARTITION BY tenant, session_id, session_start_ms, domain, stage, failed, failed_last ORDER BY place
      ) AS visit
    FROM judged
  )
  WHERE visit = 1
),
worth AS (
  SELECT
    domain,
    stage,
    failed,
    failed_last,
    count(*) AS sessions,
    count(*) FILTER (WHERE is_good) / CAST(count(*) AS DOUBLE) AS success,
    -- A share of none or all of a few has a variance too: half a session is added on either side.
    (count(*) FILTER (WHERE is_good) + 0.5) * (count(*) FILTER (WHERE NOT is_good) + 0.5)
      / power(count(*) + 1, 3) AS variance,
    avg(CAST(tokens_in_all - tokens_so_far AS DOUBLE)) AS tokens_after
  FROM visits
  GROUP BY domain, stage, failed, failed_last
),
pairs AS (
  SELECT
    now.domain,
    now.stage,
    now.failed,
    now.failed_last,
    now.place - back.place AS cut_requests,
    back.stage AS back_stage,
    back.failed AS back_failed,
    back.failed_last AS back_failed_last,
    count(*) AS sessions
  FROM visits AS now
  JOIN judged AS back
    ON back.session_id = now.session_id
    AND back.session_start_ms = now.session_start_ms
    AND (back.tenant IS NOT DISTINCT FROM now.tenant)
    AND now.place - back.place IN (1, 2, 4)
  GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
),
weighed AS (
  SELECT
    pairs.domain,
    pairs.stage,
    pairs.failed,
    pairs.failed_last,
    pairs.cut_requests,
    CAST(sum(pairs.sessions) AS BIGINT) AS sessions,
    sum(pairs.sessions * back.success) / sum(pairs.sessions) AS success_back,
    sum(pairs.sessions * back.tokens_after) / sum(pairs.sessions) AS tokens_after_back,
    sum(pairs.sessions * pairs.sessions * back.variance) / sum(pairs.sessions) / sum(pairs.sessions) AS variance
  FROM pairs
  JOIN worth AS back
    ON (back.domain IS NOT DISTINCT FROM pairs.domain)
    AND back.stage = pairs.back_stage
    AND back.failed = pairs.back_failed
    AND back.failed_last = pairs.back_failed_last
  GROUP BY 1, 2, 3, 4, 5
)
SELECT
  weighed.domain,
  weighed.stage AS from_place,
  CAST(weighed.failed AS BIGINT) AS failed_requests,
  weighed.failed_last,
  weighed.cut_requests,
  weighed.sessions,
  worth.success AS success_now,
  success_back,
  success_back - worth.success AS gain,
  success_back - worth.success - 1.959964 * sqrt(weighed.variance + worth.variance) AS gain_low,
  success_back - worth.success + 1.959964 * sqrt(weighed.variance + worth.variance) AS gain_high,
  tokens_after_back - worth.tokens_after AS extra_tokens
FROM weighed
JOIN worth
  ON (worth.domain IS NOT DISTINCT FROM weighed.domain)
  AND worth.stage = weighed.stage
  AND worth.failed = weighed.failed
  AND worth.failed_last = weighed.failed_last
