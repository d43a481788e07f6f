-- A rate of fewer than 20 verdicts is told by others, and no reason to keep a model away.
SELECT
  model,
  domain,
  CASE WHEN sum(verdicts) >= 20 THEN min(domain_hallucination_rate) END AS hallucination_rate,
  CASE WHEN sum(verdicts) >= 20 THEN min(domain_hallucination_rate_low) END AS hallucination_rate_low,
  CASE WHEN sum(verdicts) >= 20 THEN min(domain_hallucination_rate_high) END AS hallucination_rate_high,
  CASE WHEN sum(judged) >= 20 THEN min(domain_success_rate) END AS success_rate,
  CASE WHEN sum(judged) >= 20 THEN min(domain_success_rate_low) END AS success_rate_low,
  CASE WHEN sum(judged) >= 20 THEN min(domain_success_rate_high) END AS success_rate_high,
  sum(verdicts) + sum(judged) AS evidence
FROM model_reputation
GROUP BY model, domain
HAVING sum(verdicts) >= 20 OR sum(judged) >= 20
