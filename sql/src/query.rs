//! Opening a session and running one reading query in it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::LogicalPlan;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use weir_store::Store;

use crate::render::Writer;
use crate::{Format, SqlError, views};

/// A DataFusion session over a store, see [`open`].
pub type Context = SessionContext;

/// A session over all tables of `store`, each as it is when a query first names it: raw and partial tables, canonical
/// views, and the analytics views of [`crate::views()`].
///
/// # Errors
/// [`SqlError::Features`] when the store cannot be listed.
pub async fn open(store: &Store) -> Result<Context, SqlError> {
    let ctx = weir_features::session_with_views(store, views::definitions()).await?;
    views::register_listing(&ctx)?;
    Ok(ctx)
}

/// Runs one query that reads. The result is charged to the memory of queries while it grows.
///
/// # Errors
/// [`SqlError::ReadOnly`] for statements that would create, change or copy data or settings, [`SqlError::BadQuery`]
/// when it cannot be planned, [`SqlError::BadValue`] and [`SqlError::TooMuchMemory`] when the rows do not allow it,
/// [`SqlError::Failed`] when it breaks while it runs.
pub async fn query(ctx: &Context, sql: &str) -> Result<Vec<RecordBatch>, SqlError> {
    let mut stream = stream(ctx, sql).await?;
    let charged = MemoryConsumer::new("result").register(&ctx.runtime_env().memory_pool);
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(|error| SqlError::running(&error))?;
        charged.try_grow(batch.get_array_memory_size()).map_err(|error| SqlError::running(&error))?;
        batches.push(batch);
    }
    // A result without rows still has columns.
    Ok(if batches.is_empty() { vec![RecordBatch::new_empty(stream.schema())] } else { batches })
}

/// Runs one query that reads and writes its result. CSV and JSON go out as they come; a table needs the widths of all
/// rows first.
///
/// # Errors
/// As [`query`], and [`SqlError::Output`] when `out` takes no more. Some of the result may be written by then.
pub async fn write(ctx: &Context, sql: &str, format: Format, out: &mut impl Write) -> Result<(), SqlError> {
    if format == Format::Table {
        out.write_all(crate::render(&query(ctx, sql).await?, format)?.as_bytes())?;
        return Ok(());
    }
    let mut stream = stream(ctx, sql).await?;
    let mut writer = Writer::begin(format, &stream.schema(), out)?;
    while let Some(batch) = stream.next().await {
        writer.batch(&batch.map_err(|error| SqlError::running(&error))?)?;
    }
    writer.end()
}

/// Runs one query that reads and writes its result as a Parquet file, compressed with zstd; how many rows it has. A file of
/// that name is replaced once the new one is whole.
///
/// # Errors
/// As [`query`], and [`SqlError::File`] when the file cannot be written.
pub async fn write_parquet(ctx: &Context, sql: &str, path: &Path) -> Result<u64, SqlError> {
    let mut stream = stream(ctx, sql).await?;
    let unwritable = |why: String| SqlError::File { path: path.to_owned(), why };
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let file = File::create(part).map_err(|error| unwritable(error.to_string()))?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer =
        ArrowWriter::try_new(file, stream.schema(), Some(properties)).map_err(|error| unwritable(error.to_string()))?;
    let mut rows = 0;
    let written = async {
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|error| SqlError::running(&error))?;
            rows += batch.num_rows() as u64;
            writer.write(&batch).map_err(|error| unwritable(error.to_string()))?;
        }
        let file = writer.into_inner().map_err(|error| unwritable(error.to_string()))?;
        file.sync_all().map_err(|error| unwritable(error.to_string()))?;
        std::fs::rename(part, path).map_err(|error| unwritable(error.to_string()))
    };
    if let Err(error) = written.await {
        std::fs::remove_file(part).ok();
        return Err(error);
    }
    Ok(rows)
}

async fn stream(ctx: &Context, sql: &str) -> Result<SendableRecordBatchStream, SqlError> {
    run(ctx, plan(ctx, sql).await?).await
}

/// The plan of one query that reads.
pub(crate) async fn plan(ctx: &Context, sql: &str) -> Result<LogicalPlan, SqlError> {
    let plan = match ctx.state().create_logical_plan(sql).await {
        Ok(plan) => plan,
        Err(error) => return Err(refused_or_bad(ctx, sql, error)),
    };
    only_reads(&plan)?;
    Ok(plan)
}

/// Refuses a plan that would change something.
pub(crate) fn only_reads(plan: &LogicalPlan) -> Result<(), SqlError> {
    reading_only().verify_plan(plan).map(drop).map_err(|_| SqlError::ReadOnly)
}

/// Starts a plan of [`plan()`].
pub(crate) async fn run(ctx: &Context, plan: LogicalPlan) -> Result<SendableRecordBatchStream, SqlError> {
    let frame = ctx.execute_logical_plan(plan).await.map_err(SqlError::planning)?;
    let task = frame.task_ctx().into();
    let plan = frame.create_physical_plan().await.map_err(SqlError::planning)?;
    datafusion::physical_plan::execute_stream(plan, task).map_err(|error| SqlError::running(&error))
}

fn reading_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// A statement that changes something may also fail to plan (its target is a view, say); what matters to the caller
/// is that it would have been refused anyway.
fn refused_or_bad(ctx: &Context, sql: &str, error: datafusion::error::DataFusionError) -> SqlError {
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
    if reads { SqlError::planning(error) } else { SqlError::ReadOnly }
}
