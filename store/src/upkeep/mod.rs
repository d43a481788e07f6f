//! Upkeep off the hot path: rows that are kept long enough go, small files become large ones, files that nobody needs are
//! removed.
//!
//! Each step is planned from one version and lands in one commit, or not at all:
//!
//! | step | commit | followers see |
//! |---|---|---|
//! | retention | removes whole days, with a data change | no rows appended |
//! | merging | removes files and adds one with the same rows, without a data change | no rows appended |
//! | vacuum | none: it deletes files that nothing in the log names | every file of a version that they have not read |
//!
//! **Beside writers.** An append that lands first costs the step one more try; what the step removes, appends never touch.
//! **Beside other maintainers.** A plan names files of its version. If any later version removes files, whoever did it, the
//! plan is void ([`crate::StoreError::Superseded`]) and nothing lands: a maintainer that slept for a week does no harm, and two at
//! once only waste work. So that they rarely do, each round is claimed ([`Store::claim_round`]).
//! **When it dies.** Files written and not committed are unreferenced: the vacuum takes them.

mod merge;
mod vacuum;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use deltalake::kernel::{Remove, Snapshot};
use deltalake::protocol::DeltaOperation;
use futures::TryStreamExt;
use object_store::path::Path;
use serde::Serialize;

use crate::commit::{Change, Removes};
use crate::day::now_ms;
use crate::table::Table;
use crate::{PutNew, Result, Store, UtcDay};

/// How a table is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    /// Days that rows are kept, by the day of their partition; for ever when `None`.
    pub keep_days: Option<u32>,
    /// Files smaller than half of it are merged up to about this size, bytes.
    pub target_file_bytes: u64,
    /// Files of a day that is not over are left alone for so long.
    pub settle: Duration,
    /// Bytes read a second while merging, so that ingest keeps its disk and network; no limit when `None`.
    pub bytes_per_s: Option<u64>,
    /// Also look for files that no version needs.
    pub vacuum: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            keep_days: None,
            target_file_bytes: 64 << 20,
            settle: Duration::from_secs(3_600),
            bytes_per_s: None,
            vacuum: true,
            dry_run: false,
        }
    }
}

/// What a round of upkeep did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Upkept {
    /// Data files of the table before.
    pub files: u64,
    /// Files of days that are kept no longer.
    pub expired_files: u64,
    /// Small files that were merged.
    pub merged_files: u64,
    /// Files that they became.
    pub written_files: u64,
    /// Rows in them.
    pub merged_rows: u64,
    /// Bytes of the small files.
    pub merged_bytes: u64,
    /// Files that no version needs.
    pub vacuumed_files: u64,
    /// Their bytes.
    pub vacuumed_bytes: u64,
    /// Version that a checkpoint was written for.
    pub checkpoint: Option<i64>,
    /// Expired files of the log.
    pub log_files: u64,
}

/// One file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFile {
    pub(crate) location: Path,
    /// Of the partition columns.
    pub(crate) values: BTreeMap<String, Option<String>>,
    pub(crate) bytes: u64,
    pub(crate) modified_ms: i64,
    remove: Remove,
}

impl DataFile {
    /// The day that its rows belong to, when the table is partitioned by one.
    fn day(&self) -> Option<UtcDay> {
        let dated = self.values.iter().find(|(name, _)| name.ends_with("_date"));
        UtcDay::parse(dated?.1.as_deref()?)
    }

    fn removal(&self, data_change: bool) -> Remove {
        Remove { data_change, deletion_timestamp: Some(now_ms()), ..self.remove.clone() }
    }
}

impl Store {
    /// Claims a round of upkeep of a table for this process; false when another has it. A round that is claimed and not
    /// done is lost, and the next one makes up for it.
    ///
    /// # Errors
    /// [`crate::StoreError::Storage`].
    pub async fn claim_round(&self, table: &str, kind: &str, round: u64) -> Result<bool> {
        let folder = format!("upkeep/{table}/{kind}");
        if self.put_new(&format!("{folder}/{round:020}"), Bytes::new()).await? == PutNew::Existed {
            return Ok(false);
        }
        for path in self.list(&folder).await? {
            if path.rsplit('/').next().and_then(|name| name.parse::<u64>().ok()).is_some_and(|old| old < round) {
                self.delete(&path).await?;
            }
        }
        Ok(true)
    }
}

