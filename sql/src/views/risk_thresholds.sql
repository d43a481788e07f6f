-- What would acting on a score of `session_risk` catch, and whom would it trouble? One row for each score and threshold, over
-- sessions that are labelled: a request of an unsafe one was blocked or called unsafe, and of a safe one a request was called
-- safe (feedback with that label) and none unsafe. That nobody said anything is no label. `caught` of the `unsafe` sessions and `troubled` of the `safe` ones reach the threshold; the rates have
-- intervals of 95 %. Thresholds are the 5 % steps of the scores as they occur.
WITH labels AS (
  SELECT outcomes.tenant, session_id, session_start_ms, bool_or(safety) AS is_unsafe
  FROM request_outcomes AS outcomes
  LEFT JOIN (SELECT DISTINCT tenant, request_id FROM request_opinions WHERE label = 'safe') AS safe
    ON safe.request_id = outcomes.request_id AND (safe.tenant IS NOT DISTINCT FROM outcomes.tenant)
  WHERE session_id IS NOT NULL AND (safety OR safe.request_id IS NOT NULL)
  GROUP BY outcomes.tenant, session_id, session_start_ms
),
scores AS (
  SELECT score['name'] AS score, score['value'] AS value, is_unsafe
  FROM (
    SELECT
      labels.is_unsafe,
      unnest(make_array(
        named_struct('name', 'score_fast', 'value', session_risk.score_fast),
        named_struct('name', 'score_slow', 'value', session_risk.score_slow),
        named_struct('name', 'peak', 'value', session_risk.peak),
        -- The mean of what the other score is made of, each part from 0 to 1: four categories or more are all there is.
        named_struct(
          'name', 'peak, persistence, categories',
          'value', (session_risk.peak + persistence + least(categories, 4) / 4.0) / 3
        )
      )) AS score
    FROM session_risk
    JOIN labels
      ON labels.session_id = session_risk.session_id
      AND labels.session_start_ms = session_risk.session_start_ms
      AND (labels.tenant IS NOT DISTINCT FROM session_risk.tenant)
  )
),
steps AS (
  SELECT DISTINCT score, max(value) AS threshold
  FROM (SELECT score, value, ntile(20) OVER (PARTITION BY score ORDER BY value) AS part FROM scores)
  GROUP BY score, part
),
counted AS (
  SELECT
    steps.score,
    steps.threshold,
    beta_counts(value >= threshold) FILTER (WHERE is_unsafe) AS unsafe,
    beta_counts(value >= threshold) FILTER (WHERE NOT is_unsafe) AS safe
  FROM steps
  JOIN scores ON scores.score = steps.score
  GROUP BY steps.score, steps.threshold
)
SELECT
  score,
  threshold,
  beta_counts_yes(unsafe) + beta_counts_no(unsafe) AS unsafe,
  beta_counts_yes(unsafe) AS caught,
  beta_counts_rate(unsafe) AS catch_rate,
  beta_counts_quantile(unsafe, 0.025) AS catch_rate_low,
  beta_counts_quantile(unsafe, 0.975) AS catch_rate_high,
  beta_counts_yes(safe) + beta_counts_no(safe) AS safe,
  beta_counts_yes(safe) AS troubled,
  beta_counts_rate(safe) AS false_alarm_rate,
  beta_counts_quantile(safe, 0.025) AS false_alarm_rate_low,
  beta_counts_quantile(safe, 0.975) AS false_alarm_rate_high
FROM counted
