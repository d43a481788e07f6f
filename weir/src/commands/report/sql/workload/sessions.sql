SELECT
  count(*) AS sessions,
  count(*) FILTER (WHERE is_open) AS open_sessions,
  sum(requests) AS requests,
  ddsketch_quantile(ddsketch(requests), 0.5) AS requests_p50,
  ddsketch_quantile(ddsketch(requests), 0.9) AS requests_p90,
  sum(model_switches) / CAST(count(*) AS DOUBLE) AS switches_mean,
  sum(failed_tokens) / nullif(CAST(sum(prompt_tokens) + sum(completion_tokens) AS DOUBLE), 0) AS failed_token_share,
  avg(quality_mean) AS quality_mean
FROM sessions
WHERE session_start_ms >= {from_ms} AND session_start_ms < {to_ms}
HAVING count(*) > 0
