-- Where should traffic go after a change for the worse? One row for each change of `drift` that says that a model's errors rose
-- or its quality fell, unless a newer one says otherwise, and domain that the model has served since then: what it does there, and
-- `to_model`, another model whose rate since the same moment is shown to be lower (its interval of 95 % lies below), the best
-- of those. NULL where none is shown to be: then traffic had better stay, or evidence be gathered. Rates are of failures (errors, or
-- answers judged below a half by others than estimators), pooled over domains and models. Models served different requests:
-- part of a difference may be that.
WITH alarms AS (
  SELECT metric, model, CAST(arrow_cast(since, 'Timestamp(Millisecond, None)') AS BIGINT) AS since_ms
  FROM (
    SELECT *, row_number() OVER (PARTITION BY metric, model ORDER BY noticed DESC, since DESC) AS age
    FROM drift
    WHERE metric IN ('error_share', 'quality_mean') AND model IS NOT NULL
  )
  -- What has become better since is over.
  WHERE age = 1 AND ((metric = 'error_share' AND after > before) OR (metric = 'quality_mean' AND after < before))
),
checks AS (
  SELECT 'error_share' AS metric, model, domain, arrival_ms, is_error AS is_bad FROM requests
  WHERE is_error IS NOT NULL AND model IS NOT NULL
  UNION ALL
  SELECT 'quality_mean', model, domain, arrival_ms, NOT is_success FROM request_outcomes WHERE is_success IS NOT NULL
),
since AS (
  SELECT
    alarms.metric,
    alarms.model AS alarmed,
    min(alarms.since_ms) AS since_ms,
    checks.model,
    checks.domain,
    count(*) AS requests,
    count(*) FILTER (WHERE is_bad) AS failures
  FROM alarms
  JOIN checks ON checks.metric = alarms.metric AND checks.arrival_ms >= alarms.since_ms
  GROUP BY alarms.metric, alarms.model, checks.model, checks.domain
),
rated AS (
  SELECT *, pooled_rates(failures, requests, model, domain) OVER (PARTITION BY metric, alarmed)[2] AS told FROM since
),
better AS (
  SELECT
    here.metric,
    here.alarmed,
    here.domain,
    first_value(other.model ORDER BY other.told['rate'], other.model) AS to_model,
    first_value(other.told['rate'] ORDER BY other.told['rate'], other.model) AS to_rate,
    first_value(other.told['high'] ORDER BY other.told['rate'], other.model) AS to_rate_high,
    first_value(other.requests ORDER BY other.told['rate'], other.model) AS to_requests
  FROM rated AS here
  JOIN rated AS other
    ON other.metric = here.metric
    AND other.alarmed = here.alarmed
    AND (other.domain IS NOT DISTINCT FROM here.domain)
    AND other.told['high'] < here.told['low']
  WHERE here.model = here.alarmed
  GROUP BY here.metric, here.alarmed, here.domain
)
SELECT
  rated.metric,
  rated.alarmed AS model,
  rated.domain,
  to_timestamp_millis(rated.since_ms) AS since,
  rated.requests,
  rated.told['rate'] AS rate,
  rated.told['low'] AS rate_low,
  rated.told['high'] AS rate_high,
  to_model,
  to_rate,
  to_rate_high,
  to_requests
FROM rated
LEFT JOIN better
  ON better.metric = rated.metric
  AND better.alarmed = rated.alarmed
  AND (better.domain IS NOT DISTINCT FROM rated.domain)
WHERE rated.model = rated.alarmed
