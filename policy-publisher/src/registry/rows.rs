//! All rows of the events table. It is small (a row a decision), and a position in the log may be older than the log
//! is kept, so the table is read whole, from the files of its loaded version.

use arrow::array::RecordBatch;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use weir_store::{StoreError, Table};

use crate::{PublisherError, Result};

pub(super) async fn all(table: &Table) -> Result<Vec<RecordBatch>> {
    let damaged = |why: String| PublisherError::Damaged { why };
    let delta = table.delta().await?;
    let snapshot = delta.snapshot().map_err(|error| damaged(error.to_string()))?;
    let paths: Vec<_> = snapshot.log_data().into_iter().map(|file| file.object_store_path()).collect();
    let objects = delta.object_store();
    let mut batches = Vec::new();
    for path in paths {
        let file = objects.get(&path).await.map_err(StoreError::Storage)?;
        let bytes = file.bytes().await.map_err(StoreError::Storage)?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(ParquetRecordBatchReaderBuilder::build);
        for batch in reader.map_err(|error| damaged(error.to_string()))? {
            batches.push(batch.map_err(|error| damaged(error.to_string()))?);
        }
    }
    Ok(batches)
}
