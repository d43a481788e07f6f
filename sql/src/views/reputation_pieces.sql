-- What reputations are composed of: one row for each hour, tenant, model, domain and kind of traffic, with verdicts on
-- hallucination and judgements as counts, which add up over any hours. `unchecked` had no verdict: it is in no rate. Days whose rows
-- are no longer kept are as they are remembered.
SELECT
  window_start_ms,
  tenant,
  model,
  domain,
  is_fact_seeking,
  requests,
  hallucination_observed AS verdicts,
  hallucination_failures AS hallucinations,
  requests - hallucination_observed AS unchecked,
  judged,
  successes
FROM outcome_pieces
