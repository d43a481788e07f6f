//! What a fleet is sized from: the joint token distribution and the arrivals of a time range.

use std::ops::Range;

use arrow::array::{Array, AsArray, BinaryArray};
use datafusion::prelude::{SessionContext, col, lit};

use crate::FeaturesError;
use crate::summary::{JointHistogram, SecondCounts, Summary};

/// Width of the windows of `workload_sketch`.
const WINDOW_MS: i64 = 600_000;
/// 40 days of seconds, and one: neither end of a range of 40 days need lie on a second.
const SECONDS_MAX: i64 = 40 * 86_400 + 1;

/// The observed workload of a time range.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FleetWorkload {
    /// Joint distribution of (prompt tokens, completion tokens, requests). Cells are at most 10 % wide, exact up to 32
    /// requests. They come from whole 10-minute windows: all that overlap the range.
    pub cells: Vec<(f64, f64, f64)>,
    /// Arrivals in each second from `start_ms` on, silent seconds included. The seconds are those of the range, clipped
    /// to the first and last arrival of all requests, whatever the filter: a model that was asked once in a day has the
    /// rate of a day. Requests without token counts are in here too.
    pub arrivals_per_s: Vec<u32>,
    /// Start of the first second, milliseconds since the Unix epoch; 0 when nothing arrived.
    pub start_ms: i64,
}

/// Which requests to look at; `None` is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkloadFilter {
    /// Only this tenant's.
    pub tenant: Option<String>,
    /// Only those that this model answered.
    pub model: Option<String>,
    /// Only those that this pool served.
    pub pool: Option<String>,
}

/// The workload that arrived in `[from_ms, to_ms)`, from a [`crate::session()`].
///
/// # Errors
/// [`FeaturesError::BadRange`] when the arrivals span more than 40 days.
pub async fn fleet_workload(ctx: &SessionContext, from_ms: i64, to_ms: i64) -> Result<FleetWorkload, FeaturesError> {
    fleet_workload_of(ctx, from_ms, to_ms, &WorkloadFilter::default()).await
}

/// Like [`fleet_workload`], of the requests that `filter` lets through.
///
/// # Errors
/// [`FeaturesError::BadRange`] when the arrivals span more than 40 days.
pub async fn fleet_workload_of(
    ctx: &SessionContext,
    from_ms: i64,
    to_ms: i64,
    filter: &WorkloadFilter,
) -> Result<FleetWorkload, FeaturesError> {
    let windows = ctx.table("workload_sketch").await?.filter(
        col("window_start_ms").gt(lit(from_ms.saturating_sub(WINDOW_MS))).and(col("window_start_ms").lt(lit(to_ms))),
    )?;
    let mut observed = SecondCounts::default();
    for batch in windows.clone().select_columns(&["arrivals"])?.collect().await? {
        merge_all(&mut observed, batch.column(0))?;
    }
    let Some(seconds) = observed_seconds(&observed, from_ms, to_ms)? else { return Ok(FleetWorkload::default()) };

    let mut chosen = windows;
    for (column, wanted) in [("tenant", &filter.tenant), ("model", &filter.model), ("pool", &filter.pool)] {
        if let Some(wanted) = wanted {
            chosen = chosen.filter(col(column).eq(lit(wanted.as_str())))?;
        }
    }
    let (mut joint, mut arrivals) = (JointHistogram::default(), SecondCounts::default());
    for batch in chosen.select_columns(&["joint_tokens", "arrivals"])?.collect().await? {
        merge_all(&mut joint, batch.column(0))?;
        merge_all(&mut arrivals, batch.column(1))?;
    }
    let arrivals_per_s = counts_in(&arrivals, &seconds);
    if arrivals_per_s.iter().all(|count| *count == 0) {
        return Ok(FleetWorkload::default());
    }
    let cells = joint.cells();
    Ok(FleetWorkload {
        cells: cells.iter().map(|cell| (cell.prompt_tokens, cell.completion_tokens, cell.count as f64)).collect(),
        arrivals_per_s,
        start_ms: seconds.start.saturating_mul(1000),
    })
}

fn merge_all<S: Summary>(total: &mut S, column: &dyn Array) -> Result<(), FeaturesError> {
    let parts = arrow::compute::cast(column, &arrow::datatypes::DataType::Binary)?;
    let parts: &BinaryArray = parts.as_binary();
    for part in parts.iter().flatten() {
        total.merge(&S::from_bytes(part)?);
    }
    Ok(())
}

/// The seconds of the range from the first arrival to the last; none if nothing arrived.
fn observed_seconds(arrivals: &SecondCounts, from_ms: i64, to_ms: i64) -> Result<Option<Range<i64>>, FeaturesError> {
    let (from_s, to_s) = (from_ms.div_euclid(1000), to_ms.div_euclid(1000) + i64::from(to_ms.rem_euclid(1000) > 0));
    let mut inside = arrivals.seconds().map(|(second, _)| second).filter(|second| (from_s..to_s).contains(second));
    let Some(first) = inside.next() else { return Ok(None) };
    let after_last = inside.last().unwrap_or(first).saturating_add(1);
    let span = after_last.saturating_sub(first);
    if span > SECONDS_MAX {
        return Err(FeaturesError::BadRange(format!(
            "the arrivals in that range span {} days: give a range of at most 40 days",
            span / 86_400
        )));
    }
    Ok(Some(first..after_last))
}

fn counts_in(arrivals: &SecondCounts, seconds: &Range<i64>) -> Vec<u32> {
    let place = |second: i64| usize::try_from(second - seconds.start).unwrap_or_default();
    let mut per_second = vec![0u32; place(seconds.end)];
    for (second, count) in arrivals.seconds().filter(|(second, _)| seconds.contains(second)) {
        per_second[place(second)] = u32::try_from(count).unwrap_or(u32::MAX);
    }
    per_second
}

