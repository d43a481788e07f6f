//! The rows that one version added: how readers follow a table without scanning it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use deltalake::Path;
use deltalake::kernel::Action;
use object_store::ObjectStoreExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::commit::LogEntry;
use crate::table::Table;
use crate::{Result, StoreError};

/// Rows in one batch of the answer.
const READ_BATCH_ROWS: usize = 16_384;

/// Partition columns and their values, in the log's form.
pub(crate) type PartitionValues = BTreeMap<String, Option<String>>;

impl Table {
    /// The rows that `version` appended, with all columns of [`Table::schema`]. Empty for a version that only moved
    /// positions, changed metadata, compacted, or replaced rows: a version that also removes data is not an append.
    ///
    /// # Errors
    /// [`StoreError::VersionGone`] when the log no longer holds the version, or does not hold it yet.
    pub async fn appended(&self, version: i64) -> Result<Vec<RecordBatch>> {
        self.appended_as(version, &self.schema).await
    }

    /// The same, of the named columns only, in the table's order; names that the table lacks are skipped. What nobody
    /// asked for is not decoded.
    ///
    /// # Errors
    /// As [`Table::appended`].
    pub async fn appended_columns(&self, version: i64, names: &[&str]) -> Result<Vec<RecordBatch>> {
        let fields = self.schema.fields().iter().filter(|field| names.contains(&field.name().as_str()));
        self.appended_as(version, &Schema::new(fields.cloned().collect::<Vec<_>>()).into()).await
    }

    /// When `version` was committed, by its writer's clock: milliseconds since the Unix epoch. It is written in the log,
    /// so every reader gets the same answer. 0 when the writer did not say.
    ///
    /// # Errors
    /// [`StoreError::VersionGone`] when the log no longer holds the version, or does not hold it yet.
    pub async fn committed_ms(&self, version: i64) -> Result<i64> {
        Ok(self.log_entry(version).await?.committed_ms().unwrap_or(0))
    }

    async fn log_entry(&self, version: i64) -> Result<LogEntry> {
        let gone = || StoreError::VersionGone { table: self.name.clone(), version };
        let at = u64::try_from(version).map_err(|_| gone())?;
        self.read_commit(at).await?.ok_or_else(gone)
    }

    async fn appended_as(&self, version: i64, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let entry = self.log_entry(version).await?;
        let replaces =
            entry.actions().iter().any(|action| matches!(action, Action::Remove(removed) if removed.data_change));
        if replaces {
            return Ok(Vec::new());
        }
        let mut batches = Vec::new();
        for action in entry.actions() {
            if let Action::Add(add) = action
                && add.data_change
            {
                let values = add.partition_values.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                batches.extend(self.read_file(&Path::from(add.path.as_str()), &values, schema).await?);
            }
        }
        Ok(batches)
    }

    /// The rows of one file, with the partition's values as columns.
    pub(crate) async fn read_file(
        &self,
        location: &Path,
        values: &PartitionValues,
        schema: &SchemaRef,
    ) -> Result<Vec<RecordBatch>> {
        self.read_file_in_steps(location, values, schema).await?.collect()
    }

    /// The same, decoded some thousand rows at a time: what is in memory is the file's bytes and one batch.
    pub(crate) async fn read_file_in_steps<'a>(
        &'a self,
        location: &Path,
        values: &'a PartitionValues,
        schema: &'a SchemaRef,
    ) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<'a>> {
        let bytes = self.objects().get(location).await?.bytes().await?;
        let damaged = |why: String| StoreError::DamagedLog { table: self.name.clone(), place: self.place(), why };
        let batches = parquet_reader(bytes, schema).map_err(damaged)?;
        Ok(batches.map(move |batch| {
            let batch = batch.map_err(|error| error.to_string());
            batch.and_then(|batch| completed(batch, values, schema)).map_err(damaged)
        }))
    }
}

/// Files hold neither the partition column nor columns that are younger than they are.
pub(crate) fn completed(
    batch: RecordBatch,
    values: &PartitionValues,
    schema: &SchemaRef,
) -> Result<RecordBatch, String> {
    let rows = batch.num_rows();
    let columns = schema.fields().iter().map(|field| -> Result<ArrayRef, String> {
        if let Some(column) = batch.column_by_name(field.name()) {
            return if column.data_type() == field.data_type() {
                Ok(column.clone())
            } else {
                cast(column, field.data_type()).map_err(|error| error.to_string())
            };
        }
        match values.get(field.name()) {
            Some(Some(value)) => {
                let text: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows)));
                cast(&text, field.data_type()).map_err(|error| error.to_string())
            }
            Some(None) | None => Ok(new_null_array(field.data_type(), rows)),
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|error| error.to_string())
}

/// Reads the columns of `schema` that the file has.
pub(crate) fn parquet_reader(bytes: Bytes, schema: &SchemaRef) -> Result<ParquetRecordBatchReader, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| error.to_string())?;
    let wanted = builder.schema().fields().iter().enumerate();
    let wanted = wanted.filter(|(_, field)| schema.field_with_name(field.name()).is_ok()).map(|(root, _)| root);
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    builder.with_projection(mask).with_batch_size(READ_BATCH_ROWS).build().map_err(|error| error.to_string())
}
