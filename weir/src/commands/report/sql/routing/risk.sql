SELECT caller, scored_requests, unsafe_requests, last_unsafe, score_day, score_week, risk
FROM caller_risk
WHERE unsafe_requests > 0
ORDER BY risk DESC, caller
LIMIT 20
