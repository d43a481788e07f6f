//! One Delta table of ours: opening, creating, and where its writers stand.

use std::error::Error;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use delta_kernel::Error as KernelError;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::logstore::LogStoreRef;
use deltalake::operations::create::CreateBuilder;
use deltalake::{DeltaTable, DeltaTableError, ObjectStore, ObjectStoreError};
use tokio::task::JoinHandle;

use crate::columns::{fingerprint, stored_columns};
use crate::head::{FOLLOWED_MAX, Head, entry_exists};
use crate::{Result, Store, StoreError};

const NAME_PROPERTY: &str = "weir.table";
pub(crate) const SCHEMA_PROPERTY: &str = "weir.schema";

/// How long to wait for a table that another writer makes; twice as long each time, up to the last.
const FIRST_WAIT_FOR_WINNER: Duration = Duration::from_millis(50);
const LAST_WAIT_FOR_WINNER: Duration = Duration::from_secs(1);

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

/// One Delta table, known at one version. Writers never share a value: each opens its own.
#[derive(Debug)]
pub struct Table {
    pub(crate) store: Store,
    pub(crate) name: String,
    pub(crate) log: LogStoreRef,
    pub(crate) schema: SchemaRef,
    head: Mutex<Head>,
    /// Maintenance that this value's commits have started.
    pub(crate) maintenance: Option<JoinHandle<()>>,
}

impl Table {
    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version that is known.
    #[must_use]
    pub fn version(&self) -> i64 {
        i64::try_from(self.head().version).unwrap_or(i64::MAX)
    }

    /// Its columns, the partition column included.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The Delta table at that version with the list of its files, for a query engine. Its cost grows with the files:
    /// nothing on the way of a commit asks for it.
    ///
    /// # Errors
    /// [`StoreError::Storage`] or [`StoreError::DamagedLog`].
    pub async fn delta(&self) -> Result<DeltaTable> {
        let mut delta = DeltaTable::new(self.log.clone());
        let version = self.head().version;
        delta.load_version(version).await.map_err(|error| self.load_error(error))?;
        Ok(delta)
    }

    /// The table's own id, given to it when it was made: one that was made anew at the same place has another.
    #[must_use]
    pub fn id(&self) -> String {
        self.head().metadata().id().to_owned()
    }

    /// Goes on to the newest version. One read for each version since, and one that finds none.
    ///
    /// # Errors
    /// [`StoreError::Storage`] or [`StoreError::Delta`].
    pub async fn refresh(&mut self) -> Result<()> {
        // A plan that must know of every version's removes is never helped by loading anew.
        let mut followed = 0;
        while followed < FOLLOWED_MAX || !self.head().has_removes_since() {
            followed += 1;
            let version = self.head().version;
            match self.read_commit(version + 1).await? {
                Some(entry) => self.head_mut().follow(entry.actions()),
                None if !self.head().is_doubtful() => return Ok(()),
                None if entry_exists(self.log.as_ref(), version).await? => {
                    self.head_mut().confirmed();
                    return Ok(());
                }
                None => break,
            }
        }
        self.load().await
    }

    /// Loads the newest version anew, whatever is known.
    pub(crate) async fn load(&mut self) -> Result<()> {
        let head = Head::load(&self.log).await.map_err(|error| self.load_error(error))?;
        *self.head_mut() = head;
        Ok(())
    }

    /// Where `app_id` stands in the known version; `None` when it never committed here.
    ///
    /// # Errors
    /// [`StoreError::Storage`] or [`StoreError::Delta`].
    pub async fn position(&self, app_id: &str) -> Result<Option<i64>> {
        let head = {
            let head = self.head();
            if let Some(position) = head.known_position(app_id) {
                return Ok(position);
            }
            head.clone()
        };
        let position = head.looked_up(&self.log, app_id).await.map_err(|error| self.load_error(error))?;
        self.head().remember_position(app_id, position);
        Ok(position)
    }

