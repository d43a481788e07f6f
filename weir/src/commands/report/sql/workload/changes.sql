SELECT since, sentence
FROM drift
WHERE noticed >= to_timestamp_millis({from_ms}) AND noticed < to_timestamp_millis({to_ms})
ORDER BY noticed, metric, model
