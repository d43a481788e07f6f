SELECT domain, threshold, hits, judged, bad_rate, bad_rate_low, bad_rate_high
FROM semantic_cache
WHERE judged > 0
ORDER BY domain, threshold DESC
LIMIT 60
