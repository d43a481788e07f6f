SELECT class, model, domain, observed, failures, rate, rate_low, rate_high
FROM failure_rates
WHERE failures > 0
ORDER BY failures DESC, class, model, domain
LIMIT 60
