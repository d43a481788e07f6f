-- What is a model worth on a subject? One row for each tenant, domain and model, over the newest hours that hold a thousand
-- verdicts of the model in the domain, or all where there are fewer. `hallucination_rate` and `success_rate` are the cell's,
-- each with an interval of 95 %, by partial pooling: a tenant's cell leans on the model's domain, which leans on the model,
-- which leans on the others, the more the less evidence it has. `domain_*` is the model's in the domain over all tenants.
--
-- Hallucination is a matter of requests that seek facts: where the router tells which do, only those count. A request
-- that was not checked is missing. With fewer than 20 verdicts `has_evidence` is FALSE: what is said then is said by others.
WITH pieces AS (
  SELECT
    *,
    CASE WHEN bool_or(is_fact_seeking IS NOT NULL) OVER () THEN coalesce(is_fact_seeking, FALSE) ELSE TRUE END AS counts
  FROM reputation_pieces
),
hours AS (
  SELECT
    model,
    domain,
    window_start_ms,
    sum(CASE WHEN counts THEN verdicts ELSE 0 END) AS verdicts,
    sum(judged) AS judged
  FROM pieces
  GROUP BY model, domain, window_start_ms
),
-- The window is the model's in the domain, over all tenants.
newest AS (
  SELECT
    *,
    coalesce(sum(verdicts) OVER before, 0) AS newer_verdicts,
    coalesce(sum(judged) OVER before, 0) AS newer_judged
  FROM hours
  WINDOW before AS (
    PARTITION BY model, domain ORDER BY window_start_ms DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
  )
),
cells AS (
  SELECT
    pieces.model,
    pieces.domain,
    pieces.tenant,
    min(pieces.window_start_ms) FILTER (WHERE newest.newer_verdicts < 1000) AS verdicts_from_ms,
    sum(CASE WHEN counts AND newest.newer_verdicts < 1000 THEN pieces.verdicts ELSE 0 END) AS verdicts,
    sum(CASE WHEN counts AND newest.newer_verdicts < 1000 THEN pieces.hallucinations ELSE 0 END) AS hallucinations,
    sum(CASE WHEN counts THEN pieces.unchecked ELSE 0 END) AS unchecked,
    sum(CASE WHEN newest.newer_judged < 1000 THEN pieces.judged ELSE 0 END) AS judged,
    sum(CASE WHEN newest.newer_judged < 1000 THEN pieces.successes ELSE 0 END) AS successes
  FROM pieces
  JOIN newest
    ON newest.model = pieces.model
    AND (newest.domain IS NOT DISTINCT FROM pieces.domain)
    AND newest.window_start_ms = pieces.window_start_ms
  GROUP BY pieces.model, pieces.domain, pieces.tenant
),
rated AS (
  SELECT
    *,
    pooled_rates(hallucinations, verdicts, model, domain, tenant) OVER () AS bad,
    pooled_rates(successes, judged, model, domain, tenant) OVER () AS good
  FROM cells
)
SELECT
  model,
  domain,
  tenant,
  to_timestamp_millis(verdicts_from_ms) AS verdicts_from,
  verdicts,
  hallucinations,
  unchecked,
  verdicts >= 20 AS has_evidence,
  bad[3]['rate'] AS hallucination_rate,
  bad[3]['low'] AS hallucination_rate_low,
  bad[3]['high'] AS hallucination_rate_high,
  bad[2]['rate'] AS domain_hallucination_rate,
  bad[2]['low'] AS domain_hallucination_rate_low,
  bad[2]['high'] AS domain_hallucination_rate_high,
  judged,
  successes,
  good[3]['rate'] AS success_rate,
  good[3]['low'] AS success_rate_low,
  good[3]['high'] AS success_rate_high,
  good[2]['rate'] AS domain_success_rate,
  good[2]['low'] AS domain_success_rate_low,
  good[2]['high'] AS domain_success_rate_high
FROM rated
