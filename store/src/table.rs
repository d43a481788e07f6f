//! One Delta table of ours: opening, creating, and where its writers stand.

use std::collections::HashMap;
use std::error::Error;
use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};

use arrow::datatypes::{Schema, SchemaRef};
use delta_kernel::Error as KernelError;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::operations::create::CreateBuilder;
use deltalake::{DeltaTable, DeltaTableError, ObjectStoreError};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use crate::{Result, Store, StoreError};

const NAME_PROPERTY: &str = "weir.table";
const SCHEMA_PROPERTY: &str = "weir.schema";

/// A table as its owner wants it.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Folder below `tables/`.
    pub name: String,
    /// Columns, the partition column included.
    pub schema: SchemaRef,
    /// The column whose values become folders, if any.
    pub partition_by: Option<String>,
}

/// One Delta table, loaded at one version. Writers never share a value: each opens its own.
#[derive(Debug)]
pub struct Table {
    pub(crate) store: Store,
    pub(crate) name: String,
    pub(crate) delta: DeltaTable,
    pub(crate) schema: SchemaRef,
    pub(crate) positions: Mutex<Positions>,
    /// Maintenance that this value's commits have started.
    pub(crate) maintenance: Option<JoinHandle<()>>,
}

/// Positions already looked up, all valid at the version that is loaded. A look-up replays the log from its last
/// checkpoint; remembering the answers and folding in each newer commit keeps a commit's cost flat.
#[derive(Debug, Default)]
pub(crate) struct Positions(HashMap<String, Option<i64>>);

impl Table {
    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version that is loaded.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.delta.version().map_or(-1, |version| i64::try_from(version).unwrap_or(i64::MAX))
    }

    /// Its columns, the partition column included.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The Delta table as it is loaded, for a query engine.
    #[must_use]
    pub fn delta(&self) -> &DeltaTable {
        &self.delta
    }

    /// Loads the newest version.
    ///
    /// # Errors
    /// [`StoreError::Storage`] or [`StoreError::Delta`].
    pub async fn refresh(&mut self) -> Result<()> {
        // Taken out while the table moves, and put back only when every newer commit is folded in: whatever fails or is
        // cancelled in between, a position that another writer has moved is never answered from memory.
        let mut positions = std::mem::take(self.positions.get_mut().unwrap_or_else(PoisonError::into_inner));
        let before = self.delta.version();
        self.delta.update_state().await.map_err(|error| self.load_error(error))?;
        let newer = match (before, self.delta.version()) {
            (Some(before), Some(now)) => before + 1..=now,
            _ => return Ok(()),
        };
        for version in newer {
            match self.read_commit(version).await? {
                Some(commit) => commit.transactions().for_each(|(app_id, at)| positions.fold_in(app_id, at)),
                None => positions.0.clear(),
            }
        }
        *self.positions.get_mut().unwrap_or_else(PoisonError::into_inner) = positions;
        Ok(())
    }

    /// Where `app_id` stands in the loaded version; `None` when it never committed here.
    ///
    /// # Errors
    /// [`StoreError::Storage`] or [`StoreError::Delta`].
    pub async fn position(&self, app_id: &str) -> Result<Option<i64>> {
        let known = self.positions.lock().unwrap_or_else(PoisonError::into_inner).0.get(app_id).copied();
        if let Some(position) = known {
            return Ok(position);
        }
        let log_store = self.delta.log_store();
        let snapshot = self.delta.snapshot().map_err(|error| self.load_error(error))?;
        let position =
            snapshot.transaction_version(log_store.as_ref(), app_id).await.map_err(|error| self.load_error(error))?;
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).0.insert(app_id.to_owned(), position);
        Ok(position)
    }

    pub(crate) async fn open(store: &Store, delta: DeltaTable, name: &str) -> Result<Option<Self>> {
        let exists = delta.verify_deltatable_existence().await.map_err(|error| StoreError::delta(name, error))?;
        if !exists {
            return Ok(None);
        }
        let mut table = Self {
            store: store.clone(),
            name: name.to_owned(),
            delta,
            schema: Schema::empty().into(),
            positions: Mutex::default(),
            maintenance: None,
        };
        table.refresh().await?;
        if table.property(NAME_PROPERTY)?.as_deref() != Some(name) {
            return Err(StoreError::NotOurs { table: name.to_owned(), place: table.place() });
        }
        let snapshot = table.delta.snapshot().map_err(|error| table.load_error(error))?;
        table.schema = snapshot.snapshot().arrow_schema();
        Ok(Some(table))
    }

    pub(crate) async fn open_or_create(store: &Store, delta: DeltaTable, spec: &TableSpec) -> Result<Self> {
        if let Some(table) = Self::open(store, delta.clone(), &spec.name).await? {
            return table.checked_against(spec);
        }
        let created = create(&delta, spec).await;
        // Whoever won the race to create it, what lies there now is what counts.
        match (Self::open(store, delta, &spec.name).await?, created) {
            (Some(table), _) => table.checked_against(spec),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(StoreError::bad_commit(&spec.name, "the table vanished while it was made")),
        }
    }

    pub(crate) fn checked_schema_hash(&self) -> Result<Option<String>> {
        self.property(SCHEMA_PROPERTY)
    }

    pub(crate) fn partition_columns(&self) -> Result<Vec<String>> {
        let snapshot = self.delta.snapshot().map_err(|error| self.load_error(error))?;
        Ok(snapshot.metadata().partition_columns().to_vec())
    }

    pub(crate) fn place(&self) -> String {
        self.delta.table_url().to_string()
    }

    /// Storage trouble may pass; anything else that keeps a log from loading is damage.
    pub(crate) fn load_error(&self, error: DeltaTableError) -> StoreError {
        match error {
            DeltaTableError::ObjectStore { source } if !matches!(source, ObjectStoreError::NotFound { .. }) => {
                StoreError::Storage(source)
            }
            other if is_storage_trouble(&other) => {
                StoreError::Storage(ObjectStoreError::Generic { store: "Delta log", source: Box::new(other) })
            }
            other => StoreError::DamagedLog { table: self.name.clone(), place: self.place(), why: other.to_string() },
        }
    }

    fn property(&self, key: &str) -> Result<Option<String>> {
        let snapshot = self.delta.snapshot().map_err(|error| self.load_error(error))?;
        Ok(snapshot.metadata().configuration().get(key).cloned())
    }

    fn checked_against(self, spec: &TableSpec) -> Result<Self> {
        if self.property(SCHEMA_PROPERTY)?.as_deref() == Some(&fingerprint(spec)) {
            return Ok(self);
        }
        let difference = difference(&self.schema, &spec.schema);
        Err(StoreError::OtherSchema { table: self.name.clone(), place: self.place(), difference })
    }
}

