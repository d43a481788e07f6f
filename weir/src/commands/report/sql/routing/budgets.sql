SELECT domain, system_prompt_hash, place, sessions, tokens_p50, tokens_p90, tokens_p99, trigger_tokens, failed_share
FROM token_budgets
WHERE place IN (1, 2, 5, 10, 20, 50) AND sessions >= 20
ORDER BY sessions DESC, domain, system_prompt_hash, place
LIMIT 60
