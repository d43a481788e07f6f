-- Which tool should be offered first? One row for each domain, stage of the session, tool and model of which an outcome is
-- known, in `place` from 1 in its domain and stage. What may not be called comes last, whatever it does: a tool whose approvals in `permission_matrix` are
-- shown to be rare with every tenant that decided (their interval over all roles ends below a half) is not `is_authorised`. Then by `reward`, the success rate
-- times one plus the information density of its results (where that is not known, the mean of those of which it is), and
-- by latency.
WITH density AS (
  SELECT tool, avg(information_density) AS information_density, count(information_density) AS results
  FROM tool_results
  GROUP BY tool
),
allowed AS (
  -- Who is refused by one tenant may be allowed by another: only what all of them refuse is out.
  SELECT tool, bool_or(is_authorised) AS is_authorised
  FROM (
    SELECT tenant, tool, beta_counts_quantile(beta_counts(is_approved), 0.975) >= 0.5 AS is_authorised
    FROM approvals
    GROUP BY tenant, tool
  )
  GROUP BY tool
),
rewarded AS (
  SELECT
    tools.*,
    coalesce(allowed.is_authorised, TRUE) AS is_authorised,
    density.information_density,
    coalesce(density.results, 0) AS results,
    tools.success_rate
      * (1 + coalesce(density.information_density, (SELECT avg(information_density) FROM density), 0)) AS reward
  FROM tools
  LEFT JOIN density ON density.tool = tools.tool
  LEFT JOIN allowed ON allowed.tool = tools.tool
  WHERE tools.known > 0
)
SELECT
  domain,
  stage,
  row_number() OVER (
    PARTITION BY domain, stage ORDER BY is_authorised DESC, reward DESC, latency_p50_ms, tool, model
  ) AS place,
  tool,
  model,
  is_authorised,
  known,
  success_rate,
  success_rate_low,
  success_rate_high,
  information_density,
  results,
  reward,
  latency_p50_ms
FROM rewarded
