//! From the tables to a fleet: the observed workload of a model, its GPU profile, the recommendation.

use weir_features::{FleetWorkload, WorkloadFilter, fleet_workload_of};
use weir_fleet::{Arrivals, Cell, GpuProfile, Options, Recommendation, Slo, Workload, recommend};

use crate::error::{Failure, Result};

/// Query for what the prefix cache held, among requests whose engine reports it.
const CACHED_SHARE_SQL: &str = include_str!("../sql/cached_share.sql");

/// Width of the windows that [`CACHED_SHARE_SQL`] reads.
const MINUTE_MS: i64 = 60_000;

/// Query for the last arrival of all, and the last that can have happened.
const LAST_ARRIVAL_SQL: &str = include_str!("../sql/last_arrival.sql");

/// The workload that `filter` lets through in `[from_ms, to_ms)`; none when there was no request with token counts.
pub async fn observed_if_any(
    session: &weir_sql::Context,
    from_ms: i64,
    to_ms: i64,
    filter: &WorkloadFilter,
) -> Result<Option<Workload>> {
    let seen: FleetWorkload = fleet_workload_of(session, from_ms, to_ms, filter).await?;
    if seen.cells.is_empty() || seen.arrivals_per_s.is_empty() {
        return Ok(None);
    }
    let cache = prefix_cache(session, from_ms, to_ms, filter).await?;
    let cells = seen
        .cells
        .iter()
        .flat_map(|&(prompt_tokens, completion_tokens, weight)| {
            let cell = Cell { prompt_tokens, completion_tokens, cached_share: 0.0, weight };
            cache.split(&cell)
        })
        .collect();
    Ok(Some(Workload { cells, arrivals: Arrivals::PerSecondCounts(seen.arrivals_per_s) }))
}

/// The same, where having nothing to size is an error, and with the rate multiplied by `scale`.
pub async fn observed(
    session: &weir_sql::Context,
    from_ms: i64,
    to_ms: i64,
    filter: &WorkloadFilter,
    scale: f64,
) -> Result<Workload> {
    let mut workload = observed_if_any(session, from_ms, to_ms, filter).await?.ok_or_else(|| {
        Failure::user(format!(
            "no request with token counts was observed{}: run `weir run` first, or widen the selection",
            filter.model.as_ref().map(|model| format!(" for model {model}")).unwrap_or_default()
        ))
    })?;
    workload.arrivals = match workload.arrivals {
        Arrivals::PerSecondCounts(per_second_counts) if (scale - 1.0).abs() > f64::EPSILON => {
            Arrivals::Scaled { per_second_counts, factor: scale }
        }
        arrivals => arrivals,
    };
    Ok(workload)
}

/// The last `hours` of what was observed up to `now_ms`, in event time: `[from, to)` in ms since the epoch.
pub async fn last_hours(session: &weir_sql::Context, hours: u32, now_ms: i64) -> Result<(i64, i64)> {
    let found = rows(session, &LAST_ARRIVAL_SQL.replace("{now_ms}", &now_ms.to_string())).await?;
    let of = |name: &str| found.first().and_then(|row| row[name].as_i64());
    let Some(last_ms) = of("last_past_arrival_ms") else {
        return Err(Failure::user(match of("last_arrival_ms") {
            Some(_) => "every observed request arrives in the future: set the clocks of the senders, or wait",
            None => "nothing was summarised yet: run `weir run` first",
        }));
    };
    let to_ms = last_ms + 1;
    Ok((to_ms - i64::from(hours) * 3_600_000, to_ms))
}

async fn rows(session: &weir_sql::Context, sql: &str) -> Result<Vec<serde_json::Value>> {
    let batches = weir_sql::query(session, sql).await?;
    let json = weir_sql::render(&batches, weir_sql::Format::Json)?;
    serde_json::from_str(&json).map_err(Failure::ours)
}

/// What the prefix cache holds. A mean over all requests would hide the cold ones, whose long prompts are the tail of the
/// time to first token, so requests are either cold, or warm with the share of warm ones.
#[derive(Debug, Clone, Copy, PartialEq)]
struct PrefixCache {
    /// Share of requests that find some of their prompt.
    warm_share: f64,
    /// Share of a warm request's prompt that it finds.
    cached_share: f64,
}

