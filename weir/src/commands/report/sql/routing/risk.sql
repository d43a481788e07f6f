SELECT caller, scored_requests, unsafe_requests, security_events, last_unsafe, score_day, score_week, risk, reason
FROM caller_risk
WHERE unsafe_requests > 0 OR security_events > 0
ORDER BY risk DESC, caller
LIMIT 20
