-- Which decisions on tool calls are nearly always the same? Candidates for rules, for a person to accept; nothing acts by them.
-- A rule is a verdict for all calls of a tenant that agree in role or tool, and some of operation and domain (NULL: any; a
-- subject alone says nothing of what is allowed). `support` decisions were of such calls, and `confidence` is the share of them
-- that the rule agrees with, with the lower end of its interval of 95 %.
--
-- A candidate has at least 20 decisions, asked for by at least 2 callers, and a lower end of 0.9 or above; and no wider rule
-- without an exception says the same already. `exceptions` decided otherwise: look at them before accepting. Since decisions
-- come from those who were asked, what nobody asked for has no rule.
WITH named AS (
  -- What is not told is a value of its own here: NULL means any.
  SELECT
    tenant,
    coalesce(role, '(none)') AS role,
    tool,
    coalesce(operation, '(none)') AS operation,
    coalesce(domain, '(none)') AS domain,
    caller,
    is_approved
  FROM approvals
),
counted AS (
  SELECT
    tenant,
    role,
    tool,
    operation,
    domain,
    count(*) AS support,
    count(DISTINCT caller) AS callers,
    beta_counts(is_approved) AS approved,
    beta_counts(NOT is_approved) AS denied
  FROM named
  GROUP BY GROUPING SETS (
    (tenant, role), (tenant, tool), (tenant, role, tool), (tenant, tool, operation), (tenant, role, tool, operation),
    (tenant, role, domain), (tenant, tool, domain), (tenant, role, tool, domain), (tenant, tool, operation, domain),
    (tenant, role, tool, operation, domain)
  )
),
sided AS (
  SELECT tenant, role, tool, operation, domain, support, callers, 'approve' AS verdict, approved AS agreed FROM counted
  UNION ALL
  SELECT tenant, role, tool, operation, domain, support, callers, 'deny', denied FROM counted
),
sure AS (
  SELECT *
  FROM (
    SELECT
      *,
      beta_counts_yes(agreed) AS agreeing,
      beta_counts_rate(agreed) AS confidence,
      beta_counts_quantile(agreed, 0.025) AS confidence_low
    FROM sided
  )
  WHERE support >= 20 AND callers >= 2 AND confidence_low >= 0.9
)
SELECT
  tenant,
  verdict,
  role,
  tool,
  operation,
  domain,
  support,
  callers,
  support - agreeing AS exceptions,
  confidence,
  confidence_low
FROM sure
WHERE NOT EXISTS (
  SELECT 1
  FROM sure AS wider
  WHERE wider.verdict = sure.verdict
    AND wider.support = wider.agreeing
    AND (wider.tenant IS NOT DISTINCT FROM sure.tenant)
    AND (wider.role IS NULL OR wider.role = sure.role)
    AND (wider.tool IS NULL OR wider.tool = sure.tool)
    AND (wider.operation IS NULL OR wider.operation = sure.operation)
    AND (wider.domain IS NULL OR wider.domain = sure.domain)
    -- Wider: it leaves open what this one names.
    AND (
      (wider.role IS NULL AND sure.role IS NOT NULL)
      OR (wider.tool IS NULL AND sure.tool IS NOT NULL)
      OR (wider.operation IS NULL AND sure.operation IS NOT NULL)
      OR (wider.domain IS NULL AND sure.domain IS NOT NULL)
    )
)
