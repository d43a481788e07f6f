SELECT
  model,
  domain,
  min(domain_hallucination_rate) AS hallucination_rate,
  min(domain_hallucination_rate_low) AS hallucination_rate_low,
  min(domain_hallucination_rate_high) AS hallucination_rate_high,
  min(domain_success_rate) AS success_rate,
  min(domain_success_rate_low) AS success_rate_low,
  min(domain_success_rate_high) AS success_rate_high,
  sum(verdicts) + sum(judged) AS evidence
FROM model_reputation
GROUP BY model, domain
HAVING sum(verdicts) + sum(judged) > 0
