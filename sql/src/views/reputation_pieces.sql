-- What reputations are composed of: one row for each hour, tenant, model, domain and kind of traffic, with verdicts on
-- hallucination and judgements as counts, which add up over any hours. `unchecked` had no verdict: it is in no rate.
SELECT
  arrival_ms - (arrival_ms % 3600000 + 3600000) % 3600000 AS window_start_ms,
  tenant,
  model,
  domain,
  is_fact_seeking,
  count(*) AS requests,
  count(hallucination) AS verdicts,
  count(*) FILTER (WHERE hallucination) AS hallucinations,
  count(*) FILTER (WHERE hallucination IS NULL) AS unchecked,
  count(is_success) AS judged,
  count(*) FILTER (WHERE is_success) AS successes
FROM request_outcomes
GROUP BY 1, tenant, model, domain, is_fact_seeking
