-- Who is allowed what? One row for each tenant, role, tool and operation that somebody decided on: how often it was approved and denied,
-- and by how many callers it was asked for. The rate of approvals leans on the tenant's for the tool over all roles.
SELECT
  tenant,
  role,
  tool,
  operation,
  callers,
  decided,
  approved,
  decided - approved AS denied,
  rates[3]['rate'] AS approval_rate,
  rates[3]['low'] AS approval_rate_low,
  rates[3]['high'] AS approval_rate_high
FROM (
  SELECT *, pooled_rates(approved, decided, tool, operation, role) OVER (PARTITION BY tenant) AS rates
  FROM (
    SELECT
      tenant,
      role,
      tool,
      operation,
      count(DISTINCT caller) AS callers,
      count(*) AS decided,
      count(*) FILTER (WHERE is_approved) AS approved
    FROM approvals
    GROUP BY tenant, role, tool, operation
  )
)
