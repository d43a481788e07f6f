//! Housekeeping off the hot path: checkpoints, so that loading stays short, and log clean-up behind them.
//!
//! Whoever commits a version that is a multiple of [`CHECKPOINT_EVERY`] starts it, in a task of its own: there is no
//! writer that has to remember. If the process dies first, the next multiple makes up for it.
//!
//! **Clean-up waits for followers.** Derived tables are made by following the versions of another one, and a version
//! that has gone from the log cannot be followed. So each follower leaves a note ([`Store::follow`]) that names where
//! its position is, and no version at or above the lowest of these positions is removed, up to a limit: a follower that
//! has stood still for [`WAIT_FOR_FOLLOWERS`] was given up, and the log must not grow for ever.

use std::time::Duration;

use delta_kernel::snapshot::Snapshot;
use deltalake::DeltaTableError;
use deltalake::checkpoints::cleanup_expired_logs_for;
use deltalake::table::config::TablePropertiesExt;
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};

use crate::day::now_ms;
use crate::table::Table;
use crate::{PutNew, Result, Store, StoreError};

/// Versions between checkpoints.
const CHECKPOINT_EVERY: i64 = 100;
/// Log entries older than this are removed even if a follower has not read them.
const WAIT_FOR_FOLLOWERS: Duration = Duration::from_secs(30 * 86_400);

/// What one round of maintenance did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maintained {
    /// The version that a checkpoint was written for.
    pub checkpoint: Option<i64>,
    /// Expired log files that were removed.
    pub log_files_removed: usize,
}

/// Who follows a table's versions: the table that holds its positions, and their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follower {
    /// The table that it writes.
    pub table: String,
    /// Its positions there; each is a version of the followed table that it may still want to read, or has just read.
    pub app_ids: Vec<String>,
}

/// What is noted of a follower.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    #[serde(flatten)]
    follower: Follower,
    /// Id of the table that it follows; older notes lack it.
    #[serde(default)]
    of: Option<String>,
}

impl Store {
    /// Notes that somebody follows the versions of `table`, so that its log is kept for them. Once is enough.
    ///
    /// # Errors
    /// [`StoreError::OtherTable`] when the positions are about a table that was there before this one, and would skip this
    /// one's first versions; [`StoreError::Storage`].
    pub async fn follow(&self, table: &Table, follower: &Follower) -> Result<()> {
        let name = follower.app_ids.first().unwrap_or(&follower.table);
        let note = Note { follower: follower.clone(), of: Some(table.id()) };
        let place = format!("{}/{name}.json", notes(table.name()));
        let bytes = serde_json::to_vec_pretty(&note).expect("strings have a JSON form");
        if self.put_new(&place, bytes.into()).await? == PutNew::Created {
            return Ok(());
        }
        let noted = self.get(&place).await?.and_then(|note| serde_json::from_slice::<Note>(&note).ok());
        match noted.and_then(|note| note.of) {
            Some(of) if of != table.id() => Err(StoreError::OtherTable {
                table: table.name().to_owned(),
                follower: follower.table.clone(),
                note: self.url().join(&place).map_or(place, |url| url.to_string()),
            }),
            _ => Ok(()),
        }
    }

    /// The lowest version of `table` that a follower stands at; `None` when nobody follows it. A follower without a
    /// position starts at whatever the log holds, and keeps nothing back.
    async fn lowest_follower(&self, table: &str) -> Result<Option<i64>> {
        let mut lowest: Option<i64> = None;
        for path in self.list(&notes(table)).await? {
            let Some(note) = self.get(&path).await? else { continue };
            let Ok(note) = serde_json::from_slice::<Note>(&note) else { continue };
            let follower = note.follower;
            let Some(positions) = self.existing(&follower.table).await? else { continue };
            for app_id in &follower.app_ids {
                let position = positions.position(app_id).await?;
                lowest = [lowest, position].into_iter().flatten().min();
            }
        }
        Ok(lowest)
    }
}

fn notes(table: &str) -> String {
    format!("followers/{table}")
}

