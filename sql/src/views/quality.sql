-- Descriptive only: models see different requests, so a difference here is no evidence that one is better.
SELECT
  requests.policy_version,
  requests.model,
  count(*) AS requests,
  count(rewards.quality) AS judged,
  avg(rewards.quality) AS quality_mean,
  stddev(rewards.quality) / sqrt(nullif(CAST(count(rewards.quality) AS DOUBLE), 0)) AS quality_standard_error
FROM requests
LEFT JOIN rewards ON rewards.request_id = requests.request_id AND rewards.tenant IS NOT DISTINCT FROM requests.tenant
GROUP BY requests.policy_version, requests.model
