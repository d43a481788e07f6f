//! `dead_letter_replays`: what became of which letter in which epoch, and which epoch is the newest.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use weir_store::{Advance, Committed, Store, StoreError, Table};

use super::epoch::Verdict;
use super::letters::{LetterId, now_ms};
use crate::tables::{DEAD_LETTER_REPLAYS, dead_letter_replays_spec};
use crate::{IngestError, Result};

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its rows are stored, or will be when the epoch is finished.
    Stored,
    /// Ingest had stored the message itself.
    AlreadyStored,
    /// Turned down again; it stays pending.
    Rejected,
}

impl Outcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::AlreadyStored => "already_stored",
            Self::Rejected => "rejected",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "rejected" => Self::Rejected,
            "already_stored" => Self::AlreadyStored,
            _ => Self::Stored,
        }
    }

    /// Is the letter dealt with?
    pub(super) fn is_final(self) -> bool {
        self != Self::Rejected
    }
}

/// The last that is known of a letter.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) outcome: Outcome,
    pub(super) epoch: i64,
    pub(super) rows: i64,
    pub(super) reason: Option<String>,
    pub(super) replayed_ms: i64,
}

/// The newest claim: which raw tables get rows, and where these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) epoch: i64,
    pub(super) record: String,
    pub(super) tables: BTreeSet<String>,
}

/// The replays of one job.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Absent when nothing was ever replayed, and this run writes nothing.
    table: Option<Table>,
    pub(super) job: String,
    /// The newest epoch as of the last refresh: what a claim expects.
    newest: Option<i64>,
}

impl Ledger {
    pub(super) async fn open(store: &Store, job: &str) -> Result<Self> {
        let table = store.table(&dead_letter_replays_spec()).await?;
        Self::of(Some(table), job).await
    }

    /// As it is, made by nobody if it is not there.
    pub(super) async fn existing(store: &Store, job: &str) -> Result<Self> {
        Self::of(store.existing(DEAD_LETTER_REPLAYS).await?, job).await
    }

    async fn of(table: Option<Table>, job: &str) -> Result<Self> {
        let mut ledger = Self { table, job: job.to_owned(), newest: None };
        ledger.refresh().await?;
        Ok(ledger)
    }

    /// Loads the newest version. Everything else here is as of that version, until the next one.
    pub(super) async fn refresh(&mut self) -> Result<()> {
        let app_id = self.app_id();
        if let Some(table) = &mut self.table {
            table.refresh().await?;
            self.newest = table.position(&app_id).await?;
        }
        Ok(())
    }

    /// The name of the position that counts epochs.
    pub(super) fn app_id(&self) -> String {
        super::app_id(&self.job)
    }

    /// The epoch that a claim would be.
    pub(super) fn next_epoch(&self) -> i64 {
        self.newest.map_or(1, |newest| newest + 1)
    }

    /// The newest claim, if there was one.
    pub(super) async fn newest(&self) -> Result<Option<Claimed>> {
        let Some(epoch) = self.newest else { return Ok(None) };
        let mut claimed = Claimed { epoch, record: String::new(), tables: BTreeSet::new() };
        for batch in self.batches(&["job", "epoch", "tables", "record"]).await? {
            let rows = Rows::of(&batch, &self.job)?;
            let (tables, records) = (rows.text("tables")?, rows.text("record")?);
            for row in rows.ours().filter(|row| rows.epochs.value(*row) == epoch) {
                records.value(row).clone_into(&mut claimed.record);
                let names = tables.value(row).split(',').filter(|name| !name.is_empty());
                claimed.tables.extend(names.map(str::to_owned));
            }
        }
        Ok(Some(claimed))
    }

