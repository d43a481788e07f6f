-- Windows of ten minutes of each run in which both sides have something to say.
SELECT
  pool_state.pool,
  CAST(pods AS DOUBLE) AS pods,
  timed,
  CAST(in_flight_mean AS DOUBLE) AS in_flight_mean,
  CAST(engine_in_flight_mean AS DOUBLE) AS engine_in_flight_mean
FROM pool_state
JOIN (SELECT pool, count(DISTINCT instance) AS pods FROM raw_gpu_telemetry GROUP BY pool) AS engines
  ON engines.pool = pool_state.pool
JOIN (SELECT pool, avg(CASE WHEN e2e_us IS NULL THEN 0.0 ELSE 1.0 END) AS timed FROM requests GROUP BY pool) AS clients
  ON clients.pool = pool_state.pool
WHERE in_flight_mean IS NOT NULL AND engine_in_flight_mean IS NOT NULL
ORDER BY pool_state.pool, window_start
