//! From the tables to a fleet: the observed workload of a model, its GPU profile, the recommendation.

use weir_features::{FleetWorkload, WorkloadFilter, fleet_workload_of};
use weir_fleet::{Arrivals, Cell, GpuProfile, Options, Recommendation, Slo, Workload, recommend};

use crate::error::{Failure, Result};

/// Query for the share of prompt tokens that came from the prefix cache, among requests whose engine reports it.
const CACHED_SHARE_SQL: &str = include_str!("../sql/cached_share.sql");

/// Query for the last arrival of all.
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
    let cached_share = cached_share(session, filter.model.as_deref()).await?;
    let cells = seen
        .cells
        .iter()
        .map(|&(prompt_tokens, completion_tokens, weight)| Cell {
            prompt_tokens,
            completion_tokens,
            cached_share,
            weight,
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

/// The last `hours` of what was observed, in event time: `[from, to)` in ms since the epoch.
pub async fn last_hours(session: &weir_sql::Context, hours: u32) -> Result<(i64, i64)> {
    let rows = weir_sql::query(session, LAST_ARRIVAL_SQL).await?;
    let json = weir_sql::render(&rows, weir_sql::Format::Json)?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).map_err(Failure::ours)?;
    let last_ms = rows.first().and_then(|row| row["last_arrival_ms"].as_i64());
    let last_ms = last_ms.ok_or_else(|| Failure::user("nothing was summarised yet: run `weir run` first"))?;
    Ok((last_ms - i64::from(hours) * 3_600_000, last_ms + 1))
}

/// Over the whole table: how much of a prompt is cached is a habit of clients and engines, and changes slowly.
async fn cached_share(session: &weir_sql::Context, model: Option<&str>) -> Result<f64> {
    let rows = weir_sql::query(session, CACHED_SHARE_SQL).await?;
    let json = weir_sql::render(&rows, weir_sql::Format::Json)?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).map_err(Failure::ours)?;
    let (mut cached, mut prompt) = (0.0, 0.0);
    for row in &rows {
        if model.is_none_or(|model| row["model"].as_str() == Some(model)) {
            cached += row["cached"].as_f64().unwrap_or(0.0);
            prompt += row["prompt"].as_f64().unwrap_or(0.0);
        }
    }
    Ok(if prompt > 0.0 { (cached / prompt).clamp(0.0, 1.0) } else { 0.0 })
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
pub fn plan(workload: &Workload, profile: &GpuProfile, slo: &Slo, seed: u64) -> Result<Recommendation> {
    recommend(workload, profile, slo, &Options { seed, ..Options::default() }).map_err(Failure::user)
}
