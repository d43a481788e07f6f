SELECT
  domain,
  from_place,
  failed_requests,
  CASE WHEN failed_last THEN 'failed' ELSE 'worked' END AS last,
  cut_requests,
  sessions,
  success_now,
  success_back,
  gain,
  gain_low,
  gain_high,
  extra_tokens
FROM cut_back_gains
WHERE gain_low > 0
ORDER BY gain_low DESC, domain, from_place, failed_requests, failed_last, cut_requests
LIMIT 40
