-- How far is each series of `drift_series` from showing a change? One row a window. `statistic` is an e-detector: as long as
-- the order of a series' values says nothing, its mean at any time is at most the number of windows seen since the last
-- change. Those of a window are judged together: of N series the k largest are discoveries when the k-th is at least
-- 10,080 N / k. So of the discoveries of the window at which one stops to look, the expected share of false ones is at most
-- the expected number of windows until then / 10,080, a tenth after a week; and a single series runs for ten weeks on
-- average, at least, before a false alarm (e-d-BH: Dandapanthula and Ramdas 2025, arXiv 2501.04130). A
-- series that was found begins anew behind its change.
SELECT
  metric,
  model,
  at_ms,
  window_start,
  value,
  events,
  reading['statistic'] AS statistic,
  reading['is_discovery'] AS is_discovery,
  reading['since_ms'] AS since_ms,
  reading['before'] AS before,
  reading['after'] AS after
FROM (
  SELECT *, drift(concat_ws('/', metric, model), value, at_ms, 10080) OVER (ORDER BY at_ms, metric, model) AS reading
  FROM drift_series
)
