SELECT metric, model, domain, to_model, rate, rate_low, rate_high, to_rate, to_rate_high, requests AS evidence
FROM rebalancing
WHERE to_model IS NOT NULL
