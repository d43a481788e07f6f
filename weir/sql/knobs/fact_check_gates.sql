SELECT
  domain,
  complexity,
  model,
  rate,
  rate_low,
  rate_high,
  checks_share - checks / nullif(CAST(sum(checks) OVER () AS DOUBLE), 0) AS checks_before,
  checks_share,
  found_share,
  learned_from AS evidence
FROM fact_check_gates
