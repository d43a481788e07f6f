//! The rows that one version added: how readers follow a table without scanning it.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::compute::cast;
use bytes::Bytes;
use deltalake::Path;
use deltalake::kernel::{Action, Add};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::table::Table;
use crate::{Result, StoreError};

/// Rows in one batch of the answer.
const READ_BATCH_ROWS: usize = 16_384;

impl Table {
    /// The rows that `version` appended, with all columns of [`Table::schema`]. Empty for a version that only moved
    /// positions, changed metadata, compacted, or replaced rows: a version that also removes data is not an append.
    ///
    /// # Errors
    /// [`StoreError::VersionGone`] when the log no longer holds the version, or does not hold it yet.
    pub async fn appended(&self, version: i64) -> Result<Vec<RecordBatch>> {
        let gone = || StoreError::VersionGone { table: self.name.clone(), version };
        let at = u64::try_from(version).map_err(|_| gone())?;
        let entry = self.read_commit(at).await?.ok_or_else(gone)?;
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
                batches.extend(self.read_file(add).await?);
            }
        }
        Ok(batches)
    }

    async fn read_file(&self, add: &Add) -> Result<Vec<RecordBatch>> {
        let bytes = self.delta.object_store().get(&Path::from(add.path.as_str())).await?.bytes().await?;
        let damaged = |why: String| StoreError::DamagedLog { table: self.name.clone(), place: self.place(), why };
        let mut batches = Vec::new();
        for batch in read_parquet(bytes).map_err(&damaged)? {
            batches.push(self.completed(batch, add).map_err(&damaged)?);
        }
        Ok(batches)
    }

    /// Files hold neither the partition column nor columns that are younger than they are.
    fn completed(&self, batch: RecordBatch, add: &Add) -> Result<RecordBatch, String> {
        let rows = batch.num_rows();
        let columns = self.schema.fields().iter().map(|field| -> Result<ArrayRef, String> {
            if let Some(column) = batch.column_by_name(field.name()) {
                return if column.data_type() == field.data_type() {
                    Ok(column.clone())
                } else {
                    cast(column, field.data_type()).map_err(|error| error.to_string())
                };
            }
            match add.partition_values.get(field.name()) {
                Some(Some(value)) => {
                    let text: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows)));
                    cast(&text, field.data_type()).map_err(|error| error.to_string())
                }
                Some(None) | None => Ok(new_null_array(field.data_type(), rows)),
            }
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|error| error.to_string())
    }
}

fn read_parquet(bytes: Bytes) -> Result<Vec<RecordBatch>, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(|builder| builder.with_batch_size(READ_BATCH_ROWS).build())
        .map_err(|error| error.to_string())?;
    reader.collect::<Result<_, _>>().map_err(|error| error.to_string())
}
