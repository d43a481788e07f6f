SELECT
  tool,
  CAST(within_s AS VARCHAR) AS within_s,
  resumed_share,
  resumed_share_low,
  resumed_share_high,
  held_s_mean,
  requests AS evidence
FROM resume_curves
WHERE requests >= 20
