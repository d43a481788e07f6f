//! The commit protocol: rows and positions land together, once, or not at all.
//!
//! One attempt is: load the newest version `v`; read the positions *of that version*; compare them with what the
//! writer expects; write log entry `v + 1` with a create-only put. If the put succeeds nothing lay between the
//! comparison and the commit, so the comparison held when the rows landed: a compare-and-set. The entry is put by us
//! and not by the Delta library, whose conflict check looks only at commits after the snapshot and would not recognise
//! its own entry, and which wants the list of the table's files for it.
//!
//! **Unknown outcomes.** A put may time out and land all the same, or be retried below us and then report that its
//! own object "already exists". Each commit therefore carries a nonce. Before every further attempt we look for it in
//! the entry that the last put was for: found means that we had succeeded. Trying again is safe even while an old put
//! is still under way, since every attempt carries the same files and nonce: an old put for entry `n` can land only
//! while `n` is free; if we then try `n` ourselves one of the two creates it, and if somebody else took `n` the old
//! put can never land. So at most one entry holds our nonce, and while `n` is free every failure of ours is
//! [`StoreError::OutcomeUnknown`], whatever it was: the caller reads positions before it goes on.
//!
//! **Sleepers.** A process that slept between loading version `v` and its put may wake after log clean-up has removed
//! entry `v + 1`, and create it anew, where nobody reads it. Clean-up removes what is older than days and never the newest
//! entry, so a put that took longer than a minute counts only if entry `v` is still there (see `head`).
//!
//! **Housekeeping.** A commit is durable when its log entry is. Checkpoints and log clean-up are started here and done beside (see
//! `maintain`), so that every writer's log is kept short, whoever it is.

use std::collections::HashSet;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use deltalake::kernel::transaction::CommitData;
use deltalake::kernel::{Action, Add, Metadata, Remove, Transaction};
use deltalake::logstore::get_actions;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::table::config::TablePropertiesExt;
use deltalake::{DeltaTableError, Path};
use object_store::{PutMode, PutOptions};

use crate::day::now_ms;
use crate::head::{Moment, TRUSTED_FOR, entry_exists};
use crate::table::Table;
use crate::write::Written;
use crate::{Result, StoreError};

const NONCE_KEY: &str = "weirNonce";
/// Lost races are cheap and mean that others make progress; 40 in a row mean that something is wrong.
const LOST_RACES_MAX: usize = 40;
/// Attempts whose outcome the store would not tell.
const UNKNOWN_MAX: usize = 4;
/// A put that takes longer is treated as an unknown outcome.
const PUT_TIMEOUT: Duration = Duration::from_secs(60);

/// A compare-and-set of one position, part of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// Whose position.
    pub app_id: String,
    /// Where the writer left it; `None` when it never committed.
    pub expected: Option<i64>,
    /// Where this commit moves it; never backwards.
    pub next: i64,
}

/// A commit that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The version that holds it.
    pub version: i64,
    /// Rows that it added.
    pub rows: u64,
}

impl Table {
    /// Adds rows and moves positions in one Delta commit. Without batches it only moves positions; with neither it
    /// does nothing and returns the loaded version.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when a position is not where the writer expects it (nothing landed);
    /// [`StoreError::OutcomeUnknown`] when the store would not say; [`StoreError::BadCommit`] for rows or advances
    /// that do not fit the table.
    pub async fn commit(&mut self, batches: Vec<RecordBatch>, advances: Vec<Advance>) -> Result<Committed> {
        self.check_advances(&advances)?;
        let written = self.write_files(&batches).await?;
        self.commit_files(written, advances).await
    }

    pub(crate) async fn commit_files(&mut self, written: Written, advances: Vec<Advance>) -> Result<Committed> {
        self.check_advances(&advances)?;
        let Written { adds, rows } = written;
        if rows == 0 && advances.is_empty() {
            return Ok(Committed { version: self.version(), rows });
        }
        self.check_age(&adds)?;
        let version = self.land(adds, Mode::Append, &advances).await?;
        Ok(Committed { version, rows })
    }

