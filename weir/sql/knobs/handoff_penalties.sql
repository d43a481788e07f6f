SELECT
  from_model,
  to_model,
  extra_requests,
  extra_requests_low,
  extra_requests_high,
  extra_requests_unadjusted,
  matched AS evidence
FROM handoff_penalties
WHERE matched > 0