impl Table {
    /// Writes a checkpoint when the newest version has passed a multiple of 100 since the last one, then removes log
    /// files that are older than the log's retention, covered by a checkpoint, and read by every follower. Commits start
    /// this by themselves. Safe beside writers and beside itself.
    ///
    /// # Errors
    /// [`StoreError::Delta`] or [`StoreError::Storage`]; no rows are at risk and the next round tries again.
    pub async fn maintain(&mut self) -> Result<Maintained> {
        self.refresh().await?;
        let version = self.version();
        if version / CHECKPOINT_EVERY <= self.last_checkpoint().await? / CHECKPOINT_EVERY {
            return Ok(Maintained::default());
        }
        self.write_checkpoint().await.map_err(|error| StoreError::delta(&self.name, error))?;
        metrics::counter!("weir_store_checkpoints_total", "table" => self.name.clone()).increment(1);
        let log_files_removed = self.clean_up().await?;
        tracing::info!(table = self.name, version, log_files_removed, "checkpoint written");
        Ok(Maintained { checkpoint: Some(version), log_files_removed })
    }

    /// Waits for the maintenance that commits through this value have started.
    pub async fn maintained(&mut self) {
        if let Some(task) = self.maintenance.take() {
            // It logs its own failure, and one that was cut short is made up for by a later one.
            task.await.ok();
        }
    }

    pub(crate) fn maintain_when_due(&mut self, version: i64) {
        if version % CHECKPOINT_EVERY != 0 || self.maintenance.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (store, name) = (self.store.clone(), self.name.clone());
        self.maintenance = Some(tokio::spawn(async move {
            let maintained = async {
                if let Some(mut table) = store.existing(&name).await? {
                    table.maintain().await?;
                }
                Ok::<(), StoreError>(())
            };
            if let Err(error) = maintained.await {
                metrics::counter!("weir_store_maintenance_failures_total", "table" => name.clone()).increment(1);
                tracing::warn!(table = name, %error, "maintenance failed; the next round tries again");
            }
        }));
    }

    /// Written from the log as a stream of batches: the list of files is never held as a whole.
    async fn write_checkpoint(&self) -> Result<(), DeltaTableError> {
        let (engine, url, version) = (self.log.engine(None), self.log.root_url().clone(), self.head().version);
        let write = move || {
            let snapshot = Snapshot::builder_for(url).at_version(version).build(engine.as_ref())?;
            snapshot.checkpoint(engine.as_ref(), None).map(|_| ())
        };
        let written = tokio::task::spawn_blocking(write).await;
        Ok(written.map_err(|error| DeltaTableError::Generic(error.to_string()))??)
    }

    async fn clean_up(&self) -> Result<usize> {
        let failed = |error| StoreError::delta(&self.name, error);
        let log = &self.log;
        let newest = self.head().version;
        let before = |age: Duration| now_ms() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let followed = self.store.lowest_follower(&self.name).await?;
        let read =
            followed.and_then(|version| u64::try_from(version).ok()).map_or(newest, |version| version.min(newest));
        let retention = self.head().table_properties().log_retention_duration();
        let mut removed =
            cleanup_expired_logs_for(read, log.as_ref(), before(retention), None).await.map_err(failed)?;
        if read < newest {
            let given_up = before(WAIT_FOR_FOLLOWERS.max(retention));
            removed += cleanup_expired_logs_for(newest, log.as_ref(), given_up, None).await.map_err(failed)?;
        }
        Ok(removed)
    }

    /// The version named by `_last_checkpoint`; 0, the table's creation, when there is none or it cannot be read (a
    /// hint that is wrong costs one checkpoint, no more).
    async fn last_checkpoint(&self) -> Result<i64> {
        let path = self.log.log_path().clone().join("_last_checkpoint");
        match self.objects().get(&path).await {
            Ok(found) => {
                let hint: Option<serde_json::Value> = serde_json::from_slice(&found.bytes().await?).ok();
                Ok(hint.and_then(|hint| hint.get("version")?.as_i64()).unwrap_or(0))
            }
            Err(deltalake::ObjectStoreError::NotFound { .. }) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}