    /// A vacuum takes files that nothing names once they are as old as the log's entries. A writer that slept for so long
    /// between writing and committing must not name them; half of that time is left to whatever comes between here and there.
    fn check_age(&self, adds: &[Add]) -> Result<()> {
        let Some(oldest_ms) = adds.iter().map(|add| add.modification_time).min() else { return Ok(()) };
        let age = Duration::from_millis(u64::try_from(now_ms() - oldest_ms).unwrap_or(0));
        if age > self.head().table_properties().log_retention_duration() / 2 {
            return Err(StoreError::Stale { table: self.name.clone(), hours: age.as_secs() / 3_600 });
        }
        Ok(())
    }

    /// Puts these rows in the place of all that the table holds, and moves positions, in one Delta commit. For tables that
    /// are made from others, and made anew; whoever follows the table's versions sees no rows appended.
    ///
    /// # Errors
    /// As [`Table::commit`].
    pub async fn replace(&mut self, batches: Vec<RecordBatch>, advances: Vec<Advance>) -> Result<Committed> {
        self.check_advances(&advances)?;
        let Written { adds, rows } = self.write_files(&batches).await?;
        let version = self.land(adds, Mode::Replace, &advances).await?;
        Ok(Committed { version, rows })
    }

    async fn land(&mut self, adds: Vec<Add>, mode: Mode, advances: &[Advance]) -> Result<i64> {
        let partition_by = Some(self.partition_columns()).filter(|columns| !columns.is_empty());
        let (mode, removes) = match mode {
            Mode::Append => (SaveMode::Append, None),
            Mode::Replace => (SaveMode::Overwrite, Some(Removes::All)),
        };
        let operation = DeltaOperation::Write { mode, partition_by, predicate: None };
        self.land_change(Change { operation, adds, removes, metadata: None }, advances).await
    }

    /// Lands a change of the table's files together with the advances, once or not at all.
    pub(crate) async fn land_change(&mut self, change: Change, advances: &[Advance]) -> Result<i64> {
        let nonce = format!("{:032x}", rand::random::<u128>());
        let schema_before = self.schema_hash();
        let (mut lost_races, mut failures) = (0_usize, 0_usize);
        // The log entry that a put of ours may have created, or may yet create. While there is one, no error of ours may
        // read as "nothing landed".
        let mut unsettled = None;
        loop {
            let since = Moment::now();
            match self.settle(&nonce, &mut unsettled).await {
                Ok(None) => {}
                Ok(Some(version)) => {
                    events::found_own_commit(&self.name, version);
                    self.maintain_when_due(version);
                    return Ok(version);
                }
                Err(error) if failures < UNKNOWN_MAX && error.retry_helps() => {
                    failures += 1;
                    pause(failures).await;
                    continue;
                }
                Err(error) => return Err(self.outcome(unsettled, error)),
            }
            if lost_races >= LOST_RACES_MAX {
                return Err(StoreError::Contended { table: self.name.clone(), attempts: lost_races });
            }
            if matches!(change.removes, Some(Removes::These(_))) && self.head().has_removes_since() {
                return Err(self.outcome(unsettled, StoreError::Superseded { table: self.name.clone() }));
            }
            let prepared = match self.check(advances, &schema_before).await {
                Ok(()) => self.prepare(&change, advances, &nonce).await,
                Err(error) => Err(error),
            };
            let (actions, bytes) = match prepared {
                Ok(prepared) => prepared,
                Err(error) => return Err(self.outcome(unsettled, error)),
            };
            let entry = self.version() + 1;
            match self.put_entry(entry.unsigned_abs(), bytes, since).await {
                Ok(()) => {
                    self.head_mut().follow(&actions);
                    self.maintain_when_due(entry);
                    return Ok(entry);
                }
                Err(PutError::LostRace) => {
                    (unsettled, lost_races) = (Some(entry), lost_races + 1);
                    // Not for long: who waits falls behind the winner's next commits, and loses again.
                    pause(lost_races.min(3)).await;
                }
                Err(PutError::Unknown(why)) => {
                    events::unknown_outcome(&self.name, &why);
                    (unsettled, failures) = (Some(entry), failures + 1);
                    if failures > UNKNOWN_MAX {
                        return Err(StoreError::OutcomeUnknown { table: self.name.clone(), why });
                    }
                    pause(failures).await;
                }
                Err(PutError::Slept) => {
                    let why = "this process slept, and the log has been cleaned up past the entry meanwhile".to_owned();
                    return Err(StoreError::OutcomeUnknown { table: self.name.clone(), why });
                }
            }
        }
    }

