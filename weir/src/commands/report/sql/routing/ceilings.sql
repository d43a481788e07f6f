SELECT
  tenant,
  role,
  callers,
  caller_days,
  tokens_p50,
  tokens_p99,
  ceiling_tokens,
  over,
  over_tokens / nullif(CAST(tokens AS DOUBLE), 0) AS over_share
FROM caller_budgets
ORDER BY tokens DESC, tenant, role
LIMIT 40