impl Positions {
    pub(crate) fn fold_in(&mut self, app_id: &str, at: i64) {
        if let Some(position) = self.0.get_mut(app_id) {
            *position = Some(at);
        }
    }
}

/// Did the object store fail, somewhere below the Delta library? It wraps the store's errors in its own and its kernel's,
/// whose variant for them names no source. A file that is not there is damage: the log says that it is.
fn is_storage_trouble(error: &DeltaTableError) -> bool {
    let passes = |error: &ObjectStoreError| !matches!(error, ObjectStoreError::NotFound { .. });
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(link) = next {
        let storage = link.downcast_ref::<ObjectStoreError>().is_some_and(passes);
        let below_kernel = link.downcast_ref::<KernelError>().is_some_and(|error| match error {
            KernelError::ObjectStore(error) => passes(error),
            KernelError::IOError(error) => error.kind() != ErrorKind::NotFound,
            _ => false,
        });
        if storage || below_kernel {
            return true;
        }
        next = link.source();
    }
    false
}

async fn create(delta: &DeltaTable, spec: &TableSpec) -> Result<()> {
    let failed = |error| StoreError::delta(&spec.name, error);
    let columns: StructType =
        spec.schema.as_ref().try_into_kernel().map_err(|error| StoreError::bad_commit(&spec.name, error))?;
    let properties = [
        (NAME_PROPERTY, spec.name.clone()),
        (SCHEMA_PROPERTY, fingerprint(spec)),
        // The log is a checkpoint store: two days keep listings short; `maintain` waits longer for known followers.
        ("delta.logRetentionDuration", "interval 2 days".to_owned()),
    ];
    CreateBuilder::new()
        .with_log_store(delta.log_store())
        .with_table_name(&spec.name)
        .with_columns(columns.fields().cloned())
        .with_partition_columns(spec.partition_by.clone())
        .with_configuration(properties.map(|(key, value)| (key.to_owned(), Some(value))))
        .with_raise_if_key_not_exists(false)
        // With retries the library would turn a lost race into a second version that overwrites the metadata.
        .with_commit_properties(CommitProperties::default().with_max_retries(0))
        .await
        .map_err(failed)?;
    Ok(())
}

/// A hash of names, types, nullability, order and partition column.
fn fingerprint(spec: &TableSpec) -> String {
    let mut hash = Sha256::new();
    for field in spec.schema.fields() {
        hash.update(format!("{}\u{1f}{}\u{1f}{}\u{1e}", field.name(), field.data_type(), field.is_nullable()));
    }
    hash.update(spec.partition_by.as_deref().unwrap_or_default());
    hex::encode(&hash.finalize()[..16])
}

fn difference(has: &Schema, wants: &Schema) -> String {
    let missing = wants.fields().iter().find(|field| has.field_with_name(field.name()).is_err());
    if let Some(field) = missing {
        return format!("it lacks column {}", field.name());
    }
    let foreign = has.fields().iter().find(|field| wants.field_with_name(field.name()).is_err());
    if let Some(field) = foreign {
        return format!("it has an unknown column {}", field.name());
    }
    let changed = wants.fields().iter().find(|field| {
        has.field_with_name(field.name())
            .is_ok_and(|old| old.data_type() != field.data_type() || old.is_nullable() != field.is_nullable())
    });
    changed
        .map_or_else(|| "order or partitioning differ".to_owned(), |field| format!("column {} differs", field.name()))
}
