-- What has changed? One row a change: what, when it began and when it was noticed, from what to what, and a sentence.
-- `drift_statistics` says how it is found, and how often such a row is wrong.
SELECT
  metric,
  model,
  to_timestamp_millis(since_ms) AS since,
  window_start + INTERVAL '10 minutes' AS noticed,
  before,
  after,
  concat(
    CASE metric
      WHEN 'requests' THEN 'requests per 10 minutes'
      WHEN 'requests_vs_day_before' THEN 'requests, relative to the day before,'
      WHEN 'agent_share' THEN 'the share of agents'
      WHEN 'prompt_tokens_mean' THEN 'the mean prompt, tokens,'
      WHEN 'completion_tokens_mean' THEN 'the mean completion, tokens,'
      WHEN 'request_share' THEN 'the share of requests'
      WHEN 'error_share' THEN 'the share of errors'
      WHEN 'ttft_ms_mean' THEN 'the mean time to first token, ms,'
      WHEN 'end_to_end_ms_mean' THEN 'the mean end-to-end time, ms,'
      WHEN 'cost_usd_mean' THEN 'the mean cost of a request, USD,'
      WHEN 'quality_mean' THEN 'the mean quality'
    END,
    CASE WHEN model IS NULL THEN '' ELSE concat(' of ', model) END,
    CASE WHEN after > before THEN ' rose from ' ELSE ' fell from ' END,
    CAST(round(before, 4) AS VARCHAR),
    ' to ',
    CAST(round(after, 4) AS VARCHAR),
    ' at about ',
    to_char(to_timestamp_millis(since_ms), '%Y-%m-%d %H:%M'),
    ' UTC; noticed ',
    CAST((at_ms + 600000 - since_ms) / 60000 AS VARCHAR),
    ' minutes later'
  ) AS sentence
FROM (
  -- The day's ratio is watched as its logarithm.
  SELECT
    * EXCEPT (before, after),
    CASE WHEN metric = 'requests_vs_day_before' THEN exp(before) ELSE before END AS before,
    CASE WHEN metric = 'requests_vs_day_before' THEN exp(after) ELSE after END AS after
  FROM drift_statistics
  WHERE is_discovery
)
