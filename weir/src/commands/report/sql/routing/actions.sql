SELECT
  action,
  false_alarms_max,
  score,
  threshold,
  catch_rate,
  catch_rate_low,
  false_alarm_rate,
  false_alarm_rate_high,
  labelled
FROM risk_actions
WHERE threshold IS NOT NULL
ORDER BY step, catch_rate DESC, score
