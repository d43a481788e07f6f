//! Raw versions into partial rows: every derived table consumes every raw version exactly once.
//!
//! A derived table's position is the last raw version that it consumed, kept as a transaction version in the table
//! itself and moved in the same commit as the rows. There is no other state: whatever dies, the next process reads the
//! positions and goes on. Tables may stand at different versions after a crash; they are brought level first, so that
//! each sees the same rows. A table without a position starts at the oldest raw version that the log still holds.

mod rebuild;

use std::cmp::Reverse;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use weir_schemas::Request;
use weir_store::{Advance, Follower, Store, StoreError, Table};

pub use rebuild::{Rebuilt, rebuild};

use crate::FeaturesError;
use crate::dedupe::{self, Admitted, DedupeIndex};
use crate::oldest::oldest_version;
use crate::partials::{PARTIALS, Partial, columns_read, conformed, raw_columns, stream_session};

/// Lost races against another process before giving up.
const LOST_RACES_MAX: u32 = 5;

/// How raw versions become partial rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SummariserConfig {
    /// A request id whose next delivery is committed within this much time after the last one is counted once,
    /// milliseconds. Commits are timed by their writer's clock, as the log of the raw table has it.
    pub dedupe_horizon_ms: i64,
    /// Request ids remembered at most (about 100 bytes each); the oldest versions' ids go first.
    pub dedupe_keys_max: usize,
    /// A row that arrived this much before the newest one of earlier versions is counted as late, milliseconds.
    pub late_after_ms: i64,
    /// Raw rows after which partial rows are committed, at the next end of a version.
    pub chunk_rows: u64,
    /// Bytes of them in memory after which partial rows are committed, at the next end of a version.
    pub chunk_bytes: usize,
}

impl Default for SummariserConfig {
    fn default() -> Self {
        Self {
            dedupe_horizon_ms: 3_600_000,
            dedupe_keys_max: 2_000_000,
            late_after_ms: 60_000,
            chunk_rows: 200_000,
            chunk_bytes: 128 << 20,
        }
    }
}

/// What a call of [`catch_up`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CaughtUp {
    /// Raw versions consumed.
    pub versions: u64,
    /// Raw rows read from them.
    pub rows_in: u64,
    /// Rows added to the derived tables, all together.
    pub partial_rows: u64,
    /// Rows that came late. They are counted in the windows that they belong to.
    pub late_rows: u64,
    /// Redeliveries of a request that is counted, and revisions that a higher one of the same version replaced.
    pub repeated_rows: u64,
    /// Corrections of a request that an earlier version counted: the view `requests` has them, the partial rows do not.
    pub corrected_rows: u64,
    /// Rows of calls that were still running.
    pub unfinished_rows: u64,
    /// Raw versions that a table without a position could not start with: the log no longer holds them.
    pub versions_gone: u64,
}

/// Consumes every raw version that is not yet summarised, with the default configuration.
///
/// A process that calls this again and again should keep a [`Summariser`], which remembers the recent request ids.
///
/// # Errors
/// [`FeaturesError::Store`] when a table cannot be read or written; nothing is half-written then.
pub async fn catch_up(store: &Store) -> Result<CaughtUp, FeaturesError> {
    Summariser::new(store.clone(), SummariserConfig::default()).catch_up().await
}

/// Keeps the derived tables of one store level with its raw tables.
#[derive(Debug)]
pub struct Summariser {
    store: Store,
    config: SummariserConfig,
    partials: Vec<Partial>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    raw: Table,
    /// The raw columns that partial rows are made of.
    columns: SchemaRef,
    /// The raw columns that the index is made of.
    id_columns: SchemaRef,
    derived: Vec<Derived>,
    /// The index after the last raw version that all derived tables consumed.
    index: Option<(i64, DedupeIndex)>,
}

#[derive(Debug)]
struct Derived {
    partial: Partial,
    table: Table,
    position: Position,
    /// The first raw version for this table: 0, or, of a table that had no position, the oldest one in the log.
    start: i64,
}

