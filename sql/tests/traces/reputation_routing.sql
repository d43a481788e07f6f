-- A router that gives each subject to the model of the best reputation there, learned from the verdicts of one model a query, as
-- logs have them: model drawn at random, and only a share of the queries seen at all. Five folds of queries; what is learned
-- from four is tried on the fifth.
WITH scores AS (
  {scores}
),
folded AS (
  SELECT
    *,
    spread(query_id, 5) AS fold,
    row_number() OVER (PARTITION BY query_id ORDER BY spread(concat('{seed} ', query_id, ' ', model), 1000000007), model) = 1
      AND spread(concat('seen {seed} ', query_id), 100000) < {share} * 100000 AS is_seen
  FROM scores
),
folds AS (
  SELECT unnest(make_array(0, 1, 2, 3, 4)) AS held_out
),
cells AS (
  SELECT
    held_out,
    model,
    domain,
    count(*) FILTER (WHERE is_seen AND fold <> held_out) AS n,
    coalesce(sum(score) FILTER (WHERE is_seen AND fold <> held_out), 0) AS good
  FROM folded
  CROSS JOIN folds
  GROUP BY held_out, model, domain
),
rated AS (
  SELECT
    *,
    pooled_rates(good, n, model, domain) OVER (PARTITION BY held_out)[2]['rate'] AS pooled,
    good / nullif(CAST(n AS DOUBLE), 0) AS raw,
    sum(good) OVER (PARTITION BY held_out, model) / nullif(CAST(sum(n) OVER (PARTITION BY held_out, model) AS DOUBLE), 0)
      AS alone
  FROM cells
),
chosen AS (
  SELECT
    held_out,
    domain,
    first_value(model ORDER BY pooled DESC, model) AS by_reputation,
    first_value(model ORDER BY raw DESC NULLS LAST, alone DESC NULLS LAST, model) AS by_domain,
    first_value(model ORDER BY alone DESC NULLS LAST, model) AS single
  FROM rated
  GROUP BY held_out, domain
),
played AS (
  SELECT
    folded.query_id,
    max(score) AS oracle,
    avg(score) AS at_random,
    max(score) FILTER (WHERE model = by_reputation) AS by_reputation,
    max(score) FILTER (WHERE model = by_domain) AS by_domain,
    max(score) FILTER (WHERE model = single) AS single
  FROM folded
  JOIN chosen ON chosen.held_out = folded.fold AND chosen.domain = folded.domain
  GROUP BY folded.query_id
)
SELECT
  avg(by_reputation) AS by_reputation,
  avg(by_domain) AS by_domain,
  avg(single) AS single,
  avg(at_random) AS at_random,
  avg(oracle) AS oracle,
  avg(by_reputation - single) AS gain,
  stddev(by_reputation - single) / sqrt(count(*)) AS gain_standard_error,
  CAST((SELECT count(*) FROM folded WHERE is_seen) AS DOUBLE) AS seen
FROM played
