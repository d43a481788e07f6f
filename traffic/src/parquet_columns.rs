//! Reading the columns of a parquet file by name, in batches, as plain Arrow types.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::TrafficError;

const BATCH_ROWS: usize = 4_096;

/// The columns of a file.
pub(crate) fn schema(path: &Path) -> Result<SchemaRef, TrafficError> {
    Ok(builder(path)?.schema().clone())
}

/// Reads the named columns, batch by batch.
pub(crate) fn batches(path: &Path, columns: &[&'static str]) -> Result<Batches, TrafficError> {
    let builder = builder(path)?;
    for &column in columns {
        if builder.schema().field_with_name(column).is_err() {
            return Err(TrafficError::Column { path: path.to_path_buf(), column, expected: "in the file" });
        }
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|source| TrafficError::Parquet { path: path.to_path_buf(), source })?;
    Ok(Batches { reader, path: path.to_path_buf(), rows_before: 0 })
}

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, TrafficError> {
    let file = File::open(path).map_err(|source| TrafficError::Read { path: path.to_path_buf(), source })?;
    ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|source| TrafficError::Parquet { path: path.to_path_buf(), source })
}

/// The batches of one file.
pub(crate) struct Batches {
    reader: ParquetRecordBatchReader,
    path: PathBuf,
    rows_before: usize,
}

/// One batch and where it comes from.
pub(crate) struct Batch {
    batch: RecordBatch,
    path: PathBuf,
    /// Rows of the file before this batch.
    pub rows_before: usize,
}

impl Iterator for Batches {
    type Item = Result<Batch, TrafficError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        Some(match batch {
            Ok(batch) => {
                let rows_before = self.rows_before;
                self.rows_before += batch.num_rows();
                Ok(Batch { batch, path: self.path.clone(), rows_before })
            }
            Err(error) => {
                let source = parquet::errors::ParquetError::ArrowError(error.to_string());
                Err(TrafficError::Parquet { path: self.path.clone(), source })
            }
        })
    }
}

impl Batch {
    pub(crate) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    pub(crate) fn int64(&self, column: &'static str) -> Result<Int64Array, TrafficError> {
        Ok(self.column(column, &DataType::Int64, "integers")?.as_primitive::<Int64Type>().clone())
    }

    pub(crate) fn float64(&self, column: &'static str) -> Result<Float64Array, TrafficError> {
        Ok(self.column(column, &DataType::Float64, "numbers")?.as_primitive::<Float64Type>().clone())
    }

    pub(crate) fn text(&self, column: &'static str) -> Result<StringArray, TrafficError> {
        Ok(self.column(column, &DataType::Utf8, "text")?.as_string::<i32>().clone())
    }

    pub(crate) fn int64_lists(&self, column: &'static str) -> Result<ListArray, TrafficError> {
        self.lists(column, DataType::Int64, "lists of integers")
    }

    pub(crate) fn float64_lists(&self, column: &'static str) -> Result<ListArray, TrafficError> {
        self.lists(column, DataType::Float64, "lists of numbers")
    }

    fn lists(&self, column: &'static str, item: DataType, expected: &'static str) -> Result<ListArray, TrafficError> {
        let target = DataType::List(std::sync::Arc::new(Field::new("element", item, true)));
        Ok(self.column(column, &target, expected)?.as_list::<i32>().clone())
    }

    /// The error for a value that the format cannot have.
    pub(crate) fn impossible(&self, row: usize, column: &'static str) -> TrafficError {
        TrafficError::Value { path: self.path.clone(), row: self.rows_before + row, column }
    }

    /// A token count of the file, which must fit the contract's.
    pub(crate) fn tokens(&self, column: &'static str) -> Result<Vec<i32>, TrafficError> {
        let counts = self.int64(column)?;
        (0..self.rows())
            .map(|row| {
                let count = if counts.is_null(row) { -1 } else { counts.value(row) };
                i32::try_from(count).ok().filter(|count| *count >= 0).ok_or_else(|| self.impossible(row, column))
            })
            .collect()
    }

    /// A price or a cost, which must be there: a missing one would read as free of charge.
    pub(crate) fn amount(&self, values: &Float64Array, row: usize, column: &'static str) -> Result<f64, TrafficError> {
        let value = values.value(row);
        if values.is_null(row) || !value.is_finite() || value < 0.0 {
            return Err(self.impossible(row, column));
        }
        Ok(value)
    }

    fn column(
        &self,
        column: &'static str,
        target: &DataType,
        expected: &'static str,
    ) -> Result<ArrayRef, TrafficError> {
        let wrong = || TrafficError::Column { path: self.path.clone(), column, expected };
        let array = self.batch.column_by_name(column).ok_or_else(wrong)?;
        cast(array, target).map_err(|_| wrong())
    }
}
