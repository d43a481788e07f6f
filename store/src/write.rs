//! Rows to Parquet files, before anybody can see them.
//!
//! Encoding is most of what a commit costs. A [`RowsWriter`] takes rows as they come, on whatever thread, so that little is
//! left to do when the time to commit has come.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::{sort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use delta_kernel::expressions::Scalar;
use delta_kernel::table_properties::DataSkippingNumIndexedCols;
use deltalake::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake::kernel::Add;
use deltalake::table::config::TablePropertiesExt;
use indexmap::IndexMap;
use object_store::ObjectStore;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::table::Table;
use crate::{Advance, Committed, Result, StoreError};

/// Rows that the Parquet writer takes at a time.
const WRITE_BATCH_ROWS: usize = 8_192;

/// Partitions that are written to at once. Each has a file with buffers for every column: rows whose times lie all over the
/// centuries would otherwise take memory without bound.
const OPEN_PARTITIONS_MAX: usize = 64;

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
    files: Files,
    writer: DeltaWriter,
    /// Values of the partition column that the writer has files for.
    open: HashSet<Option<String>>,
    /// Files that were ended before the others.
    ended: Vec<Add>,
    rows: u64,
}

/// What writers of a table's files are made of.
struct Files {
    objects: Arc<dyn ObjectStore>,
    schema: SchemaRef,
    partition_columns: Vec<String>,
    indexed: DataSkippingNumIndexedCols,
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
        let files = self.files();
        RowsWriter {
            table: self.name.clone(),
            writer: files.writer(),
            files,
            open: HashSet::new(),
            ended: Vec::new(),
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
        self.files().writer()
    }

    fn files(&self) -> Files {
        Files {
            objects: self.objects(),
            schema: self.schema.clone(),
            partition_columns: self.partition_columns(),
            indexed: self.head().table_properties().num_indexed_cols(),
        }
    }
}

impl Files {
    fn writer(&self) -> DeltaWriter {
        let config = WriterConfig::new(
            self.schema.clone(),
            self.partition_columns.clone(),
            Some(writer_properties(&self.schema)),
            None,
            Some(WRITE_BATCH_ROWS),
            self.indexed,
            Some(statistics_columns(&self.schema)),
        );
        DeltaWriter::new(self.objects.clone(), config)
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
        let table = self.table.clone();
        let failed = |error| StoreError::delta(&table, error);
        if let Some((value, partition)) = self.only_partition(&batch) {
            // Mostly all rows are of one day: they need not be sorted into partitions, which copies them.
            self.make_room([Some(value)].into()).await?;
            self.writer.write_partition(batch.clone().into_owned(), &partition).await.map_err(failed)?;
        } else {
            for part in self.parts_of_few_partitions(&batch)? {
                let values = self.values(&part);
                self.make_room(values.into_iter().map(|value| value.map(ToOwned::to_owned)).collect()).await?;
                self.writer.write(&part).await.map_err(failed)?;
            }
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// The batch in parts, none of which has more partitions than may be open.
    fn parts_of_few_partitions(&self, batch: &RecordBatch) -> Result<Vec<RecordBatch>> {
        let Some(column) = self.text(batch).filter(|_| self.values(batch).len() > OPEN_PARTITIONS_MAX) else {
            return Ok(vec![batch.clone()]);
        };
        let bad = |error: ArrowError| StoreError::bad_commit(&self.table, error.to_string());
        let sorted = take_record_batch(batch, &sort_to_indices(column, None, None).map_err(bad)?).map_err(bad)?;
        let mut cuts = vec![0];
        let mut seen = BTreeSet::new();
        for (row, value) in self.text(&sorted).into_iter().flatten().enumerate() {
            if seen.insert(value) && seen.len() > OPEN_PARTITIONS_MAX {
                cuts.push(row);
                seen = [value].into();
            }
        }
        cuts.push(sorted.num_rows());
        Ok(cuts.windows(2).map(|cut| sorted.slice(cut[0], cut[1] - cut[0])).collect())
    }

    /// The distinct values of the partition column; none without one.
    fn values<'a>(&self, batch: &'a RecordBatch) -> BTreeSet<Option<&'a str>> {
        self.text(batch).into_iter().flatten().collect()
    }

