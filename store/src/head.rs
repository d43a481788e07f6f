//! The newest version as a writer needs it: metadata and positions, without the list of files.
//!
//! Loading a Delta table lists its log and, for readers, its files; both grow with history. A writer needs neither: from
//! the version that it knows, entry `v + 1` is either there, and says what changed, or not, and then `v` is the newest. So
//! following the log costs one read an entry and one that finds nothing, however long the table has lived.
//!
//! **Stale knowledge.** Log clean-up removes entries that a checkpoint covers once they are older than the log's retention
//! (days). Somebody who slept through that would find `v + 1` gone and take `v` for the newest, and a create-only put of
//! `v + 1` would even succeed. But the newest entry is never removed, so who finds no `v + 1` after more than
//! [`TRUSTED_FOR`] looks whether `v` itself is still there, and loads the table anew if it is not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use delta_kernel::snapshot::Snapshot;
use delta_kernel::table_properties::TableProperties;
use deltalake::DeltaTableError;
use deltalake::kernel::{Action, Metadata, Protocol};
use deltalake::logstore::{LogStore, LogStoreRef};

use crate::commit::LogEntry;

/// How long the newest version is believed to be the newest without a look at its entry; far below any log retention.
pub(crate) const TRUSTED_FOR: Duration = Duration::from_secs(60);
/// Entries in a row that are read one by one before the table is loaded anew instead.
pub(crate) const FOLLOWED_MAX: usize = 200;
/// Table features that change nothing about how rows are appended.
const HARMLESS_FEATURES: [&str; 3] = ["appendOnly", "invariants", "timestampNtz"];

/// One version of a table, without its files.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) version: u64,
    metadata: Metadata,
    protocol: Protocol,
    /// Positions known at `version`; an id that is not here is looked up in `base`.
    positions: HashMap<String, Option<i64>>,
    /// The version that was loaded last: its checkpoint and log hold the positions of ids that no entry since has named.
    base: Arc<Snapshot>,
    seen: Moment,
    /// Whether files may have been removed since this was last asked to be watched.
    removes_since: bool,
}

/// Two clocks, because either may stand still: one while a machine sleeps, the other when it is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(Instant, SystemTime);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(Instant::now(), SystemTime::now())
    }

    /// Time since, by the clock that says more.
    pub(crate) fn elapsed(self) -> Duration {
        // A clock that was set back says nothing.
        self.0.elapsed().max(self.1.elapsed().unwrap_or_default())
    }
}

impl Head {
    /// The newest version, by listing the log.
    pub(crate) async fn load(log: &LogStoreRef) -> Result<Self, DeltaTableError> {
        let (engine, url) = (log.engine(None), log.root_url().clone());
        let load = move || Snapshot::builder_for(url).build(engine.as_ref());
        let base = tokio::task::spawn_blocking(load).await.map_err(|error| broken(&error))??;
        let configuration = base.table_configuration();
        Ok(Self {
            version: base.version(),
            metadata: configuration.metadata().clone(),
            protocol: configuration.protocol().clone(),
            positions: HashMap::new(),
            seen: Moment::now(),
            // What lies between is not known.
            removes_since: true,
            base,
        })
    }

    /// Takes over what the next version's entry changes.
    pub(crate) fn follow(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Metadata(metadata) => self.metadata = metadata.clone(),
                Action::Protocol(protocol) => self.protocol = protocol.clone(),
                Action::Txn(moved) => {
                    self.positions.insert(moved.app_id.clone(), Some(moved.version));
                }
                Action::Remove(_) => self.removes_since = true,
                _ => {}
            }
        }
        self.version += 1;
        self.seen = Moment::now();
    }

    /// From here on it is watched whether a version removes files.
    pub(crate) fn watch_removes(&mut self) {
        self.removes_since = false;
    }

    /// May a version since [`Head::watch_removes`] have removed files?
    pub(crate) fn has_removes_since(&self) -> bool {
        self.removes_since
    }

    /// The entry of `version` was found to be there still.
    pub(crate) fn confirmed(&mut self) {
        self.seen = Moment::now();
    }

    pub(crate) fn is_doubtful(&self) -> bool {
        self.seen.elapsed() > TRUSTED_FOR
    }

    pub(crate) fn known_position(&self, app_id: &str) -> Option<Option<i64>> {
        self.positions.get(app_id).copied()
    }

    pub(crate) fn remember_position(&mut self, app_id: &str, position: Option<i64>) {
        self.positions.insert(app_id.to_owned(), position);
    }

    /// The position of an id that no entry since `base` has named. It is there, in memory of a log segment whose files may
    /// have been cleaned up meanwhile: then the same version is loaded from what is there now.
    pub(crate) async fn looked_up(&self, log: &LogStoreRef, app_id: &str) -> Result<Option<i64>, DeltaTableError> {
        match position_in(self.base.clone(), log, app_id).await {
            Ok(position) => Ok(position),
            Err(_) if self.base.version() < self.version => {
                let (engine, url, version) = (log.engine(None), log.root_url().clone(), self.version);
                let load = move || Snapshot::builder_for(url).at_version(version).build(engine.as_ref());
                let base = tokio::task::spawn_blocking(load).await.map_err(|error| broken(&error))??;
                position_in(base, log, app_id).await
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn property(&self, key: &str) -> Option<&str> {
        self.metadata.configuration().get(key).map(String::as_str)
    }

    pub(crate) fn partition_columns(&self) -> &[String] {
        self.metadata.partition_columns()
    }

    pub(crate) fn table_properties(&self) -> &TableProperties {
        self.base.table_properties()
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Why this program may not write to the table, if it may not: others can switch on features that bind every writer.
    pub(crate) fn foreign_feature(&self) -> Option<String> {
        let protocol = serde_json::to_value(&self.protocol).unwrap_or_default();
        let version = protocol["minWriterVersion"].as_i64().unwrap_or(i64::MAX);
        if version <= 2 {
            return None;
        }
        if version != 7 {
            return Some(format!("writer version {version}"));
        }
        let features = protocol["writerFeatures"].as_array().cloned().unwrap_or_default();
        let mut names = features.iter().filter_map(|feature| feature.as_str());
        names.find(|name| !HARMLESS_FEATURES.contains(name)).map(|name| format!("table feature {name}"))
    }
}

/// Is the entry of that version in the log?
pub(crate) async fn entry_exists(log: &dyn LogStore, version: u64) -> Result<bool, object_store::Error> {
    use object_store::ObjectStoreExt;
    match log.object_store(None).head(&LogEntry::path(version)).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn position_in(base: Arc<Snapshot>, log: &LogStoreRef, app_id: &str) -> Result<Option<i64>, DeltaTableError> {
    let (engine, app_id) = (log.engine(None), app_id.to_owned());
    let look_up = move || base.get_app_id_version(&app_id, engine.as_ref());
    Ok(tokio::task::spawn_blocking(look_up).await.map_err(|error| broken(&error))??)
}

fn broken(error: &tokio::task::JoinError) -> DeltaTableError {
    DeltaTableError::Generic(error.to_string())
}
