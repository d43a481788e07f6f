-- When the requests that everything is about arrived.
SELECT min(arrival_ms) AS from_ms, max(arrival_ms) AS to_ms FROM requests
