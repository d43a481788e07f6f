-- If a model could be chosen in every decision of a policy and the logged probabilities are true, then the mean over
-- those decisions of 1{chosen} / p is 1 in expectation (Horvitz and Thompson, JASA 47, 1952). Far from 1, within a few
-- standard errors, the log is wrong, or the model was not always allowed.
--
-- A draw sticks for its session, so turns are no independent draws. With session sums s of 1{chosen} / p, session sizes
-- n, G sessions and N decisions, the mean m = sum(s) / N is a ratio of session totals, and its standard error is
-- sqrt(G / (G - 1) * sum((s - m n)^2)) / N (Cochran, "Sampling techniques", 3rd ed., section 6.4; the sum goes over all
-- sessions of the policy, also those that never chose the model). A request without a session is a session of its own.
-- One session says nothing about the spread: NULL.
WITH sessions AS (
  SELECT
    policy_version,
    intended_model AS model,
    tenant,
    session_id,
    CASE WHEN session_id IS NULL THEN request_id END AS lone_request_id,
    count(*) AS chosen,
    min(propensity) AS propensity_min,
    sum(propensity) AS propensity_sum,
    sum(1 / propensity) AS inverse_sum
  FROM requests
  WHERE propensity > 0 AND propensity <= 1 AND intended_model IS NOT NULL
  GROUP BY policy_version, intended_model, tenant, session_id, CASE WHEN session_id IS NULL THEN request_id END
),
sized AS (
  SELECT
    *,
    sum(chosen) OVER (PARTITION BY policy_version, tenant, session_id, lone_request_id) AS decisions
  FROM sessions
),
totals AS (
  SELECT
    policy_version,
    count(*) AS sessions,
    sum(decisions) AS decisions,
    sum(decisions * decisions) AS decisions_squared
  FROM (
    SELECT policy_version, sum(chosen) AS decisions
    FROM sessions
    GROUP BY policy_version, tenant, session_id, lone_request_id
  )
  GROUP BY policy_version
),
chosen AS (
  SELECT
    policy_version,
    model,
    sum(chosen) AS decisions,
    min(propensity_min) AS propensity_min,
    sum(propensity_sum) / sum(chosen) AS propensity_mean,
    sum(inverse_sum) AS inverse_sum,
    sum(inverse_sum * inverse_sum) AS inverse_squared,
    sum(inverse_sum * decisions) AS inverse_times_decisions
  FROM sized
  GROUP BY policy_version, model
)
SELECT
  chosen.policy_version,
  chosen.model,
  chosen.decisions,
  chosen.decisions / CAST(totals.decisions AS DOUBLE) AS chosen_share,
  chosen.propensity_min,
  chosen.propensity_mean,
  chosen.inverse_sum / totals.decisions AS inverse_propensity_mean,
  -- sum((s - m n)^2) multiplied out; the least sum of squares is 0, whatever rounding says.
  sqrt(
    greatest(
      chosen.inverse_squared
      - 2 * chosen.inverse_sum / totals.decisions * chosen.inverse_times_decisions
      + power(chosen.inverse_sum / totals.decisions, 2) * totals.decisions_squared,
      0
    ) * totals.sessions / nullif(CAST(totals.sessions - 1 AS DOUBLE), 0)
  ) / totals.decisions AS standard_error
FROM chosen
JOIN totals ON totals.policy_version IS NOT DISTINCT FROM chosen.policy_version
