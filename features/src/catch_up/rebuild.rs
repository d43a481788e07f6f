//! The derived tables anew, from the rows of the raw table instead of from its versions.
//!
//! A derived table is a function of the raw rows. Following versions computes it as they come, and has to live with what
//! comes later: a correction, an id that was forgotten, a version that has gone from the log. Here the same queries run
//! over the view `requests`, in which each request is once, at its last revision, and their rows take the place of the
//! old ones in one commit that also moves the position. So each table is the old one or the new one, whenever the
//! process dies; tables that stand at different versions afterwards are brought level like after any crash.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::min;
use arrow::datatypes::Int64Type;
use datafusion::prelude::{SessionContext, col, lit};
use weir_schemas::Request;
use weir_store::{Store, StoreError, Table};

use super::{Position, SummariserConfig, not_ahead, position_of};
use crate::FeaturesError;
use crate::partials::{PARTIALS, Partial};
use crate::session::session_with_versions;

/// What [`rebuild`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// The version of the raw table whose rows were summarised.
    pub raw_version: i64,
    /// Rows of the derived tables now, all together.
    pub partial_rows: u64,
    /// Of those, rows of windows that are older than every raw row. They were left as they were.
    pub frozen_rows: u64,
}

/// Makes the derived tables anew from the raw rows, as far back as these are kept. `None` when there is no raw table.
///
/// # Errors
/// [`FeaturesError::Store`] when a table cannot be read or written, [`FeaturesError::RebuildRaced`] when another process
/// summarises meanwhile. Each table is then either as it was or rebuilt.
pub async fn rebuild(store: &Store, config: &SummariserConfig) -> Result<Option<Rebuilt>, FeaturesError> {
    rebuild_tables(store, config, &PARTIALS).await
}

pub(super) async fn rebuild_tables(
    store: &Store,
    config: &SummariserConfig,
    partials: &[Partial],
) -> Result<Option<Rebuilt>, FeaturesError> {
    let (ctx, versions) = session_with_versions(store).await?;
    let name = Request::contract().name;
    let (Some(&raw_version), Some(mut raw)) = (versions.get(name), store.existing(name).await?) else {
        return Ok(None);
    };
    let held_from = held_from(&raw, raw_version, config.dedupe_horizon_ms).await?;
    let mut done = Rebuilt { raw_version, ..Rebuilt::default() };
    for partial in partials {
        let mut table = store.table(&partial.spec().await?).await?;
        let position = position_of(&table, partial).await?;
        not_ahead(&mut raw, table.name(), position).await?;
        if position.consumed > Some(raw_version) {
            return Err(FeaturesError::RebuildRaced);
        }
        let mut rows = partial.rows(&ctx, &table.schema()).await?;
        let frozen = older_rows(&ctx, partial, &rows).await?;
        done.frozen_rows += frozen.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        rows.extend(frozen);
        let next = Position {
            consumed: Some(raw_version),
            dedupe_from: position.dedupe_from.max(Some(held_from)),
            dedupe_clock: position.dedupe_clock.or(Some(0)),
        };
        match table.replace(rows, position.advances(partial, next)).await {
            Ok(committed) => done.partial_rows += committed.rows,
            Err(StoreError::Fenced { .. }) => return Err(FeaturesError::RebuildRaced),
            Err(error) => return Err(error.into()),
        }
    }
    tracing::info!(raw_version, partial_rows = done.partial_rows, frozen_rows = done.frozen_rows, "summaries rebuilt");
    Ok(Some(done))
}

/// The first version whose ids are remembered after `newest`: the oldest one within the horizon that the log holds.
async fn held_from(raw: &Table, newest: i64, horizon_ms: i64) -> Result<i64, StoreError> {
    let (mut from, mut oldest_ms) = (newest + 1, i64::MIN);
    while from > 0 {
        match raw.committed_ms(from - 1).await {
            Ok(committed_ms) if committed_ms >= oldest_ms => {
                if from > newest {
                    oldest_ms = committed_ms.saturating_sub(horizon_ms);
                }
                from -= 1;
            }
            Ok(_) | Err(StoreError::VersionGone { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(from)
}

/// The table's rows of windows before the first one in `rebuilt`: raw rows of those are no longer kept.
async fn older_rows(
    ctx: &SessionContext,
    partial: &Partial,
    rebuilt: &[RecordBatch],
) -> Result<Vec<RecordBatch>, FeaturesError> {
    let starts =
        rebuilt.iter().filter_map(|batch| min(batch.column_by_name("window_start_ms")?.as_primitive::<Int64Type>()));
    let first = starts.min().unwrap_or(i64::MAX);
    Ok(ctx.table(partial.name).await?.filter(col("window_start_ms").lt(lit(first)))?.collect().await?)
}