    /// Loads the newest version and looks who created the unsettled entry. `Some` is ours; somebody else's settles that
    /// no put of ours has landed or can; while the entry is free the question stays open.
    async fn settle(&mut self, nonce: &str, unsettled: &mut Option<i64>) -> Result<Option<i64>> {
        self.refresh().await?;
        let Some(entry) = unsettled.filter(|entry| *entry <= self.version()) else { return Ok(None) };
        let gone = || StoreError::VersionGone { table: self.name.clone(), version: entry };
        let commit = self.read_commit(entry.unsigned_abs()).await?.ok_or_else(gone)?;
        if commit.nonce() == Some(nonce) {
            return Ok(Some(entry));
        }
        *unsettled = None;
        Ok(None)
    }

    /// May this commit be put after the loaded version?
    async fn check(&self, advances: &[Advance], schema_before: &Option<String>) -> Result<()> {
        if self.schema_hash() != *schema_before && !self.still_fits()? {
            return Err(StoreError::bad_commit(&self.name, "the table's columns changed under this writer"));
        }
        if let Some(feature) = self.head().foreign_feature() {
            let why = format!("another program has switched on {feature}, which weir does not write");
            return Err(StoreError::bad_commit(&self.name, why));
        }
        self.check_positions(advances).await
    }

    /// An error that ends a commit: what it was, unless a put of ours may have landed or may land still.
    fn outcome(&self, unsettled: Option<i64>, error: StoreError) -> StoreError {
        match unsettled {
            Some(_) => StoreError::OutcomeUnknown { table: self.name.clone(), why: error.to_string() },
            None => error,
        }
    }

    /// The entry that would follow the known version: its actions and its bytes.
    async fn prepare(&self, change: &Change, advances: &[Advance], nonce: &str) -> Result<(Vec<Action>, Bytes)> {
        let mut actions = match &change.removes {
            None => Vec::new(),
            Some(Removes::All) => self.remove_all().await?,
            Some(Removes::These(removes)) => removes.iter().cloned().map(Action::Remove).collect(),
        };
        actions.extend(change.metadata.iter().cloned().map(Action::Metadata));
        actions.extend(change.adds.iter().cloned().map(Action::Add));
        let transactions = advances.iter().map(|advance| Transaction::new(&advance.app_id, advance.next)).collect();
        let marks = [(NONCE_KEY.to_owned(), nonce.into())].into();
        let data = CommitData::new(actions, change.operation.clone(), marks, transactions);
        let bytes = data.get_bytes().map_err(|error| StoreError::delta(&self.name, error.into()))?;
        Ok((data.actions, bytes))
    }

    async fn remove_all(&self) -> Result<Vec<Action>> {
        let delta = self.delta().await?;
        let snapshot = delta.snapshot().map_err(|error| self.load_error(error))?;
        Ok(snapshot.log_data().iter().map(|file| Action::Remove(file.remove_action(true))).collect())
    }

