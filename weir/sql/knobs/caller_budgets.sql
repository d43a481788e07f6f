SELECT tenant, role, tokens_p50, tokens_p90, tokens_p99, ceiling_tokens, caller_days AS evidence
FROM caller_budgets
WHERE caller_days >= 20