/// Where a derived table stands; each is a transaction version of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    consumed: Option<i64>,
    dedupe_from: Option<i64>,
    dedupe_clock: Option<i64>,
}

impl Summariser {
    /// A summariser for the tables of `store`.
    #[must_use]
    pub fn new(store: Store, config: SummariserConfig) -> Self {
        Self { store, config, partials: PARTIALS.to_vec(), open: None }
    }

    /// Consumes every raw version that is not yet summarised.
    ///
    /// # Errors
    /// [`FeaturesError::Store`] when a table cannot be read or written, [`FeaturesError::Contended`] when another
    /// process does the same work. Nothing is half-written; the next call goes on from the tables.
    pub async fn catch_up(&mut self) -> Result<CaughtUp, FeaturesError> {
        let mut done = CaughtUp::default();
        for _ in 0..LOST_RACES_MAX {
            let outcome = self.advance(&mut done).await;
            if outcome.is_err() {
                // What is in memory may be ahead of the tables: start over from them.
                self.open = None;
            }
            match outcome {
                Err(FeaturesError::Store(StoreError::Fenced { .. })) => {}
                outcome => return outcome.map(|()| done),
            }
        }
        Err(FeaturesError::Contended { attempts: LOST_RACES_MAX })
    }

    async fn advance(&mut self, done: &mut CaughtUp) -> Result<(), FeaturesError> {
        if !self.load(done).await? {
            return Ok(());
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        while let Some(range) = open.next_range() {
            open.align(range.0 - 1, &self.config).await?;
            open.consume(range, &self.config, done).await?;
        }
        Ok(())
    }

    /// Opens the tables, or loads their newest versions. False when there is no raw table yet.
    async fn load(&mut self, done: &mut CaughtUp) -> Result<bool, FeaturesError> {
        if let Some(open) = &mut self.open {
            open.raw.refresh().await?;
            return Ok(true);
        }
        let Some(mut raw) = self.store.existing(Request::contract().name).await? else { return Ok(false) };
        let mut derived = Vec::new();
        for partial in &self.partials {
            let mut table = self.store.table(&partial.spec().await?).await?;
            table.refresh().await?;
            let [consumed, from, _] = app_ids(partial);
            let follower = Follower { table: table.name().to_owned(), app_ids: vec![consumed, from] };
            self.store.follow(&raw, &follower).await?;
            derived.push(Derived { partial: *partial, position: position_of(&table, partial).await?, table, start: 0 });
        }
        for derived in &derived {
            not_ahead(&mut raw, derived.table.name(), derived.position).await?;
        }
        if derived.iter().any(|derived| derived.position.consumed.is_none()) {
            let oldest = oldest_version(&raw).await?;
            derived.iter_mut().filter(|new| new.position.consumed.is_none()).for_each(|new| new.start = oldest);
            done.versions_gone = oldest.unsigned_abs();
            events::versions_gone(oldest);
        }
        let columns = columns_read(&self.partials).await?;
        let columns = raw_columns(|name| columns.contains(name) || dedupe::COLUMNS.contains(&name));
        let id_columns = raw_columns(|name| dedupe::COLUMNS.contains(&name));
        self.open = Some(Open { raw, columns, id_columns, derived, index: None });
        Ok(true)
    }
}

impl Open {
    /// The next raw versions to consume, first and last: up to the newest, or to where another derived table stands.
    fn next_range(&self) -> Option<(i64, i64)> {
        let consumed = || self.derived.iter().map(Derived::last);
        let first = consumed().min()? + 1;
        let level = consumed().filter(|last| *last >= first).min().unwrap_or(i64::MAX);
        let last = level.min(self.raw.version());
        (first <= last).then_some((first, last))
    }

