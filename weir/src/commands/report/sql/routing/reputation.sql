SELECT
  model,
  domain,
  sum(verdicts) AS verdicts,
  sum(unchecked) AS unchecked,
  min(domain_hallucination_rate) AS hallucination_rate,
  min(domain_hallucination_rate_low) AS hallucination_rate_low,
  min(domain_hallucination_rate_high) AS hallucination_rate_high,
  sum(judged) AS judged,
  min(domain_success_rate) AS success_rate,
  min(domain_success_rate_low) AS success_rate_low,
  min(domain_success_rate_high) AS success_rate_high
FROM model_reputation
GROUP BY model, domain
HAVING sum(verdicts) + sum(judged) > 0
ORDER BY domain, success_rate DESC, model
LIMIT 100
