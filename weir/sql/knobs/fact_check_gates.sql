SELECT
  domain,
  complexity,
  model,
  rate,
  rate_low,
  rate_high,
  answers_share - answers / nullif(CAST(sum(answers) OVER () AS DOUBLE), 0) AS share_before,
  answers_share AS share_through,
  found_share,
  learned_from AS evidence
FROM fact_check_gates
