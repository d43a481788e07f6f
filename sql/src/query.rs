//! Opening a session and running one reading query in it.

use arrow::array::RecordBatch;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::SessionContext;
use weir_store::Store;

use crate::{SqlError, views};

/// A DataFusion session over a store, see [`open`].
pub type Context = SessionContext;

/// A session over all tables of `store` as they are now: raw and partial tables, canonical views, and the analytics
/// views of [`crate::views()`].
///
/// # Errors
/// [`SqlError::Features`] when a table cannot be opened.
pub async fn open(store: &Store) -> Result<Context, SqlError> {
    let ctx = weir_features::session(store).await?;
    views::register(&ctx).await?;
    Ok(ctx)
}

/// Runs one query that reads.
///
/// # Errors
/// [`SqlError::ReadOnly`] for statements that would create, change or copy data or settings, [`SqlError::BadQuery`]
/// when it cannot be planned, [`SqlError::Failed`] when it breaks while it runs.
pub async fn query(ctx: &Context, sql: &str) -> Result<Vec<RecordBatch>, SqlError> {
    let plan = match ctx.state().create_logical_plan(sql).await {
        Ok(plan) => plan,
        Err(error) => return Err(refused_or_bad(ctx, sql, &error)),
    };
    reading_only().verify_plan(&plan).map_err(|_| SqlError::ReadOnly)?;
    let frame = ctx.execute_logical_plan(plan).await.map_err(|error| SqlError::bad_query(&error))?;
    let schema = frame.schema().as_arrow().clone();
    let batches = frame.collect().await.map_err(|error| SqlError::failed(&error))?;
    // A result without rows still has columns.
    Ok(if batches.is_empty() { vec![RecordBatch::new_empty(schema.into())] } else { batches })
}

fn reading_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// A statement that changes something may also fail to plan (its target is a view, say); what matters to the caller
/// is that it would have been refused anyway.
fn refused_or_bad(ctx: &Context, sql: &str, error: &datafusion::error::DataFusionError) -> SqlError {
    use datafusion::sql::parser::Statement as Outer;
    use datafusion::sql::sqlparser::ast::Statement as Inner;
    let dialect = ctx.state().config_options().sql_parser.dialect;
    let reads = match ctx.state().sql_to_statement(sql, &dialect) {
        // Not even a statement: the parser's own words help most.
        Err(_) => true,
        Ok(Outer::Explain(_)) => true,
        Ok(Outer::Statement(statement)) => matches!(
            *statement,
            Inner::Query(_)
                | Inner::Explain { .. }
                | Inner::ExplainTable { .. }
                | Inner::ShowTables { .. }
                | Inner::ShowColumns { .. }
                | Inner::ShowVariable { .. }
                | Inner::ShowFunctions { .. }
        ),
        Ok(_) => false,
    };
    if reads { SqlError::bad_query(error) } else { SqlError::ReadOnly }
}
