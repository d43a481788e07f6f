SELECT domain, tool, model, stage, calls, known, success_rate, success_rate_low, success_rate_high, latency_p50_ms, latency_p99_ms
FROM tools
ORDER BY calls DESC, tool, model, stage
LIMIT 60
