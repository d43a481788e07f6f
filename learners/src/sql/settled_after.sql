-- The age from which on a request has most of the opinions that it will ever get, and what time it is by the newest event.
SELECT
  (SELECT max(at_ms)
   FROM (SELECT max(arrival_ms) AS at_ms FROM requests UNION ALL SELECT max(event_ms) FROM feedback)) AS now_ms,
  (SELECT min(delay_ms) FROM reward_delays WHERE share_to >= $share) AS delay_ms
