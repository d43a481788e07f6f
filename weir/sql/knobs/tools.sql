SELECT domain, tool, model, stage, success_rate, success_rate_low, success_rate_high, latency_p50_ms, known AS evidence
FROM tools
WHERE known > 0