    /// Makes the index that of raw version `consumed`, re-reading raw rows if it is not in memory.
    async fn align(&mut self, consumed: i64, config: &SummariserConfig) -> Result<(), FeaturesError> {
        if self.index.as_ref().is_some_and(|(at, _)| *at == consumed) {
            return Ok(());
        }
        // A table that started late has seen less than the others: where it stands beside one of them, theirs counts.
        let history = |table: &&Derived| (table.start, Reverse(table.position.dedupe_clock));
        let behind = self.derived.iter().filter(|derived| derived.last() == consumed).min_by_key(history);
        let (position, start) = behind.map_or_else(Default::default, |behind| (behind.position, behind.start));
        let (from, clock) = (position.dedupe_from.unwrap_or(start), position.dedupe_clock.unwrap_or(0));
        let mut index = DedupeIndex::new(config.dedupe_horizon_ms, config.dedupe_keys_max, from, clock);
        for version in from..=consumed {
            match appended(&self.raw, version, &self.id_columns).await {
                Ok((committed_ms, batches)) => {
                    drop(index.admit(version, committed_ms, &batches, config.late_after_ms)?);
                }
                // The log keeps two days; only a replay of old events can still want ids from before.
                Err(FeaturesError::Store(StoreError::VersionGone { .. })) => events::ids_gone(version),
                Err(error) => return Err(error),
            }
        }
        self.index = Some((consumed, index));
        Ok(())
    }

    /// Aggregates raw versions from the first of `range` on, until its last or until enough rows are read, and commits.
    async fn consume(
        &mut self,
        (first, limit): (i64, i64),
        config: &SummariserConfig,
        done: &mut CaughtUp,
    ) -> Result<(), FeaturesError> {
        let (_, mut index) = self.index.take().expect("align left the index of the version before");
        let mut chunk = CaughtUp::default();
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let mut last = first - 1;
        while last < limit && chunk.rows_in < config.chunk_rows && bytes < config.chunk_bytes {
            last += 1;
            let (committed_ms, batches) = appended(&self.raw, last, &self.columns).await?;
            let admitted = index.admit(last, committed_ms, &batches, config.late_after_ms)?;
            chunk.add(&batches, &admitted);
            bytes += admitted.batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
            rows.extend(admitted.batches);
        }
        let ctx = stream_session(self.columns.clone(), rows).await?;
        let next = Position::at(last, &index);
        let mut starts = Vec::new();
        for derived in self.derived.iter_mut().filter(|derived| derived.last() < first) {
            let partial_rows = derived.partial.rows(&ctx, &derived.table.schema()).await?;
            let position = derived.position.moved_to(next);
            let advances = derived.position.advances(&derived.partial, position);
            let committed = derived.table.commit(partial_rows, advances).await?;
            derived.position = position;
            starts.push(derived.start);
            chunk.partial_rows += committed.rows;
        }
        // Late starters that have come level with another table go on with that table's index.
        let met = |other: &Derived| other.last() == last && starts.iter().all(|start| *start > other.start);
        self.index = (!self.derived.iter().any(met)).then_some((last, index));
        events::consumed(first, last, &chunk);
        done.merge(&chunk);
        Ok(())
    }
}

impl Derived {
    /// The last raw version consumed, or the one before the first to consume.
    fn last(&self) -> i64 {
        self.position.consumed.unwrap_or(self.start - 1)
    }
}

impl Position {
    fn at(consumed: i64, index: &DedupeIndex) -> Self {
        let (from, clock) = index.resume_point();
        Self { consumed: Some(consumed), dedupe_from: Some(from), dedupe_clock: Some(clock) }
    }

    /// A late starter remembers ids from later on than the table whose index it shares; it never goes back.
    fn moved_to(&self, next: Self) -> Self {
        let back = next.dedupe_from < self.dedupe_from || next.dedupe_clock < self.dedupe_clock;
        if back { Self { consumed: next.consumed, ..*self } } else { next }
    }

