SELECT
  model,
  domain,
  complexity,
  success_on,
  success_off,
  gain,
  extra_tokens,
  least(judged_on, judged_off) AS evidence
FROM reasoning_gain
WHERE judged_on > 0 AND judged_off > 0
