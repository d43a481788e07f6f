-- What does a threshold of the semantic cache let through? One row for each domain and similarity, in steps of a hundredth: the
-- hits at that similarity or above, how many of them were judged, how many badly, and the rate of bad ones with an interval of
-- 95 %. The least threshold whose `bad_rate_high` is within an error budget is one that meets it; hits below the threshold in
-- force were never served, so nothing is known of them.
WITH hits AS (
  SELECT
    requests.domain,
    floor(requests.semantic_cache_similarity * 100) / 100 AS similarity,
    CASE WHEN rewards.source_rank <> 4 THEN rewards.quality < 0.5 END AS is_bad
  FROM requests
  LEFT JOIN rewards ON rewards.request_id = requests.request_id AND (rewards.tenant IS NOT DISTINCT FROM requests.tenant)
  WHERE requests.semantic_cache_hit AND requests.semantic_cache_similarity BETWEEN 0 AND 1
),
steps AS (
  SELECT domain, similarity, count(*) AS hits, beta_counts(is_bad) AS bad FROM hits GROUP BY domain, similarity
),
above AS (
  SELECT
    steps.domain,
    steps.similarity AS threshold,
    sum(higher.hits) AS hits,
    beta_counts_merge(higher.bad) AS bad
  FROM steps
  JOIN steps AS higher ON higher.similarity >= steps.similarity AND (higher.domain IS NOT DISTINCT FROM steps.domain)
  GROUP BY steps.domain, steps.similarity
)
SELECT
  domain,
  threshold,
  hits,
  beta_counts_yes(bad) + beta_counts_no(bad) AS judged,
  beta_counts_yes(bad) AS bad,
  beta_counts_rate(bad) AS bad_rate,
  beta_counts_quantile(bad, 0.025) AS bad_rate_low,
  beta_counts_quantile(bad, 0.975) AS bad_rate_high
FROM above
