//! One SQL session over everything in a store.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use weir_store::Store;

use crate::catalog::{Catalog, Definition};
use crate::partials::{CLASSIFIED, PARTIALS};
use crate::raw::raw_tables;
use crate::{FeaturesError, functions, memory, outcome_memory};

/// Canonical views.
const VIEWS: [(&str, &str); 13] = [
    ("terminal_requests", include_str!("sql/views/terminal_requests.sql")),
    ("requests", CLASSIFIED),
    ("request_axes", include_str!("sql/views/request_axes.sql")),
    ("feedback", include_str!("sql/views/feedback.sql")),
    ("request_opinions", include_str!("sql/views/request_opinions.sql")),
    ("rewards", include_str!("sql/views/rewards.sql")),
    ("session_turns", include_str!("sql/views/session_turns.sql")),
    ("sessions", include_str!("sql/views/sessions.sql")),
    ("request_outcomes", include_str!("sql/views/request_outcomes.sql")),
    ("live_outcome_pieces", include_str!("sql/views/live_outcome_pieces.sql")),
    ("outcome_pieces", include_str!("sql/views/outcome_pieces.sql")),
    ("reward_delays", include_str!("sql/views/reward_delays.sql")),
    ("training_examples", include_str!("sql/views/training_examples.sql")),
];

/// A session with the raw tables (`raw_requests`, `raw_feedback`, `raw_gpu_telemetry`, `raw_router_events`,
/// `dead_letters`, `dead_letter_replays`, `ingest_gaps`), the partial tables, every other table of the store under its own
/// name, our functions, and the canonical views `requests`, `request_axes`, `feedback`, `request_opinions`, `rewards`,
/// `session_turns`, `sessions`, `request_outcomes`, `live_outcome_pieces`, `outcome_pieces`, `reward_delays` and
/// `training_examples`.
///
/// A table that is not there yet is empty, with the right columns, so every query plans. The session sees a table as it
/// is when a query first names it: open another one to see later rows. A folder that is no table of Weir's is left out, with
/// a warning.
///
/// Queries of all sessions of the process share one limit on memory; sorts, joins and groups that need more use the disk.
///
/// # Errors
/// [`FeaturesError::Store`] when the store cannot be listed.
pub async fn session(store: &Store) -> Result<SessionContext, FeaturesError> {
    session_with_views(store, []).await
}

/// The same, with more views, each a name and a query over tables and views of the session. It is planned when it is
/// first named.
///
/// # Errors
/// As [`session()`].
pub async fn session_with_views(
    store: &Store,
    views: impl IntoIterator<Item = (&'static str, &'static str)>,
) -> Result<SessionContext, FeaturesError> {
    Ok(open(store, views).await?.0)
}

/// As [`session()`], with every table opened at once, and the version at which the session sees it, by the table's name in
/// the store.
///
/// # Errors
/// [`FeaturesError::Store`] when the store cannot be listed or a table cannot be opened.
pub async fn session_with_versions(store: &Store) -> Result<(SessionContext, BTreeMap<String, i64>), FeaturesError> {
    let (ctx, catalog) = open(store, []).await?;
    let versions = catalog.versions().await?;
    Ok((ctx, versions))
}

/// Runs views once, in this order, and has the session read their rows from `folder` from now on, until it is removed. Who
/// asks many questions of views that lean on the same ones pays for those once. No view that leans on one of these may have
/// been asked before.
///
/// # Errors
/// [`FeaturesError::Query`] when a view does not run, or its rows cannot be written.
pub async fn keep_views(ctx: &SessionContext, views: &[&str], folder: &Path) -> Result<(), FeaturesError> {
    for view in views {
        let place = folder.join(view);
        std::fs::create_dir_all(&place).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let place = format!("{}/", place.display());
        let rows = ctx.table(*view).await?;
        let schema = rows.schema().as_arrow().clone();
        rows.write_parquet(&place, DataFrameWriteOptions::new(), None).await?;
        let kept = ctx.read_parquet(place, ParquetReadOptions::default().schema(&schema)).await?;
        ctx.deregister_table(*view)?;
        ctx.register_table(*view, kept.into_view())?;
    }
    Ok(())
}

async fn open(
    store: &Store,
    views: impl IntoIterator<Item = (&'static str, &'static str)>,
) -> Result<(SessionContext, Arc<Catalog>), FeaturesError> {
    let mut config = SessionConfig::new().with_information_schema(true);
    // Readers downcast columns to the contracts' types; views of strings would be another type.
    config.options_mut().execution.parquet.schema_force_view_types = false;
    let ctx = SessionContext::new_with_config_rt(config, memory::runtime()?);
    functions::register(&ctx);

    let catalog = Catalog::install(&ctx, store)?;
    for raw in raw_tables() {
        catalog.define(&raw.sql_name, Definition::Table { stored: raw.name.to_owned(), schema: raw.schema });
    }
    for partial in PARTIALS {
        let stored = partial.name.to_owned();
        catalog.define(partial.name, Definition::Table { stored, schema: partial.spec().await?.schema });
    }
    let memory = outcome_memory::spec();
    catalog.define(outcome_memory::TABLE, Definition::Table { stored: memory.name, schema: memory.schema });
    for (name, sql) in VIEWS.into_iter().chain(views) {
        catalog.define(name, Definition::View(sql));
    }
    // Names of ours come first. A raw table has another name in SQL than in the store.
    for stored in store.folders("tables").await? {
        if !raw_tables().iter().any(|raw| raw.name == stored) {
            catalog.define(&stored.clone(), Definition::Found { stored });
        }
    }
    Ok((ctx, catalog))
}

#[cfg(test)]
mod tests;
