//! The partial tables: each is one `GROUP BY` in a `.sql` file, run over the rows of a raw version.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext, ident, lit};
use datafusion::scalar::ScalarValue;
use weir_schemas::Request;
use weir_store::TableSpec;

use crate::raw::raw_schema;
use crate::{FeaturesError, functions};

/// A table of partial rows, derived from `requests`. Rows with the same key merge when they are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Partial {
    pub(crate) name: &'static str,
    sql: &'static str,
}

pub(crate) const PARTIALS: [Partial; 3] = [
    Partial { name: "workload_minute", sql: include_str!("sql/workload_minute.sql") },
    Partial { name: "workload_sketch", sql: include_str!("sql/workload_sketch.sql") },
    Partial { name: "token_sketch", sql: include_str!("sql/token_sketch.sql") },
];

/// The classification, shared with sessions.
pub(crate) const CLASSIFIED: &str = include_str!("sql/views/requests.sql");

impl Partial {
    /// The table's columns are the query's, all nullable.
    pub(crate) async fn spec(&self) -> Result<TableSpec, FeaturesError> {
        let ctx = stream_session(raw_schema(Request::contract()), Vec::new()).await?;
        let plan = ctx.sql(self.sql).await?;
        let fields: Vec<Field> = plan
            .schema()
            .fields()
            .iter()
            .map(|field| Field::new(field.name(), field.data_type().clone(), true))
            .collect();
        Ok(TableSpec { name: self.name.to_owned(), schema: Arc::new(Schema::new(fields)), partition_by: None })
    }

    /// The partial rows of the requests in `ctx`, with the table's schema.
    pub(crate) async fn rows(
        &self,
        ctx: &SessionContext,
        schema: &SchemaRef,
    ) -> Result<Vec<RecordBatch>, FeaturesError> {
        let batches = ctx.sql(self.sql).await?.collect().await?;
        batches
            .into_iter()
            .filter(|batch| batch.num_rows() > 0)
            .map(|batch| Ok(RecordBatch::try_new(schema.clone(), batch.columns().to_vec())?))
            .collect()
    }
}

/// The raw columns of those that `wanted` names.
pub(crate) fn raw_columns(wanted: impl Fn(&str) -> bool) -> SchemaRef {
    let raw = raw_schema(Request::contract());
    let fields = raw.fields().iter().filter(|field| wanted(field.name()));
    Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
}

/// The raw columns that the queries of `partials` read, as their plans say. Texts are not among them.
pub(crate) async fn columns_read(partials: &[Partial]) -> Result<BTreeSet<String>, FeaturesError> {
    let ctx = stream_session(raw_schema(Request::contract()), Vec::new()).await?;
    let mut columns = BTreeSet::new();
    for partial in partials {
        let plan = ctx.sql(partial.sql).await?.into_optimized_plan()?;
        plan.apply(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                columns.extend(scan.projected_schema.fields().iter().map(|field| field.name().clone()));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(columns)
}

/// A session in which `requests` are the given raw rows, classified. The rows must be finished and unique. Raw columns
/// that they do not have are NULL there, and cost nothing.
pub(crate) async fn stream_session(
    columns: SchemaRef,
    batches: Vec<RecordBatch>,
) -> Result<SessionContext, FeaturesError> {
    // One partition: a version's rows are few, and two cores have better to do than to exchange them.
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    functions::register(&ctx);
    let rows = MemTable::try_new(columns.clone(), vec![batches])?;
    let raw = raw_schema(Request::contract());
    let named = raw.fields().iter().map(|field| match columns.field_with_name(field.name()) {
        Ok(_) => Ok(ident(field.name())),
        Err(_) => Ok(lit(ScalarValue::try_new_null(field.data_type())?).alias(field.name())),
    });
    let rows = ctx.read_table(Arc::new(rows))?.select(named.collect::<Result<Vec<_>, FeaturesError>>()?)?;
    ctx.register_table("terminal_requests", rows.into_view())?;
    let classified = ctx.sql(CLASSIFIED).await?;
    ctx.register_table("requests", classified.into_view())?;
    Ok(ctx)
}

/// The batch with exactly the columns of `schema`: absent nullable ones are NULL, close types are cast.
pub(crate) fn conformed(batch: &RecordBatch, schema: &SchemaRef, table: &str) -> Result<RecordBatch, FeaturesError> {
    let bad = |why: String| FeaturesError::BadRawTable { table: table.to_owned(), why };
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
        Some(column) => cast(column, field.data_type()).map_err(|error| bad(error.to_string())),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema.clone(), columns).map_err(|error| bad(error.to_string()))
}
