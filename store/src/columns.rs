//! A table's columns, and how they change while it lives.
//!
//! A later version of the program may know more columns than the one that made a table. When all that is new may be null,
//! the table gets them in a commit of its own that holds no rows: files that are older hold nulls there. Processes of the
//! earlier version go on writing beside it, without them. Whatever else differs is refused: no column is renamed, dropped,
//! or given another type.

use arrow::datatypes::{Field, FieldRef, Schema};
use deltalake::DeltaTableError;
use deltalake::kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use deltalake::kernel::{Metadata, MetadataExt, StructField, StructType};
use deltalake::protocol::DeltaOperation;
use sha2::{Digest, Sha256};

use crate::commit::Change;
use crate::table::{SCHEMA_PROPERTY, Table, TableSpec};
use crate::{Result, StoreError};

/// Processes that add columns at once each need one more round.
const ROUNDS_MAX: usize = 8;

impl Table {
    /// The table with the columns of `spec`, which it gets if it lacks them and they may be null.
    pub(crate) async fn with_columns_of(mut self, spec: &TableSpec) -> Result<Self> {
        for round in 1..=ROUNDS_MAX {
            if self.schema_hash().as_deref() == Some(&fingerprint(spec)) {
                return Ok(self);
            }
            let has = self.stored_columns()?;
            let wants = as_stored(&spec.schema).map_err(|error| StoreError::bad_commit(&self.name, error))?;
            let other =
                |difference| StoreError::OtherSchema { table: self.name.clone(), place: self.place(), difference };
            if self.partition_columns() != spec.partition_by.iter().cloned().collect::<Vec<_>>() {
                return Err(other("it is partitioned by another column".to_owned()));
            }
            let all = both(&has, &wants).map_err(other)?;
            if all.fields().len() == has.fields().len() {
                // A later version made it: its columns are null in what this one writes.
                self.schema = wants.into();
                return Ok(self);
            }
            match self.add_columns(&has, &all, spec).await {
                Ok(()) => self.schema = wants.clone().into(),
                // Somebody else may have added them.
                Err(error) if round < ROUNDS_MAX => {
                    let before = self.schema_hash();
                    self.load().await?;
                    if self.schema_hash() == before {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::bad_commit(&self.name, "others changed its columns again and again"))
    }

    async fn add_columns(&mut self, has: &Schema, all: &Schema, spec: &TableSpec) -> Result<()> {
        let bad = |name: &str, error: DeltaTableError| StoreError::delta(name, error);
        let columns: StructType = all.try_into_kernel().map_err(|error| StoreError::bad_commit(&self.name, error))?;
        let is_new = |field: &&StructField| has.field_with_name(field.name()).is_err();
        let fields: Vec<StructField> = columns.fields().filter(is_new).cloned().collect();
        // Whoever wants exactly these columns recognises them without comparing.
        let hash = fingerprint(&TableSpec { schema: all.clone().into(), ..spec.clone() });
        let hash = if all.fields().len() == spec.schema.fields().len() { fingerprint(spec) } else { hash };
        let metadata = self.head().metadata().clone();
        let metadata = metadata
            .with_schema(&columns)
            .and_then(|metadata| metadata.add_config_key(SCHEMA_PROPERTY.to_owned(), hash))
            .map_err(|error| bad(&self.name, error.into()))?;
        let names: Vec<_> = fields.iter().map(|field| field.name().to_owned()).collect();
        let operation = DeltaOperation::AddColumn { fields };
        self.land_change(Change { operation, adds: Vec::new(), removes: None, metadata: Some(metadata) }, &[]).await?;
        metrics::counter!("weir_store_columns_added_total", "table" => self.name.clone()).increment(names.len() as u64);
        tracing::info!(table = self.name, columns = names.join(","), "table has new columns");
        Ok(())
    }

    /// May this value, opened with its columns, write beside whoever changed the table's?
    pub(crate) fn still_fits(&self) -> Result<bool> {
        let has = self.stored_columns()?;
        Ok(both(&has, &self.schema).is_ok_and(|all| all.fields().len() == has.fields().len()))
    }

    /// The columns as the newest known version has them.
    pub(crate) fn stored_columns(&self) -> Result<Schema> {
        stored_columns(self.head().metadata()).map_err(|error| self.load_error(error))
    }
}

pub(crate) fn stored_columns(metadata: &Metadata) -> Result<Schema, DeltaTableError> {
    let columns = metadata.parse_schema()?;
    (&columns).try_into_arrow().map_err(|error| DeltaTableError::Arrow { source: error })
}

/// What becomes of columns in a Delta table: it has fewer types, and names of its own inside lists and maps.
fn as_stored(schema: &Schema) -> Result<Schema, arrow::error::ArrowError> {
    let columns: StructType = schema.try_into_kernel()?;
    (&columns).try_into_arrow()
}

/// The columns of `wants`, then those that only `has` has; or why the two do not go together.
fn both(has: &Schema, wants: &Schema) -> Result<Schema, String> {
    let same = |a: &Field, b: &Field| a.data_type() == b.data_type() && a.is_nullable() == b.is_nullable();
    for field in wants.fields() {
        match has.field_with_name(field.name()) {
            Ok(old) if same(old, field) => {}
            Ok(_) => return Err(format!("column {} differs", field.name())),
            Err(_) if field.is_nullable() => {}
            Err(_) => return Err(format!("it lacks column {}, which must not be null", field.name())),
        }
    }
    let only_there = |field: &&FieldRef| wants.field_with_name(field.name()).is_err();
    let more: Vec<FieldRef> = has.fields().iter().filter(only_there).cloned().collect();
    if let Some(field) = more.iter().find(|field| !field.is_nullable()) {
        return Err(format!("it has column {}, which must not be null", field.name()));
    }
    Ok(Schema::new([wants.fields().to_vec(), more].concat()))
}

/// A hash of names, types, nullability, order and partition column.
pub(crate) fn fingerprint(spec: &TableSpec) -> String {
    let mut hash = Sha256::new();
    for field in spec.schema.fields() {
        hash.update(format!("{}\u{1f}{}\u{1f}{}\u{1e}", field.name(), field.data_type(), field.is_nullable()));
    }
    hash.update(spec.partition_by.as_deref().unwrap_or_default());
    hex::encode(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    fn schema(fields: &[(&str, DataType, bool)]) -> Schema {
        Schema::new(fields.iter().map(|(name, kind, null)| Field::new(*name, kind.clone(), *null)).collect::<Vec<_>>())
    }

    #[test]
    fn only_columns_that_may_be_null_come_and_stay() {
        let has = schema(&[("id", DataType::Utf8, false), ("old", DataType::Int64, true)]);
        let wants = schema(&[("id", DataType::Utf8, false), ("new", DataType::Int64, true)]);
        let names: Vec<String> =
            both(&has, &wants).unwrap().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["id", "new", "old"]);
        let refused = |wants: &Schema| both(&has, wants).unwrap_err();
        assert!(refused(&schema(&[("id", DataType::Int64, false)])).contains("column id differs"));
        assert!(refused(&schema(&[("id", DataType::Utf8, true)])).contains("column id differs"));
        assert!(
            refused(&schema(&[("id", DataType::Utf8, false), ("x", DataType::Utf8, false)])).contains("lacks column x")
        );
        assert!(refused(&schema(&[("old", DataType::Int64, true)])).contains("has column id"));
    }
}
