//! Batches to Parquet files, before anybody can see them.

use arrow::array::{Array, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, SchemaRef};
use deltalake::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake::kernel::Add;
use deltalake::table::config::TablePropertiesExt;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::table::Table;
use crate::{Result, StoreError};

/// Rows that the Parquet writer takes at a time.
const WRITE_BATCH_ROWS: usize = 8_192;

/// How every file of every table is encoded.
#[must_use]
pub fn writer_properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by("weir".to_owned())
        .build()
}

impl Table {
    /// Writes the rows as one file per partition value. The files are invisible until a commit names them.
    pub(crate) async fn write_files(&self, batches: &[RecordBatch]) -> Result<Vec<Add>> {
        let batches: Vec<RecordBatch> = batches
            .iter()
            .filter(|batch| batch.num_rows() > 0)
            .map(|batch| self.aligned(batch))
            .collect::<Result<_>>()?;
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |error| StoreError::delta(&self.name, error);
        let mut writer = self.file_writer();
        for batch in &batches {
            if let Err(error) = writer.write(batch).await {
                // Best effort: what stays behind is unreferenced.
                writer.abort().await.ok();
                return Err(failed(error));
            }
        }
        writer.close().await.map_err(failed)
    }

    /// A writer of this table's files.
    pub(crate) fn file_writer(&self) -> DeltaWriter {
        let indexed = self.head().table_properties().num_indexed_cols();
        let config = WriterConfig::new(
            self.schema.clone(),
            self.partition_columns(),
            Some(writer_properties()),
            None,
            Some(WRITE_BATCH_ROWS),
            indexed,
            Some(statistics_columns(&self.schema)),
        );
        DeltaWriter::new(self.objects(), config)
    }

    /// The batch with the table's columns in the table's order; absent nullable columns are null.
    fn aligned(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let bad = |why: String| StoreError::bad_commit(&self.name, why);
        if let Some(extra) =
            batch.schema().fields().iter().find(|field| self.schema.field_with_name(field.name()).is_err())
        {
            return Err(bad(format!("the table has no column {}", extra.name())));
        }
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields() {
            let column = match batch.column_by_name(field.name()) {
                Some(column) => column.clone(),
                None => new_null_array(field.data_type(), batch.num_rows()),
            };
            if !field.is_nullable() && column.null_count() > 0 {
                return Err(bad(format!("column {} has nulls", field.name())));
            }
            if column.data_type() != field.data_type() {
                return Err(bad(format!(
                    "column {} is {}, not {}",
                    field.name(),
                    column.data_type(),
                    field.data_type()
                )));
            }
            columns.push(column);
        }
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|error| bad(error.to_string()))
    }
}

/// Columns whose extremes go into the log: integers, days and times. Never text: a minimum is a value, and the log
/// outlives the rows that are erased.
fn statistics_columns(schema: &SchemaRef) -> Vec<String> {
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    schema
        .fields()
        .iter()
        .filter(|field| {
            matches!(
                field.data_type(),
                DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Timestamp(_, _)
            ) && plain(field.name())
        })
        .map(|field| format!("\"{}\"", field.name()))
        .collect()
}