    fn advances(&self, partial: &Partial, next: Self) -> Vec<Advance> {
        let [consumed, from, clock] = app_ids(partial);
        [
            (consumed, self.consumed, next.consumed),
            (from, self.dedupe_from, next.dedupe_from),
            (clock, self.dedupe_clock, next.dedupe_clock),
        ]
        .into_iter()
        .filter_map(|(app_id, expected, next)| Some(Advance { app_id, expected, next: next? }))
        .collect()
    }
}

fn app_ids(partial: &Partial) -> [String; 3] {
    let consumed = format!("features/{}/{}", partial.name, Request::contract().name);
    [consumed.clone(), format!("{consumed}/dedupe-from"), format!("{consumed}/dedupe-committed-ms")]
}

async fn position_of(table: &Table, partial: &Partial) -> Result<Position, FeaturesError> {
    let [consumed, from, clock] = app_ids(partial);
    Ok(Position {
        consumed: table.position(&consumed).await?,
        dedupe_from: table.position(&from).await?,
        dedupe_clock: table.position(&clock).await?,
    })
}

/// A raw table that was put back from an older copy writes versions again that the summary tables believe to have seen, and
/// would pass over.
async fn not_ahead(raw: &mut Table, derived: &str, position: Position) -> Result<(), FeaturesError> {
    let Some(consumed) = position.consumed.filter(|consumed| *consumed > raw.version()) else { return Ok(()) };
    // Another process may have read it later than this one.
    raw.refresh().await?;
    if consumed <= raw.version() {
        return Ok(());
    }
    let (table, version) = (raw.name().to_owned(), raw.version());
    Err(FeaturesError::RawWentBack { table, version, derived: derived.to_owned(), consumed })
}

/// When a version was committed, and the rows that it appended, with the given raw columns.
async fn appended(raw: &Table, version: i64, columns: &SchemaRef) -> Result<(i64, Vec<RecordBatch>), FeaturesError> {
    let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
    let batches = raw.appended_columns(version, &names).await?;
    let batches = batches.iter().map(|batch| conformed(batch, columns, raw.name())).collect::<Result<_, _>>()?;
    Ok((raw.committed_ms(version).await?, batches))
}

impl CaughtUp {
    fn add(&mut self, batches: &[RecordBatch], admitted: &Admitted) {
        self.versions += 1;
        self.rows_in += batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        self.late_rows += admitted.late;
        self.repeated_rows += admitted.repeated;
        self.corrected_rows += admitted.corrected;
        self.unfinished_rows += admitted.unfinished;
    }

    fn merge(&mut self, other: &Self) {
        self.versions += other.versions;
        self.rows_in += other.rows_in;
        self.partial_rows += other.partial_rows;
        self.late_rows += other.late_rows;
        self.repeated_rows += other.repeated_rows;
        self.corrected_rows += other.corrected_rows;
        self.unfinished_rows += other.unfinished_rows;
    }
}

/// Log lines and counters, together.
mod events {
    use super::CaughtUp;

    pub(super) fn consumed(first: i64, last: i64, chunk: &CaughtUp) {
        metrics::counter!("weir_features_raw_rows_total").increment(chunk.rows_in);
        metrics::counter!("weir_features_partial_rows_total").increment(chunk.partial_rows);
        metrics::counter!("weir_features_late_rows_total").increment(chunk.late_rows);
        metrics::counter!("weir_features_repeated_rows_total").increment(chunk.repeated_rows);
        metrics::counter!("weir_features_corrected_rows_total").increment(chunk.corrected_rows);
        metrics::gauge!("weir_features_raw_version").set(last as f64);
        tracing::debug!(
            first_version = first,
            last_version = last,
            rows_in = chunk.rows_in,
            partial_rows = chunk.partial_rows,
            late_rows = chunk.late_rows,
            repeated_rows = chunk.repeated_rows,
            corrected_rows = chunk.corrected_rows,
            "raw versions summarised"
        );
    }

    pub(super) fn versions_gone(oldest: i64) {
        if oldest > 0 {
            metrics::counter!("weir_features_versions_gone_total").increment(oldest.unsigned_abs());
            tracing::warn!(versions_gone = oldest, "a new derived table starts after raw versions that the log lost");
        }
    }

    pub(super) fn ids_gone(version: i64) {
        metrics::counter!("weir_features_dedupe_versions_gone_total").increment(1);
        tracing::warn!(version, "raw version is no longer in the log: its request ids cannot be recognised again");
    }
}

#[cfg(test)]
mod tests;
