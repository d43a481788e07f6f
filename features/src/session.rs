//! One SQL session over everything in a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::datasource::empty::EmptyTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use weir_store::{Store, Table};

use crate::partials::{CLASSIFIED, PARTIALS};
use crate::raw::raw_tables;
use crate::{FeaturesError, functions, memory};

/// Canonical views, in the order in which they build on each other.
const VIEWS: [(&str, &str); 5] = [
    ("terminal_requests", include_str!("sql/views/terminal_requests.sql")),
    ("requests", CLASSIFIED),
    ("request_axes", include_str!("sql/views/request_axes.sql")),
    ("feedback", include_str!("sql/views/feedback.sql")),
    ("rewards", include_str!("sql/views/rewards.sql")),
];

/// A session with the raw tables (`raw_requests`, `raw_feedback`, `raw_gpu_telemetry`, `dead_letters`,
/// `dead_letter_replays`, `ingest_gaps`), the partial tables, every other table of the store under its own name, our functions, and the canonical views `requests`,
/// `request_axes`, `feedback` and `rewards`.
///
/// A table that is not there yet is empty, with the right columns, so every query plans. The session sees the tables
/// as they are now: open another one to see later rows. A folder that is no table of Weir's is left out, with a warning.
///
/// Queries of all sessions of the process share one limit on memory; sorts, joins and groups that need more use the disk.
///
/// # Errors
/// [`FeaturesError::Store`] when a table cannot be opened.
pub async fn session(store: &Store) -> Result<SessionContext, FeaturesError> {
    Ok(session_with_versions(store).await?.0)
}

/// The same, and the version at which the session sees each table of the store, by the table's name in the store.
///
/// # Errors
/// As [`session()`].
pub async fn session_with_versions(store: &Store) -> Result<(SessionContext, BTreeMap<String, i64>), FeaturesError> {
    let mut config = SessionConfig::new().with_information_schema(true);
    // Readers downcast columns to the contracts' types; views of strings would be another type.
    config.options_mut().execution.parquet.schema_force_view_types = false;
    let ctx = SessionContext::new_with_config_rt(config, memory::runtime()?);
    functions::register(&ctx);

    let mut versions = BTreeMap::new();
    let mut others: BTreeSet<String> = store.folders("tables").await?.into_iter().collect();
    for raw in raw_tables() {
        others.remove(raw.name);
        if !register(&ctx, store, raw.name, &raw.sql_name, &mut versions).await? {
            ctx.register_table(raw.sql_name, Arc::new(EmptyTable::new(raw.schema)))?;
        }
    }
    for partial in PARTIALS {
        others.remove(partial.name);
        if !register(&ctx, store, partial.name, partial.name, &mut versions).await? {
            ctx.register_table(partial.name, Arc::new(EmptyTable::new(partial.spec().await?.schema)))?;
        }
    }
    for (name, sql) in VIEWS {
        let view = ctx.sql(sql).await?.into_view();
        ctx.register_table(name, view)?;
    }
    for name in others {
        if ctx.table_exist(&*name)? {
            continue;
        }
        // Whatever somebody put there, the tables beside it can be queried.
        if let Err(error) = register(&ctx, store, &name, &name, &mut versions).await {
            if error.retry_helps() {
                return Err(error);
            }
            tracing::warn!(table = name, %error, "left out of the session");
        }
    }
    Ok((ctx, versions))
}

/// False when the store has no such table.
async fn register(
    ctx: &SessionContext,
    store: &Store,
    name: &str,
    sql_name: &str,
    versions: &mut BTreeMap<String, i64>,
) -> Result<bool, FeaturesError> {
    let Some(table) = store.existing(name).await? else { return Ok(false) };
    register_delta(ctx, &table, sql_name).await?;
    versions.insert(name.to_owned(), table.version());
    Ok(true)
}

async fn register_delta(ctx: &SessionContext, table: &Table, sql_name: &str) -> Result<(), FeaturesError> {
    let external = |error| datafusion::error::DataFusionError::External(Box::new(error));
    let state = ctx.state();
    let delta = table.delta().await?;
    delta.update_datafusion_session(&state).map_err(external)?;
    let provider = delta.table_provider().with_session(Arc::new(state)).await?;
    ctx.register_table(sql_name, provider)?;
    Ok(())
}

#[cfg(test)]
mod tests;
