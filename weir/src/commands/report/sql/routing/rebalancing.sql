SELECT model, domain, metric, since, requests, rate, rate_low, to_model, to_rate, to_rate_high, to_requests
FROM rebalancing
ORDER BY requests DESC, model, domain, metric
LIMIT 40
