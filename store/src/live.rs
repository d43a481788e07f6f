//! The rows that a table holds now: how readers go through it a file at a time, without a query engine.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use deltalake::Path;
use object_store::ObjectStoreExt;
use serde_json::Value;

use crate::appended::{PartitionValues, completed, parquet_reader};
use crate::table::Table;
use crate::{Result, StoreError};

/// One file of the loaded version.
#[derive(Debug)]
pub struct LiveFile {
    path: Path,
    partition_values: PartitionValues,
    statistics: Value,
}

impl LiveFile {
    /// What all its rows have in the partition column, if that is the column's name.
    #[must_use]
    pub fn partition_value(&self, column: &str) -> Option<&str> {
        self.partition_values.get(column)?.as_deref()
    }

    /// The least and the greatest number of an integer column, where the log knows them. Text has none there.
    #[must_use]
    pub fn range(&self, column: &str) -> Option<(i64, i64)> {
        let bound = |which: &str| self.statistics.get(which)?.get(column)?.as_i64();
        Some((bound("minValues")?, bound("maxValues")?))
    }
}

impl Table {
    /// The files of the loaded version, in no order that means anything.
    ///
    /// # Errors
    /// [`StoreError::DamagedLog`] or [`StoreError::Storage`].
    pub async fn live_files(&self) -> Result<Vec<LiveFile>> {
        let delta = self.delta().await?;
        let snapshot = delta.snapshot().map_err(|error| self.load_error(error))?;
        let files = snapshot.log_data();
        let live = files.iter().map(|file| LiveFile {
            path: file.object_store_path(),
            partition_values: file.partition_values_map().into_iter().collect(),
            statistics: file.stats().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        });
        Ok(live.collect())
    }

    /// The rows of one file, with the named columns in the table's order; names that the table lacks are skipped. Rows
    /// are decoded as they are asked for.
    ///
    /// # Errors
    /// [`StoreError::Storage`], and [`StoreError::DamagedLog`] when the file is no Parquet.
    pub async fn live_rows(
        &self,
        file: &LiveFile,
        names: &[&str],
    ) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
        let fields = self.schema.fields().iter().filter(|field| names.contains(&field.name().as_str()));
        let schema: SchemaRef = Schema::new(fields.cloned().collect::<Vec<_>>()).into();
        let bytes = self.objects().get(&file.path).await?.bytes().await?;
        let (table, place) = (self.name.clone(), self.place());
        let damaged = move |why: String| StoreError::DamagedLog { table: table.clone(), place: place.clone(), why };
        let reader = parquet_reader(bytes, &schema).map_err(&damaged)?;
        let partition_values = file.partition_values.clone();
        Ok(reader.map(move |batch| {
            let batch = batch.map_err(|error| damaged(error.to_string()))?;
            completed(batch, &partition_values, &schema).map_err(&damaged)
        }))
    }
}