    /// Puts the entry, which must not be there. `since` is when the version before it was known to be the newest.
    async fn put_entry(&self, version: u64, bytes: Bytes, since: Moment) -> Result<(), PutError> {
        let objects = self.objects();
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let path = LogEntry::path(version);
        let put = objects.put_opts(&path, bytes.into(), options);
        match tokio::time::timeout(PUT_TIMEOUT, put).await {
            Ok(Ok(_)) if since.elapsed() <= TRUSTED_FOR => Ok(()),
            Ok(Ok(_)) => match entry_exists(self.log.as_ref(), version - 1).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(PutError::Slept),
                Err(error) => Err(PutError::Unknown(error.to_string())),
            },
            Ok(Err(object_store::Error::AlreadyExists { .. })) => Err(PutError::LostRace),
            Ok(Err(error)) => Err(PutError::Unknown(error.to_string())),
            Err(_) => Err(PutError::Unknown(format!("no answer in {} s", PUT_TIMEOUT.as_secs()))),
        }
    }

    fn check_advances(&self, advances: &[Advance]) -> Result<()> {
        let mut seen = HashSet::new();
        for Advance { app_id, expected, next } in advances {
            if !seen.insert(app_id) {
                return Err(StoreError::bad_commit(&self.name, format!("position {app_id} is moved twice")));
            }
            if expected.is_some_and(|expected| *next < expected) {
                return Err(StoreError::bad_commit(&self.name, format!("position {app_id} would move backwards")));
            }
        }
        Ok(())
    }

    async fn check_positions(&self, advances: &[Advance]) -> Result<()> {
        for Advance { app_id, expected, .. } in advances {
            let found = self.position(app_id).await?;
            if found != *expected {
                events::fenced(&self.name, app_id);
                return Err(StoreError::Fenced {
                    table: self.name.clone(),
                    app_id: app_id.clone(),
                    expected: *expected,
                    found,
                });
            }
        }
        Ok(())
    }

    /// The log entry of a version, unless the log no longer holds it.
    pub(crate) async fn read_commit(&self, version: u64) -> Result<Option<LogEntry>> {
        let bytes = match self.log.read_commit_entry(version).await {
            Ok(bytes) => bytes,
            Err(DeltaTableError::ObjectStore { source: deltalake::ObjectStoreError::NotFound { .. } }) => None,
            Err(error) => return Err(self.load_error(error)),
        };
        bytes.map(|bytes| LogEntry::parse(version, &bytes).map_err(|error| self.load_error(error))).transpose()
    }
}

/// What a commit does to the table's files.
pub(crate) struct Change {
    pub(crate) operation: DeltaOperation,
    pub(crate) adds: Vec<Add>,
    pub(crate) removes: Option<Removes>,
    /// The table's columns and settings, if they change.
    pub(crate) metadata: Option<Metadata>,
}

/// Which files leave the table.
pub(crate) enum Removes {
    /// All that the version before holds, whichever that turns out to be.
    All,
    /// These, which the caller has found in a version since which removes are watched.
    These(Vec<Remove>),
}

/// What becomes of the rows that the table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Append,
    Replace,
}

enum PutError {
    /// Entry `v + 1` exists: somebody else's, or our own.
    LostRace,
    /// It may have landed.
    Unknown(String),
    /// It landed where the log has been cleaned up: nobody reads it there.
    Slept,
}

/// Grows with each failure and differs between writers, so that they do not meet again.
async fn pause(failures: usize) {
    let most_ms = 4_u64 << failures.min(7);
    tokio::time::sleep(Duration::from_millis(1 + rand::random::<u64>() % most_ms)).await;
}

/// One version of the log.
pub(crate) struct LogEntry(Vec<Action>);

impl LogEntry {
    fn parse(version: u64, bytes: &Bytes) -> Result<Self, DeltaTableError> {
        get_actions(version, bytes).map(Self)
    }

    /// Where the entry of a version lies, in the table's folder.
    pub(crate) fn path(version: u64) -> Path {
        Path::from(format!("_delta_log/{version:020}.json"))
    }

    pub(crate) fn actions(&self) -> &[Action] {
        &self.0
    }

    /// When it was committed, by its writer's clock, milliseconds since the Unix epoch.
    pub(crate) fn committed_ms(&self) -> Option<i64> {
        self.0.iter().find_map(|action| match action {
            Action::CommitInfo(info) => info.timestamp,
            _ => None,
        })
    }

    fn nonce(&self) -> Option<&str> {
        self.0.iter().find_map(|action| match action {
            Action::CommitInfo(info) => info.info.get(NONCE_KEY)?.as_str(),
            _ => None,
        })
    }
}

/// Log lines and counters of this module, together.
mod events {
    pub(super) fn fenced(table: &str, app_id: &str) {
        metrics::counter!("weir_store_fenced_total", "table" => table.to_owned()).increment(1);
        tracing::warn!(table, app_id, "commit fenced: another writer has moved the position");
    }

    pub(super) fn unknown_outcome(table: &str, why: &str) {
        metrics::counter!("weir_store_unknown_outcomes_total", "table" => table.to_owned()).increment(1);
        tracing::warn!(table, why, "commit outcome unknown, looking for our own entry");
    }

    pub(super) fn found_own_commit(table: &str, version: i64) {
        metrics::counter!("weir_store_outcomes_resolved_total", "table" => table.to_owned()).increment(1);
        tracing::info!(table, version, "an earlier attempt had landed");
    }
}