impl Table {
    /// One round of upkeep: checkpoint and log clean-up if due, retention, merging, vacuum. Safe beside writers, readers,
    /// followers and other maintainers.
    ///
    /// # Errors
    /// [`crate::StoreError::Superseded`] when somebody else removed files meanwhile: what had landed stays, the rest is for
    /// the next round. [`crate::StoreError::Storage`] and others as of a commit.
    pub async fn keep_up(&mut self, upkeep: &Upkeep) -> Result<Upkept> {
        let mut done = Upkept::default();
        if upkeep.dry_run {
            self.refresh().await?;
        } else {
            let maintained = self.maintain().await?;
            done.checkpoint = maintained.checkpoint;
            done.log_files = maintained.log_files_removed as u64;
        }
        // Files that are merged keep every column that they have.
        self.schema = self.stored_columns()?.into();
        // The plans below are of this version: none of them lands after a version of others that removes files.
        self.head_mut().watch_removes();
        let mut files = self.data_files().await?;
        done.files = files.len() as u64;
        self.expire(&mut files, upkeep, &mut done).await?;
        self.merge_small_files(files, upkeep, &mut done).await?;
        if upkeep.vacuum {
            self.vacuum(upkeep, &mut done).await?;
        }
        events::kept_up(&self.name, upkeep, &done);
        Ok(done)
    }

    /// The files of the known version, from the log as a stream.
    pub(crate) async fn data_files(&self) -> Result<Vec<DataFile>> {
        let version = self.head().version;
        let snapshot = Snapshot::try_new(self.log.as_ref(), Some(version)).await;
        let snapshot = snapshot.map_err(|error| self.load_error(error))?;
        let views = snapshot.file_views(self.log.as_ref(), None).map_ok(|view| DataFile {
            location: view.object_store_path(),
            values: view.partition_values_map().into_iter().collect(),
            bytes: u64::try_from(view.size()).unwrap_or(0),
            modified_ms: view.modification_time(),
            remove: view.remove_action(false),
        });
        views.try_collect().await.map_err(|error| self.load_error(error))
    }

    /// Removes the days that are kept no longer. The files themselves stay until the vacuum, for who reads them now.
    async fn expire(&mut self, files: &mut Vec<DataFile>, upkeep: &Upkeep, done: &mut Upkept) -> Result<()> {
        let Some(keep_days) = upkeep.keep_days else { return Ok(()) };
        let first_kept = UtcDay::today().minus_days(keep_days);
        let is_old = |file: &DataFile| file.day().is_some_and(|day| day < first_kept);
        let (old, kept): (Vec<_>, Vec<_>) = std::mem::take(files).into_iter().partition(is_old);
        *files = kept;
        done.expired_files = old.len() as u64;
        if old.is_empty() || upkeep.dry_run {
            return Ok(());
        }
        let removes = old.iter().map(|file| file.removal(true)).collect();
        let operation = DeltaOperation::Delete { predicate: Some(format!("day before {first_kept}")) };
        self.land_plan(Change { operation, adds: Vec::new(), removes: Some(Removes::These(removes)), metadata: None })
            .await?;
        Ok(())
    }

    /// Lands a change of a plan. Its own removes void none of the plan's other parts.
    async fn land_plan(&mut self, change: Change) -> Result<()> {
        let landed = self.land_change(change, &[]).await?;
        // An outcome that was learned late may have taken us past versions of others.
        if landed == self.version() {
            self.head_mut().watch_removes();
        }
        Ok(())
    }
}

/// Log lines and counters of upkeep, together.
mod events {
    use super::{Upkeep, Upkept};

    pub(super) fn kept_up(table: &str, upkeep: &Upkeep, done: &Upkept) {
        let changed = done.expired_files + done.merged_files + done.vacuumed_files > 0;
        if upkeep.dry_run || !changed {
            return;
        }
        let label = || table.to_owned();
        metrics::counter!("weir_store_expired_files_total", "table" => label()).increment(done.expired_files);
        metrics::counter!("weir_store_merged_files_total", "table" => label()).increment(done.merged_files);
        metrics::counter!("weir_store_merged_bytes_total", "table" => label()).increment(done.merged_bytes);
        metrics::counter!("weir_store_vacuumed_files_total", "table" => label()).increment(done.vacuumed_files);
        tracing::info!(
            table,
            files = done.files,
            expired_files = done.expired_files,
            merged_files = done.merged_files,
            written_files = done.written_files,
            merged_bytes = done.merged_bytes,
            vacuumed_files = done.vacuumed_files,
            "table kept up"
        );
    }
}
