SELECT
  coalesce(tool, '(none)') AS tool,
  max(requests) AS requests,
  max(resumed_share) FILTER (WHERE within_s = 10) AS within_10_s,
  max(resumed_share) FILTER (WHERE within_s = 60) AS within_60_s,
  max(resumed_share) FILTER (WHERE within_s = 300) AS within_300_s,
  max(resumed_share) FILTER (WHERE within_s = 1800) AS within_1800_s,
  first_value(within_s ORDER BY resumed_per_held_hour DESC, within_s) AS best_s
FROM resume_curves
GROUP BY tool
HAVING max(requests) >= 20
ORDER BY requests DESC, tool
LIMIT 40