    pub(crate) async fn open(store: &Store, log: LogStoreRef, name: &str) -> Result<Option<Self>> {
        let exists = log.is_delta_table_location().await.map_err(|error| StoreError::delta(name, error))?;
        if !exists {
            return Ok(None);
        }
        let place = log.root_url().to_string();
        let head = Head::load(&log).await.map_err(|error| load_error(name, &place, error))?;
        if head.property(NAME_PROPERTY) != Some(name) {
            return Err(StoreError::NotOurs { table: name.to_owned(), place });
        }
        let schema = stored_columns(head.metadata()).map_err(|error| load_error(name, &place, error))?;
        Ok(Some(Self {
            store: store.clone(),
            name: name.to_owned(),
            log,
            schema: schema.into(),
            head: Mutex::new(head),
            maintenance: None,
        }))
    }

    pub(crate) async fn open_or_create(store: &Store, log: LogStoreRef, spec: &TableSpec) -> Result<Self> {
        if let Some(table) = Self::open(store, log.clone(), &spec.name).await? {
            return table.with_columns_of(spec).await;
        }
        let mut wait = FIRST_WAIT_FOR_WINNER;
        loop {
            let created = create(&log, spec).await;
            // Whoever won the race to create it, what lies there now is what counts.
            match (Self::open(store, log.clone(), &spec.name).await?, created) {
                (Some(table), _) => return table.with_columns_of(spec).await,
                // A store may refuse to create what it does not show yet.
                (None, Err(error)) if was_first(&error) && wait <= LAST_WAIT_FOR_WINNER => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                (None, Err(error)) => return Err(error),
                (None, Ok(())) => {
                    return Err(StoreError::bad_commit(&spec.name, "the table vanished while it was made"));
                }
            }
        }
    }

    pub(crate) fn schema_hash(&self) -> Option<String> {
        self.head().property(SCHEMA_PROPERTY).map(str::to_owned)
    }

    pub(crate) fn partition_columns(&self) -> Vec<String> {
        self.head().partition_columns().to_vec()
    }

    pub(crate) fn place(&self) -> String {
        self.log.root_url().to_string()
    }

    /// The table's folder.
    pub(crate) fn objects(&self) -> Arc<dyn ObjectStore> {
        self.log.object_store(None)
    }

    pub(crate) fn load_error(&self, error: DeltaTableError) -> StoreError {
        load_error(&self.name, &self.place(), error)
    }

    /// Never held across an await.
    pub(crate) fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn head_mut(&mut self) -> &mut Head {
        self.head.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Did the making of a table fail because another was first?
fn was_first(error: &StoreError) -> bool {
    use DeltaTableError as E;
    matches!(error, StoreError::Delta { source, .. } if matches!(**source, E::InvalidVersion(_) | E::VersionAlreadyExists(_)))
}

/// Storage trouble may pass; anything else that keeps a log from loading is damage.
fn load_error(table: &str, place: &str, error: DeltaTableError) -> StoreError {
    match storage_trouble(error) {
        Ok(trouble) => trouble,
        Err(other) => {
            StoreError::DamagedLog { table: table.to_owned(), place: place.to_owned(), why: other.to_string() }
        }
    }
}

/// The store's own failure, where that is what the Delta library met; else its error as it is.
pub(crate) fn storage_trouble(error: DeltaTableError) -> std::result::Result<StoreError, DeltaTableError> {
    match error {
        DeltaTableError::ObjectStore { source } if !matches!(source, ObjectStoreError::NotFound { .. }) => {
            Ok(StoreError::Storage(source))
        }
        other if is_storage_trouble(&other) => {
            Ok(StoreError::Storage(ObjectStoreError::Generic { store: "Delta log", source: Box::new(other) }))
        }
        other => Err(other),
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

async fn create(log: &LogStoreRef, spec: &TableSpec) -> Result<()> {
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
        .with_log_store(log.clone())
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