impl PrefixCache {
    /// Tokens are not counted for warm requests apart, so the two kinds are taken to have prompts of the same length. Where
    /// that can't be, as more is cached than the warm share could hold, more requests count as warm: the computed tokens in
    /// all are those that were observed.
    fn of_totals(requests: f64, warm_requests: f64, prompt_tokens: f64, cached_tokens: f64) -> Self {
        let share = |part: f64, whole: f64| if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 };
        let cached_share_of_all = share(cached_tokens, prompt_tokens);
        let warm_share = share(warm_requests, requests).max(cached_share_of_all);
        Self { warm_share, cached_share: share(cached_share_of_all, warm_share) }
    }

    /// The cold and the warm part of a cell, where there is such a part.
    fn split(&self, cell: &Cell) -> Vec<Cell> {
        let cold = Cell { weight: cell.weight * (1.0 - self.warm_share), ..*cell };
        let warm = Cell { weight: cell.weight * self.warm_share, cached_share: self.cached_share, ..*cell };
        [cold, warm].into_iter().filter(|part| part.weight > 0.0).collect()
    }
}

/// Over the same range and requests as the lengths.
async fn prefix_cache(
    session: &weir_sql::Context,
    from_ms: i64,
    to_ms: i64,
    filter: &WorkloadFilter,
) -> Result<PrefixCache> {
    // A literal of i64::MIN can't be parsed.
    let after_ms = from_ms.saturating_sub(MINUTE_MS).max(-i64::MAX);
    let sql = CACHED_SHARE_SQL.replace("{after_ms}", &after_ms.to_string()).replace("{before_ms}", &to_ms.to_string());
    let wanted = [("tenant", &filter.tenant), ("model", &filter.model), ("pool", &filter.pool)];
    let found = rows(session, &sql).await?;
    let chosen: Vec<&serde_json::Value> = found
        .iter()
        .filter(|row| wanted.iter().all(|(name, value)| value.is_none() || row[*name].as_str() == value.as_deref()))
        .collect();
    let sum = |name: &str| chosen.iter().filter_map(|row| row[name].as_f64()).sum::<f64>();
    Ok(PrefixCache::of_totals(sum("requests"), sum("warm_requests"), sum("prompt_tokens"), sum("cached_tokens")))
}

/// A profile by file or by name.
pub fn profile(named: &str) -> Result<GpuProfile> {
    if named.ends_with(".toml") {
        let text = std::fs::read_to_string(named)
            .map_err(|error| Failure::user(format!("cannot read GPU profile {named}: {error}")))?;
        return GpuProfile::from_toml(&text).map_err(|error| Failure::user(format!("GPU profile {named}: {error}")));
    }
    GpuProfile::named(named).map_err(Failure::user)
}

/// The recommendation for a workload.
pub fn plan(workload: &Workload, profile: &GpuProfile, slo: &Slo, options: &Options) -> Result<Recommendation> {
    recommend(workload, profile, slo, options).map_err(Failure::user)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELL: Cell = Cell { prompt_tokens: 8000.0, completion_tokens: 100.0, cached_share: 0.0, weight: 50.0 };

    fn totals(cells: &[Cell]) -> (f64, f64, f64) {
        let sum = |value: fn(&Cell) -> f64| cells.iter().map(value).sum();
        (sum(|c| c.weight), sum(|c| c.weight * c.prompt_tokens), sum(|c| c.weight * c.prompt_tokens * c.cached_share))
    }

    /// One mean share for all would leave no cold prompt, and those are the slow ones.
    #[test]
    fn cold_requests_stay_cold_and_no_cached_token_is_lost() {
        let cache = PrefixCache::of_totals(1000.0, 600.0, 5_000_000.0, 2_250_000.0);
        let cells = cache.split(&CELL);
        assert_eq!(cells.iter().map(|cell| cell.cached_share).collect::<Vec<_>>(), [0.0, 0.75]);
        assert_eq!(cells.iter().map(|cell| cell.weight).collect::<Vec<_>>(), [20.0, 30.0]);
        let (weight, prompt, cached) = totals(&cells);
        assert!((weight - 50.0).abs() < 1e-9 && (cached / prompt - 0.45).abs() < 1e-9);
    }

    /// Half of the requests are warm, and hold nearly all prompt tokens: a warm share of a half could not hold 0.9.
    #[test]
    fn warm_prompts_longer_than_cold_ones_keep_their_cached_tokens() {
        let cells = PrefixCache::of_totals(1000.0, 500.0, 5_000_000.0, 4_500_000.0).split(&CELL);
        let (_, prompt, cached) = totals(&cells);
        assert!((cached / prompt - 0.9).abs() < 1e-9 && cells.iter().all(|cell| cell.cached_share <= 1.0), "{cells:?}");
        assert!(cells.iter().any(|cell| cell.cached_share == 0.0));
    }

    #[test]
    fn an_engine_that_reports_no_cache_has_cold_requests_only() {
        assert_eq!(PrefixCache::of_totals(0.0, 0.0, 0.0, 0.0).split(&CELL), [CELL]);
        let all_warm = PrefixCache::of_totals(10.0, 10.0, 1000.0, 500.0).split(&CELL);
        assert_eq!(all_warm, [Cell { cached_share: 0.5, ..CELL }]);
    }
}
