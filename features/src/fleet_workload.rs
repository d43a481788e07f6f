//! What a fleet is sized from: the joint token distribution and the arrivals of a time range.

use arrow::array::{Array, AsArray, BinaryArray};
use datafusion::prelude::{SessionContext, col, lit};

use crate::FeaturesError;
use crate::summary::{JointHistogram, SecondCounts, Summary};

/// Width of the windows of `workload_sketch`.
const WINDOW_MS: i64 = 600_000;
/// 40 days of seconds.
const SECONDS_MAX: i64 = 40 * 86_400;

/// The observed workload of a time range.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FleetWorkload {
    /// Joint distribution of (prompt tokens, completion tokens, requests). Cells are at most 10 % wide, exact up to 32
    /// requests. They come from whole 10-minute windows: all that overlap the range.
    pub cells: Vec<(f64, f64, f64)>,
    /// Arrivals in each second from `start_ms` on, silent seconds included, clipped to the range and to what was
    /// observed. Requests without token counts are in here too.
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
    let mut windows = ctx.table("workload_sketch").await?.filter(
        col("window_start_ms").gt(lit(from_ms.saturating_sub(WINDOW_MS))).and(col("window_start_ms").lt(lit(to_ms))),
    )?;
    for (column, wanted) in [("tenant", &filter.tenant), ("model", &filter.model), ("pool", &filter.pool)] {
        if let Some(wanted) = wanted {
            windows = windows.filter(col(column).eq(lit(wanted.as_str())))?;
        }
    }
    let (mut joint, mut arrivals) = (JointHistogram::default(), SecondCounts::default());
    for batch in windows.select_columns(&["joint_tokens", "arrivals"])?.collect().await? {
        merge_all(&mut joint, batch.column(0))?;
        merge_all(&mut arrivals, batch.column(1))?;
    }
    let cells = joint.cells();
    let (start_s, arrivals_per_s) = clipped(&arrivals, from_ms, to_ms)?;
    Ok(FleetWorkload {
        cells: cells.iter().map(|cell| (cell.prompt_tokens, cell.completion_tokens, cell.count as f64)).collect(),
        arrivals_per_s,
        start_ms: start_s.saturating_mul(1000),
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

fn clipped(arrivals: &SecondCounts, from_ms: i64, to_ms: i64) -> Result<(i64, Vec<u32>), FeaturesError> {
    let (from_s, to_s) = (from_ms.div_euclid(1000), to_ms.div_euclid(1000) + i64::from(to_ms.rem_euclid(1000) > 0));
    let inside: Vec<(i64, u64)> = arrivals.seconds().filter(|(second, _)| (from_s..to_s).contains(second)).collect();
    let (Some((first, _)), Some((last, _))) = (inside.first(), inside.last()) else { return Ok((0, Vec::new())) };
    let span = last.saturating_sub(*first).saturating_add(1);
    if span > SECONDS_MAX {
        return Err(FeaturesError::BadRange(format!(
            "the arrivals in that range span {} days: give a range of at most 40 days",
            span / 86_400
        )));
    }
    let mut per_second = vec![0u32; usize::try_from(span).unwrap_or_default()];
    for (second, count) in &inside {
        per_second[usize::try_from(second - first).unwrap_or_default()] = u32::try_from(*count).unwrap_or(u32::MAX);
    }
    Ok((*first, per_second))
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
        assert_eq!(observed.arrivals_per_s, [1]);
    }

    #[tokio::test]
    async fn nothing_in_range_is_an_empty_workload() {
        assert_eq!(workload(0, 1, &WorkloadFilter::default()).await, FleetWorkload::default());
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
