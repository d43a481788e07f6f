-- Each model of the leaderboard is checked on a few documents of its own, drawn by their number: one draw a fold. What is said
-- then of its rate of hallucinations, by pooling along organisation and model and by Jeffreys' interval alone, beside the rate
-- over all of its documents.
WITH verdicts AS (
  SELECT
    split_part(model, '/', 1) AS organisation,
    model,
    hhem_score < 0.5 AS is_bad,
    spread(CAST(doc AS VARCHAR) || model, {folds}) AS fold
  FROM scores
  WHERE is_valid AND hhem_score IS NOT NULL
),
truth AS (
  SELECT model, avg(CASE WHEN is_bad THEN 1.0 ELSE 0.0 END) AS rate FROM verdicts GROUP BY model
),
sampled AS (
  SELECT
    fold,
    organisation,
    model,
    count(*) AS checked,
    count(*) FILTER (WHERE is_bad) AS bad,
    beta_counts(is_bad) AS counts
  FROM verdicts
  WHERE fold < 20
  GROUP BY fold, organisation, model
),
rated AS (
  SELECT *, pooled_rates(bad, checked, organisation, model) OVER (PARTITION BY fold) AS pooled FROM sampled
),
said AS (
  SELECT
    fold,
    rated.model,
    truth.rate,
    checked,
    pooled[2]['rate'] AS pooled_rate,
    pooled[2]['low'] AS pooled_low,
    pooled[2]['high'] AS pooled_high,
    CAST(bad AS DOUBLE) / checked AS raw_rate,
    beta_counts_quantile(counts, 0.025) AS raw_low,
    beta_counts_quantile(counts, 0.975) AS raw_high
  FROM rated
  JOIN truth ON truth.model = rated.model
),
-- Who would be chosen for its few hallucinations.
chosen AS (
  SELECT
    fold,
    first_value(rate ORDER BY pooled_rate, model) AS by_pooled,
    first_value(rate ORDER BY raw_rate, model) AS by_raw
  FROM said
  GROUP BY fold
)
SELECT
  avg(CAST(checked AS DOUBLE)) AS checked,
  avg(CASE WHEN rate BETWEEN pooled_low AND pooled_high THEN 1.0 ELSE 0.0 END) AS pooled_holds,
  avg(pooled_high - pooled_low) AS pooled_width,
  sqrt(avg(power(pooled_rate - rate, 2))) AS pooled_error,
  avg(CASE WHEN rate BETWEEN raw_low AND raw_high THEN 1.0 ELSE 0.0 END) AS raw_holds,
  avg(raw_high - raw_low) AS raw_width,
  sqrt(avg(power(raw_rate - rate, 2))) AS raw_error,
  (SELECT avg(by_pooled) FROM chosen) AS chosen_by_pooled,
  (SELECT avg(by_raw) FROM chosen) AS chosen_by_raw,
  (SELECT min(rate) FROM truth) AS best,
  (SELECT avg(rate) FROM truth) AS average
FROM said
