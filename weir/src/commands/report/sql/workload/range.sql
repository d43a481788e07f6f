SELECT min(window_start_ms) AS from_ms, max(window_start_ms) + 60000 AS to_ms FROM workload_minute
