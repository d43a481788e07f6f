//! Rows to Parquet files, before anybody can see them.
//!
//! Encoding is most of what a commit costs. A [`RowsWriter`] takes rows as they come, on whatever thread, so that little is
//! left to do when the time to commit has come.

use std::borrow::Cow;

use arrow::array::{Array, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use delta_kernel::expressions::Scalar;
use deltalake::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake::kernel::Add;
use deltalake::table::config::TablePropertiesExt;
use indexmap::IndexMap;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::table::Table;
use crate::{Advance, Committed, Result, StoreError};

/// Rows that the Parquet writer takes at a time.
const WRITE_BATCH_ROWS: usize = 8_192;

/// Text columns in which hardly a value comes twice: a dictionary of them is built only to be thrown away.
const DISTINCT_TEXT: [&str; 4] = ["request_id", "feedback_id", "span_id", "trace_id"];

/// How every file with these columns is encoded.
///
/// Whole numbers are written as differences, which fits times, offsets and counters and takes no look-up. Text has a
/// dictionary, except where values hardly repeat, and no extremes: they would compare every value, prune nothing that
/// people ask for, and put values where nobody expects them.
#[must_use]
pub fn writer_properties(schema: &Schema) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by("weir".to_owned());
    for field in schema.fields() {
        let column = ColumnPath::from(field.name().as_str());
        properties = match field.data_type() {
            DataType::Int32 | DataType::Int64 => properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED),
            DataType::Utf8 => properties
                .set_column_dictionary_enabled(column.clone(), !DISTINCT_TEXT.contains(&field.name().as_str()))
                .set_column_statistics_enabled(column, EnabledStatistics::None),
            _ => properties,
        };
    }
    properties.build()
}

/// Takes rows of one table, and writes them to files that nobody can see yet.
pub struct RowsWriter {
    table: String,
    schema: SchemaRef,
    partition_columns: Vec<String>,
    writer: DeltaWriter,
    rows: u64,
}

/// Files that a commit can make visible.
#[derive(Debug, Default)]
pub struct Written {
    pub(crate) adds: Vec<Add>,
    pub(crate) rows: u64,
}

impl Table {
    /// A writer of rows for a later [`Table::commit_written`] to this table, through this value or another.
    #[must_use]
    pub fn rows_writer(&self) -> RowsWriter {
        RowsWriter {
            table: self.name.clone(),
            schema: self.schema.clone(),
            partition_columns: self.partition_columns(),
            writer: self.file_writer(),
            rows: 0,
        }
    }

    /// As [`Table::commit`], of rows that were written before. Without rows it only moves positions.
    ///
    /// # Errors
    /// As [`Table::commit`].
    pub async fn commit_written(&mut self, written: Written, advances: Vec<Advance>) -> Result<Committed> {
        self.commit_files(written, advances).await
    }

    /// Writes the rows as one file per partition value.
    pub(crate) async fn write_files(&self, batches: &[RecordBatch]) -> Result<Written> {
        let mut writer = self.rows_writer();
        for batch in batches {
            if let Err(error) = writer.write(batch).await {
                writer.abort().await;
                return Err(error);
            }
        }
        writer.close().await
    }

    /// A writer of this table's files.
    pub(crate) fn file_writer(&self) -> DeltaWriter {
        let indexed = self.head().table_properties().num_indexed_cols();
        let config = WriterConfig::new(
            self.schema.clone(),
            self.partition_columns(),
            Some(writer_properties(&self.schema)),
            None,
            Some(WRITE_BATCH_ROWS),
            indexed,
            Some(statistics_columns(&self.schema)),
        );
        DeltaWriter::new(self.objects(), config)
    }
}

impl RowsWriter {
    /// Encodes the rows.
    ///
    /// # Errors
    /// [`StoreError::BadCommit`] for rows that do not fit the table; [`StoreError::Delta`] and [`StoreError::Storage`].
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = self.aligned(batch)?;
        let written = match self.only_partition(&batch) {
            // Mostly all rows are of one day: they need not be sorted into partitions, which copies them.
            Some(partition) => self.writer.write_partition(batch.clone().into_owned(), &partition).await,
            None => self.writer.write(&batch).await,
        };
        written.map_err(|error| StoreError::delta(&self.table, error))?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Ends the files; from here on only a commit is missing.
    ///
    /// # Errors
    /// [`StoreError::Delta`] and [`StoreError::Storage`].
    pub async fn close(self) -> Result<Written> {
        let adds = self.writer.close().await.map_err(|error| StoreError::delta(&self.table, error))?;
        Ok(Written { adds, rows: self.rows })
    }

    /// Gives up what was written. Best effort: what stays behind is unreferenced.
    pub async fn abort(self) {
        self.writer.abort().await.ok();
    }

    /// The partition that all rows are of, if they are of one.
    fn only_partition(&self, batch: &RecordBatch) -> Option<IndexMap<String, Scalar>> {
        let [column] = self.partition_columns.as_slice() else { return None };
        let values = batch.column_by_name(column)?.as_string_opt::<i32>()?;
        let first = values.value(0);
        let is_one = values.null_count() == 0 && values.iter().all(|value| value == Some(first));
        is_one.then(|| IndexMap::from([(column.clone(), Scalar::from(first))]))
    }

    /// The batch with the table's columns in the table's order; absent nullable columns are null.
    fn aligned<'a>(&self, batch: &'a RecordBatch) -> Result<Cow<'a, RecordBatch>> {
        let bad = |why: String| StoreError::bad_commit(&self.table, why);
        if batch.schema_ref() == &self.schema {
            return Ok(Cow::Borrowed(batch));
        }
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
        RecordBatch::try_new(self.schema.clone(), columns).map(Cow::Owned).map_err(|error| bad(error.to_string()))
    }
}

/// Columns whose extremes go into the log: days, times and other wide integers (offsets, versions), by which readers skip
/// files. Not counts, whose ranges are alike in every file and would make each checkpoint several times as large. Never
/// text: a minimum is a value, and the log outlives the rows that are erased.
fn statistics_columns(schema: &SchemaRef) -> Vec<String> {
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    schema
        .fields()
        .iter()
        .filter(|field| {
            matches!(field.data_type(), DataType::Int64 | DataType::Date32 | DataType::Timestamp(_, _))
                && plain(field.name())
        })
        .map(|field| format!("\"{}\"", field.name()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::Field;

    use super::*;
    use crate::{Store, TableSpec};

    #[tokio::test]
    async fn files_that_a_vacuum_may_have_taken_are_not_committed() {
        let store = Store::open("memory://").await.unwrap();
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        let spec = TableSpec { name: "events".to_owned(), schema: schema.clone(), partition_by: None };
        let mut table = store.table(&spec).await.unwrap();
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1, 2, 3]))]).unwrap();
        // The log is kept for two days; what has waited for more than one is written anew.
        for (hours, is_stale) in [(0, false), (23, false), (25, true), (1_000, true)] {
            let mut writer = table.rows_writer();
            writer.write(&batch).await.unwrap();
            let mut written = writer.close().await.unwrap();
            written.adds.iter_mut().for_each(|add| add.modification_time -= hours * 3_600_000);
            let before = table.version();
            match table.commit_written(written, vec![]).await {
                Err(error) => {
                    assert!(is_stale && error.retry_helps(), "{error}");
                    assert!(error.to_string().contains(&format!("{hours} h ago")), "{error}");
                    assert_eq!(table.version(), before);
                }
                Ok(committed) => assert!(!is_stale && committed.rows == 3, "{hours} h"),
            }
        }
    }
}