#[cfg(test)]
mod tests {
    use weir_schemas::{Request, Tokens};

    use super::*;
    use crate::testing::{T0_MS, append, memory_store, request};
    use crate::{catch_up, session};

    async fn workload(from_ms: i64, to_ms: i64, filter: &WorkloadFilter) -> FleetWorkload {
        let store = memory_store().await;
        let of = |id: &str, after_ms, pool: &str, prompt, completion| Request {
            prompt_tokens: Some(Tokens(prompt)),
            completion_tokens: Some(Tokens(completion)),
            pool: Some(pool.to_owned()),
            ..request(id, T0_MS + after_ms)
        };
        append(&store, &[of("a", 0, "x", 100, 10), of("b", 500, "y", 100, 10), of("c", 3_000, "x", 7, 0)]).await;
        append(&store, &[request("no tokens", T0_MS + 3_100), of("hours later", 7_200_000, "x", 9, 9)]).await;
        catch_up(&store).await.expect("catches up");
        let ctx = session(&store).await.expect("opens");
        fleet_workload_of(&ctx, from_ms, to_ms, filter).await.expect("is read")
    }

    #[tokio::test]
    async fn cells_and_arrivals_are_those_of_the_range() {
        let observed = workload(T0_MS, T0_MS + 60_000, &WorkloadFilter::default()).await;
        assert_eq!(observed.cells, [(7.0, 0.0, 1.0), (100.0, 10.0, 2.0)]);
        assert_eq!(observed.arrivals_per_s, [2, 0, 0, 2]);
        assert_eq!(observed.start_ms, T0_MS);
    }

    #[tokio::test]
    async fn a_filter_keeps_one_pool() {
        let only_y = WorkloadFilter { pool: Some("y".to_owned()), ..WorkloadFilter::default() };
        let observed = workload(i64::MIN, i64::MAX, &only_y).await;
        assert_eq!(observed.cells, [(100.0, 10.0, 1.0)]);
        assert_eq!(observed.arrivals_per_s.iter().sum::<u32>(), 1);
    }

    /// One request in two hours is not one request a second.
    #[tokio::test]
    async fn a_filtered_rate_is_over_the_time_that_all_requests_were_observed() {
        let only_y = WorkloadFilter { pool: Some("y".to_owned()), ..WorkloadFilter::default() };
        let observed = workload(i64::MIN, i64::MAX, &only_y).await;
        assert_eq!((observed.arrivals_per_s.len(), observed.start_ms), (7201, T0_MS));
        let a_minute = workload(T0_MS, T0_MS + 60_000, &only_y).await;
        assert_eq!(a_minute.arrivals_per_s, [1, 0, 0, 0]);
    }

    #[tokio::test]
    async fn what_never_reached_an_engine_is_no_load() {
        let of = |id: &str, after_ms| Request {
            prompt_tokens: Some(Tokens(500)),
            completion_tokens: Some(Tokens(60)),
            executed_model: Some("m".to_owned()),
            ..request(id, T0_MS + after_ms)
        };
        let cached = Request { semantic_cache_hit: Some(true), executed_model: None, ..of("cached", 100) };
        let refused = Request {
            error_class: Some("pii_blocked".to_owned()),
            intended_model: Some("m".to_owned()),
            executed_model: None,
            completion_tokens: Some(Tokens(0)),
            ..of("refused", 200)
        };
        // It was interrupted half way: the engine had worked on it.
        let aborted = Request { error_class: Some("aborted".to_owned()), ..of("aborted", 300) };
        let missed = Request { semantic_cache_hit: Some(false), ..of("missed", 400) };
        let store = memory_store().await;
        append(&store, &[cached, refused, aborted, missed]).await;
        catch_up(&store).await.expect("catches up");
        let ctx = session(&store).await.expect("opens");
        let observed = fleet_workload(&ctx, i64::MIN, i64::MAX).await.expect("is read");
        assert_eq!(observed.cells, [(500.0, 60.0, 2.0)]);
        assert_eq!(observed.arrivals_per_s, [2]);
    }

    #[tokio::test]
    async fn nothing_in_range_is_an_empty_workload() {
        assert_eq!(workload(0, 1, &WorkloadFilter::default()).await, FleetWorkload::default());
    }

    #[tokio::test]
    async fn a_range_of_exactly_40_days_is_not_too_long() {
        let store = memory_store().await;
        // Neither end lies on a whole second.
        let (first, last) = (T0_MS + 500, T0_MS + 500 + 40 * 86_400_000 - 1);
        append(&store, &[request("a", first), request("b", last)]).await;
        catch_up(&store).await.expect("catches up");
        let ctx = session(&store).await.expect("opens");
        let observed = fleet_workload(&ctx, first, last + 1).await.expect("40 days");
        assert_eq!(observed.arrivals_per_s.len(), 40 * 86_400 + 1);
    }

    #[tokio::test]
    async fn a_range_of_more_than_40_days_is_refused_rather_than_filled_with_zeros() {
        let store = memory_store().await;
        let days = |n: i64| T0_MS + n * 86_400_000;
        append(&store, &[request("a", days(0)), request("b", days(39)), request("c", days(41))]).await;
        catch_up(&store).await.expect("catches up");
        let ctx = session(&store).await.expect("opens");
        let refused = fleet_workload(&ctx, i64::MIN, i64::MAX).await.expect_err("41 days");
        assert!(refused.to_string().contains("at most 40 days"), "{refused}");
        assert_eq!(
            fleet_workload(&ctx, days(0), days(40)).await.expect("39 days").arrivals_per_s.len(),
            39 * 86_400 + 1
        );
    }
}
