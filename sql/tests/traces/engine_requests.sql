-- Requests of the experiments. The client counts from its own start, which is put where the first engine begins to work. A
-- request without a completion line ended in an error or was cut off: nobody knows how long it took.
SELECT
  requests.run || '/' || batch AS request_id,
  CAST(round(begun_ms + send_t_s * 1000) AS BIGINT) AS arrival_ms,
  requests.run AS pool,
  'deepseek-llm-7b-chat' AS executed_model,
  latency_s * 1000 AS end_to_end_ms,
  CASE WHEN NOT completed THEN 'error' ELSE 'stop' END AS finish_reason
FROM requests
JOIN (
  SELECT run, CAST(min(log_time) AS BIGINT) / 1000 - first_ms AS begun_ms
  FROM vllm_engine_log
  JOIN (SELECT run AS of_run, min(send_t_s) * 1000 AS first_ms FROM requests GROUP BY run) ON of_run = run
  WHERE num_requests_running > 0
  GROUP BY run, first_ms
) AS begun ON begun.run = requests.run
ORDER BY arrival_ms
