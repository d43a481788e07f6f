-- Up to which prompt does a model still answer well? One row for each model, domain and doubling of the prompt's length, over
-- judged requests: the share that came out well with its interval of 95 %. `is_effective` is FALSE from the first length on
-- whose interval lies below that of some shorter one. `effective_tokens` is where that begins; NULL where nothing shows it.
-- Lengths are compared within a subject, since subjects differ in both; what else makes long requests harder is in it.
WITH lengths AS (
  SELECT
    outcomes.model,
    outcomes.domain,
    CAST(power(2, floor(log2(CAST(greatest(requests.prompt_tokens, 1) AS DOUBLE)))) AS BIGINT) AS from_tokens,
    beta_counts(outcomes.is_success) AS successes
  FROM request_outcomes AS outcomes
  JOIN requests
    ON requests.request_id = outcomes.request_id AND (requests.tenant IS NOT DISTINCT FROM outcomes.tenant)
  WHERE outcomes.is_success IS NOT NULL AND requests.prompt_tokens IS NOT NULL
  GROUP BY 1, 2, 3
),
rated AS (
  SELECT
    model,
    domain,
    from_tokens,
    beta_counts_yes(successes) + beta_counts_no(successes) AS judged,
    beta_counts_rate(successes) AS success_rate,
    beta_counts_quantile(successes, 0.025) AS success_rate_low,
    beta_counts_quantile(successes, 0.975) AS success_rate_high
  FROM lengths
),
compared AS (
  SELECT
    *,
    coalesce(
      success_rate_high < max(success_rate_low) OVER (
        PARTITION BY model, domain ORDER BY from_tokens ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
      ),
      FALSE
    ) AS is_worse
  FROM rated
)
SELECT
  model,
  domain,
  from_tokens,
  2 * from_tokens AS to_tokens,
  judged,
  success_rate,
  success_rate_low,
  success_rate_high,
  NOT coalesce(
    from_tokens >= min(CASE WHEN is_worse THEN from_tokens END) OVER (PARTITION BY model, domain), FALSE
  ) AS is_effective,
  min(CASE WHEN is_worse THEN from_tokens END) OVER (PARTITION BY model, domain) AS effective_tokens
FROM compared
