-- Which runs of tools come again and again? One row for each run of two to four tools that were called in consecutive requests of at
-- least two sessions, the last of each request. `expected` is how often it would have come if each tool's call only depended
-- on how frequent that tool is; `lift` is how many times as often it did. `successes` of the `known` last calls worked. A
-- run that comes often is work that one tool could do.
WITH calls AS (
  SELECT tenant, session_id, session_start_ms, place, call['name'] AS tool, call['success'] AS is_success
  FROM (
    SELECT *, tools_called[CAST(cardinality(tools_called) AS BIGINT)] AS call
    FROM session_turns
    WHERE cardinality(tools_called) > 0
  )
),
frequency AS (
  SELECT tool, count(*) / CAST(sum(count(*)) OVER () AS DOUBLE) AS share FROM calls GROUP BY tool
),
followed AS (
  SELECT
    calls.*,
    share,
    lead(calls.tool, 1) OVER in_session AS tool_2,
    lead(calls.tool, 2) OVER in_session AS tool_3,
    lead(calls.tool, 3) OVER in_session AS tool_4,
    lead(share, 1) OVER in_session AS share_2,
    lead(share, 2) OVER in_session AS share_3,
    lead(share, 3) OVER in_session AS share_4,
    lead(place, 1) OVER in_session = place + 1 AS is_next_2,
    lead(place, 2) OVER in_session = place + 2 AS is_next_3,
    lead(place, 3) OVER in_session = place + 3 AS is_next_4,
    lead(is_success, 1) OVER in_session AS is_success_2,
    lead(is_success, 2) OVER in_session AS is_success_3,
    lead(is_success, 3) OVER in_session AS is_success_4
  FROM calls
  JOIN frequency ON frequency.tool = calls.tool
  WINDOW in_session AS (PARTITION BY tenant, session_id, session_start_ms ORDER BY place)
),
runs AS (
  SELECT
    tenant, session_id, session_start_ms, 2 AS length, concat_ws(' > ', tool, tool_2) AS tools,
    share * share_2 AS chance, is_success_2 AS is_success
  FROM followed WHERE is_next_2
  UNION ALL
  SELECT
    tenant, session_id, session_start_ms, 3, concat_ws(' > ', tool, tool_2, tool_3),
    share * share_2 * share_3, is_success_3
  FROM followed WHERE is_next_3
  UNION ALL
  SELECT
    tenant, session_id, session_start_ms, 4, concat_ws(' > ', tool, tool_2, tool_3, tool_4),
    share * share_2 * share_3 * share_4, is_success_4
  FROM followed WHERE is_next_4
),
counted AS (
  SELECT
    length,
    tools,
    count(*) AS times,
    count(DISTINCT concat_ws(' ', coalesce(tenant, ''), session_id, CAST(session_start_ms AS VARCHAR))) AS sessions,
    min(chance) AS chance,
    count(is_success) AS known,
    count(*) FILTER (WHERE is_success) AS successes
  FROM runs
  GROUP BY length, tools
)
SELECT tools, length, times, sessions, expected, times / expected AS lift, known, successes
FROM (SELECT *, chance * sum(times) OVER (PARTITION BY length) AS expected FROM counted)
WHERE sessions >= 2
