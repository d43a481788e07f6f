SELECT action, score, threshold, catch_rate, false_alarm_rate, false_alarm_rate_high, labelled AS evidence
FROM risk_actions
WHERE threshold IS NOT NULL
