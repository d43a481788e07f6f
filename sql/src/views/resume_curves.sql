-- How soon does a session go on? One row for each tool that a request called last (NULL: none), and time: of the requests that
-- are old enough to tell, the share after which the next of the session had arrived within the time, with its interval of 95 %,
-- and for how long a block kept for that time would have been held on average. Who keeps the blocks of a prompt until the
-- session goes on wants much of the first for little of the second: `resumed_per_held_hour` is their ratio.
WITH ends AS (
  SELECT
    session_turns.tenant,
    session_turns.session_id,
    session_turns.session_start_ms,
    session_turns.place,
    session_turns.end_ms,
    session_turns.tools_called[CAST(cardinality(session_turns.tools_called) AS BIGINT)]['name'] AS tool,
    lead(session_turns.pause_ms) OVER in_session AS pause_ms,
    lead(session_turns.place) OVER in_session IS NOT NULL AS goes_on
  FROM session_turns
  WHERE session_turns.has_end
  WINDOW in_session AS (
    PARTITION BY session_turns.tenant, session_turns.session_id, session_turns.session_start_ms ORDER BY session_turns.place
  )
),
seen AS (
  SELECT
    tool,
    -- A session that has ended did not go on for half an hour; an open one has not yet.
    CASE WHEN goes_on THEN pause_ms END AS pause_ms,
    least(newest_ms - end_ms, 1800000) AS age_ms
  FROM ends
  CROSS JOIN (SELECT max(arrival_ms) AS newest_ms FROM session_turns)
  WHERE NOT goes_on OR pause_ms IS NOT NULL
),
within AS (
  SELECT unnest(make_array(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800)) AS within_s
),
counted AS (
  SELECT
    tool,
    within_s,
    beta_counts(coalesce(pause_ms <= within_s * 1000, FALSE)) AS resumed,
    avg(least(coalesce(pause_ms, within_s * 1000), within_s * 1000)) / 1e3 AS held_s_mean
  FROM seen
  CROSS JOIN within
  -- The age decides for those that went on too: else young requests would count only if they were quick.
  WHERE age_ms >= within_s * 1000
  GROUP BY tool, within_s
)
SELECT
  tool,
  within_s,
  beta_counts_yes(resumed) + beta_counts_no(resumed) AS requests,
  beta_counts_yes(resumed) AS resumed,
  beta_counts_rate(resumed) AS resumed_share,
  beta_counts_quantile(resumed, 0.025) AS resumed_share_low,
  beta_counts_quantile(resumed, 0.975) AS resumed_share_high,
  held_s_mean,
  beta_counts_rate(resumed) / nullif(held_s_mean, 0) * 3600 AS resumed_per_held_hour
FROM counted
