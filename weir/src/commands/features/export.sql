SELECT * FROM training_examples
WHERE arrival_ms >= {from_ms} AND arrival_ms < {to_ms}
ORDER BY arrival_ms, tenant, request_id