    fn text<'a>(&self, batch: &'a RecordBatch) -> Option<&'a StringArray> {
        let [column] = self.files.partition_columns.as_slice() else { return None };
        batch.column_by_name(column)?.as_string_opt::<i32>()
    }

    /// Ends the open files, if with these partitions they would be too many.
    async fn make_room(&mut self, coming: HashSet<Option<String>>) -> Result<()> {
        let new = coming.difference(&self.open).count();
        if self.open.len() + new > OPEN_PARTITIONS_MAX {
            let full = std::mem::replace(&mut self.writer, self.files.writer());
            self.ended.extend(full.close().await.map_err(|error| StoreError::delta(&self.table, error))?);
            self.open.clear();
        }
        self.open.extend(coming);
        Ok(())
    }

    /// Ends the files; from here on only a commit is missing.
    ///
    /// # Errors
    /// [`StoreError::Delta`] and [`StoreError::Storage`].
    pub async fn close(self) -> Result<Written> {
        let mut adds = self.ended;
        adds.extend(self.writer.close().await.map_err(|error| StoreError::delta(&self.table, error))?);
        Ok(Written { adds, rows: self.rows })
    }

    /// Gives up what was written. Best effort: what stays behind is unreferenced.
    pub async fn abort(self) {
        self.writer.abort().await.ok();
    }

    /// The partition that all rows are of, if they are of one: its value, and how the writer names it.
    fn only_partition(&self, batch: &RecordBatch) -> Option<(String, IndexMap<String, Scalar>)> {
        let (column, values) = (self.files.partition_columns.first()?, self.text(batch)?);
        let first = values.value(0);
        let is_one = values.null_count() == 0 && values.iter().all(|value| value == Some(first));
        is_one.then(|| (first.to_owned(), IndexMap::from([(column.clone(), Scalar::from(first))])))
    }

    /// The batch with the table's columns in the table's order; absent nullable columns are null.
    fn aligned<'a>(&self, batch: &'a RecordBatch) -> Result<Cow<'a, RecordBatch>> {
        let bad = |why: String| StoreError::bad_commit(&self.table, why);
        if batch.schema_ref() == &self.files.schema {
            return Ok(Cow::Borrowed(batch));
        }
        if let Some(extra) =
            batch.schema().fields().iter().find(|field| self.files.schema.field_with_name(field.name()).is_err())
        {
            return Err(bad(format!("the table has no column {}", extra.name())));
        }
        let mut columns = Vec::with_capacity(self.files.schema.fields().len());
        for field in self.files.schema.fields() {
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
        RecordBatch::try_new(self.files.schema.clone(), columns).map(Cow::Owned).map_err(|error| bad(error.to_string()))
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
    use arrow::datatypes::{Field, Int64Type};

    use super::*;
    use crate::{Store, TableSpec, UtcDay};

    #[tokio::test]
    async fn rows_of_thousands_of_days_are_written_with_few_files_open() {
        let store = Store::open("memory://").await.unwrap();
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("event_date", DataType::Utf8, false)];
        let schema = Arc::new(Schema::new(fields));
        let partition_by = Some("event_date".to_owned());
        let mut table =
            store.table(&TableSpec { name: "events".to_owned(), schema: schema.clone(), partition_by }).await.unwrap();
        let mut writer = table.rows_writer();
        let mut most = 0;
        // Batches of one day, of some, and of more than may be open; rows of a day lie apart.
        for (first, rows, days) in [(0, 100, 1), (100, 300, 40), (400, 2_000, 700), (2_400, 50, 50)] {
            let ids: Vec<i64> = (first..first + rows).collect();
            let day = |id: &i64| UtcDay::of_ms(86_400_000 * (id * 7_919 % days)).to_string();
            let columns: Vec<Arc<dyn Array>> = vec![
                Arc::new(Int64Array::from(ids.clone())),
                Arc::new(StringArray::from_iter_values(ids.iter().map(day))),
            ];
            writer.write(&RecordBatch::try_new(schema.clone(), columns).unwrap()).await.unwrap();
            most = most.max(writer.open.len());
        }
        let written = writer.close().await.unwrap();
        assert!(most <= OPEN_PARTITIONS_MAX && written.adds.len() >= 700, "{most}, {}", written.adds.len());
        let committed = table.commit_written(written, vec![]).await.unwrap();
        let mut ids: Vec<i64> = Vec::new();
        for batch in table.appended(committed.version).await.unwrap() {
            ids.extend(batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values());
        }
        ids.sort_unstable();
        assert_eq!(ids, (0..2_450).collect::<Vec<_>>());
    }

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