    /// Was this record claimed?
    pub(super) async fn has_claimed(&self, record: &str) -> Result<bool> {
        for batch in self.batches(&["job", "epoch", "record"]).await? {
            let rows = Rows::of(&batch, &self.job)?;
            let records = rows.text("record")?;
            if rows.ours().any(|row| records.value(row) == record) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What became of each letter: how it was dealt with, or the last time that it was turned down.
    pub(super) async fn outcomes(&self) -> Result<HashMap<LetterId, Past>> {
        let mut outcomes: HashMap<LetterId, Past> = HashMap::new();
        for batch in self.batches(&ALL).await? {
            let rows = Rows::of(&batch, &self.job)?;
            let (topics, names, reasons) = (rows.text("source_topic")?, rows.text("outcome")?, rows.text("reason")?);
            let partitions = rows.column("source_partition")?.as_primitive::<Int32Type>();
            let offsets = rows.column("source_offset")?.as_primitive::<Int64Type>();
            let counts = rows.column("rows")?.as_primitive::<Int64Type>();
            let times = rows.column("replayed_ms")?.as_primitive::<Int64Type>();
            for row in rows.ours() {
                let id = LetterId {
                    topic: topics.value(row).to_owned(),
                    partition: partitions.value(row),
                    offset: offsets.value(row),
                };
                let past = Past {
                    outcome: Outcome::of(names.value(row)),
                    epoch: rows.epochs.value(row),
                    rows: counts.value(row),
                    reason: reasons.is_valid(row).then(|| reasons.value(row).to_owned()),
                    replayed_ms: times.value(row),
                };
                let rank = |past: &Past| (past.outcome.is_final(), past.epoch);
                let known = outcomes.entry(id).or_insert_with(|| past.clone());
                if rank(&past) > rank(known) {
                    *known = past;
                }
            }
        }
        Ok(outcomes)
    }

    /// Says what became of the letters, if the newest epoch is still the one of the last refresh.
    pub(super) async fn claim(&mut self, verdicts: &[Verdict], record: &str) -> Result<Committed, StoreError> {
        let (app_id, expected, next) = (self.app_id(), self.newest, self.next_epoch());
        let batch = self.batch(verdicts, record, next)?;
        let Some(table) = &mut self.table else {
            return Err(StoreError::BadCommit {
                table: DEAD_LETTER_REPLAYS.to_owned(),
                why: "it was not opened".into(),
            });
        };
        table.commit(vec![batch], vec![Advance { app_id, expected, next }]).await
    }

    fn batch(&self, verdicts: &[Verdict], record: &str, epoch: i64) -> Result<RecordBatch, StoreError> {
        let now_ms = now_ms();
        let text = |of: &dyn Fn(&Verdict) -> String| StringArray::from_iter_values(verdicts.iter().map(of));
        let total = |verdict: &Verdict| i64::try_from(verdict.rows.values().sum::<u64>()).unwrap_or(i64::MAX);
        let tables = |verdict: &Verdict| verdict.rows.keys().copied().collect::<Vec<_>>().join(",");
        let classes: StringArray = verdicts.iter().map(|verdict| Some(verdict.reason.as_ref()?.class())).collect();
        let reasons: StringArray = verdicts.iter().map(|verdict| Some(verdict.reason.as_ref()?.to_string())).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(text(&|_| self.job.clone())),
            Arc::new(Int64Array::from_iter_values(verdicts.iter().map(|_| epoch))),
            Arc::new(text(&|verdict| verdict.id.topic.clone())),
            Arc::new(Int32Array::from_iter_values(verdicts.iter().map(|verdict| verdict.id.partition))),
            Arc::new(Int64Array::from_iter_values(verdicts.iter().map(|verdict| verdict.id.offset))),
            Arc::new(text(&|verdict| verdict.outcome.name().to_owned())),
            Arc::new(Int64Array::from_iter_values(verdicts.iter().map(total))),
            Arc::new(text(&tables)),
            Arc::new(classes),
            Arc::new(reasons),
            Arc::new(Int64Array::from_iter_values(verdicts.iter().map(|_| now_ms))),
            Arc::new(text(&|_| record.to_owned())),
        ];
        RecordBatch::try_new(dead_letter_replays_spec().schema, columns)
            .map_err(|error| StoreError::BadCommit { table: DEAD_LETTER_REPLAYS.to_owned(), why: error.to_string() })
    }

    async fn batches(&self, columns: &[&str]) -> Result<Vec<RecordBatch>> {
        let Some(table) = &self.table else { return Ok(Vec::new()) };
        let mut batches = Vec::new();
        for file in table.live_files().await? {
            for batch in table.live_rows(&file, columns).await? {
                batches.push(batch?);
            }
        }
        Ok(batches)
    }
}

const ALL: [&str; 9] =
    ["job", "epoch", "source_topic", "source_partition", "source_offset", "outcome", "rows", "reason", "replayed_ms"];

/// The rows of a batch that are a job's.
struct Rows<'a> {
    batch: &'a RecordBatch,
    job: &'a str,
    jobs: &'a StringArray,
    epochs: &'a Int64Array,
}

impl<'a> Rows<'a> {
    fn of(batch: &'a RecordBatch, job: &'a str) -> Result<Self> {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| lacks(name));
        let (jobs, epochs) = (column("job")?.as_string::<i32>(), column("epoch")?.as_primitive::<Int64Type>());
        Ok(Self { batch, job, jobs, epochs })
    }

    fn ours(&self) -> impl Iterator<Item = usize> {
        (0..self.batch.num_rows()).filter(|row| self.jobs.value(*row) == self.job)
    }

    fn column(&self, name: &str) -> Result<&'a ArrayRef> {
        self.batch.column_by_name(name).ok_or_else(|| lacks(name))
    }

    fn text(&self, name: &str) -> Result<&'a StringArray> {
        Ok(self.column(name)?.as_string::<i32>())
    }
}

fn lacks(column: &str) -> IngestError {
    IngestError::Batch { table: DEAD_LETTER_REPLAYS, why: format!("it has no column {column}") }
}
