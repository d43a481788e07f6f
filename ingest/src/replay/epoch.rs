//! One epoch: what became of some letters, their rows, and how these get into the raw tables.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use weir_schemas::Contract;
use weir_store::{Advance, PutNew, Store, StoreError, Table};

use super::ledger::{Claimed, Ledger, Outcome};
use super::letters::{Letter, LetterId};
use super::stored::Already;
use super::{Attempts, DecodedLetters};
use crate::tables::{SOURCE_OFFSET, SOURCE_PARTITION};
use crate::{IngestError, Reason, Result, raw_table_spec};

/// What became of one letter.
pub(super) struct Verdict {
    pub(super) id: LetterId,
    pub(super) outcome: Outcome,
    /// Rows that it adds, per raw table; tables without any are not in it.
    pub(super) rows: BTreeMap<&'static str, u64>,
    /// Why it was turned down again.
    pub(super) reason: Option<Reason>,
    /// Why it was turned down at first.
    pub(super) first_reason: String,
}

/// An epoch before it is claimed.
#[derive(Default)]
pub(super) struct Epoch {
    pub(super) verdicts: Vec<Verdict>,
    rows: BTreeMap<&'static str, (&'static Contract, Vec<RecordBatch>)>,
}

impl Epoch {
    /// Is there nothing to write down?
    pub(super) fn is_empty(&self) -> bool {
        self.verdicts.is_empty()
    }

    /// Adds what became of the letters of one topic, less the rows of messages that a raw table holds already.
    pub(super) fn add(&mut self, letters: &[&Letter], decoded: DecodedLetters, already: &Already) -> Result<()> {
        let none = HashSet::new();
        let mut counts: BTreeMap<(i32, i64), BTreeMap<&'static str, u64>> = BTreeMap::new();
        for (contract, batch) in decoded.batches {
            let held = already.get(contract.name).unwrap_or(&none);
            let bad = |why: String| IngestError::Batch { table: contract.name, why };
            let column = |name: &str| batch.column_by_name(name).ok_or_else(|| bad(format!("it has no column {name}")));
            let partitions = column(SOURCE_PARTITION)?.as_primitive::<Int32Type>();
            let offsets = column(SOURCE_OFFSET)?.as_primitive::<Int64Type>();
            let ids: Vec<(i32, i64)> =
                partitions.values().iter().copied().zip(offsets.values().iter().copied()).collect();
            let keep: BooleanArray = ids.iter().map(|id| Some(!held.contains(id))).collect();
            for id in ids.iter().filter(|id| !held.contains(*id)) {
                *counts.entry(*id).or_default().entry(contract.name).or_default() += 1;
            }
            let batch = filter_record_batch(&batch, &keep).map_err(|error| bad(error.to_string()))?;
            if batch.num_rows() > 0 {
                self.rows.entry(contract.name).or_insert_with(|| (contract, Vec::new())).1.push(batch);
            }
        }
        let mut rejected = decoded.rejected;
        for (index, letter) in letters.iter().enumerate() {
            let at = (letter.id.partition, letter.id.offset);
            let rows = counts.remove(&at).unwrap_or_default();
            let reason = rejected.remove(&index);
            let outcome = match &reason {
                Some(_) => Outcome::Rejected,
                None if rows.is_empty() && already.values().any(|held| held.contains(&at)) => Outcome::AlreadyStored,
                None => Outcome::Stored,
            };
            let first_reason = letter.reason.clone();
            self.verdicts.push(Verdict { id: letter.id.clone(), outcome, rows, reason, first_reason });
        }
        Ok(())
    }

    /// Sees to it that every raw table is there that gets rows.
    pub(super) async fn open_tables(&self, store: &Store) -> Result<()> {
        for (contract, _) in self.rows.values() {
            store.table(&raw_table_spec(contract)).await?;
        }
        Ok(())
    }

    /// Writes the rows beside the tables, under a name that no other claim has; the name.
    pub(super) async fn write_record(&self, store: &Store, ledger: &Ledger) -> Result<String> {
        let nonce = rand::random::<u128>();
        let record = format!("{}/{}-{nonce:032x}", records(&ledger.job), ledger.next_epoch());
        for (table, (_, batches)) in &self.rows {
            let encoded = encode(table, batches)?;
            if store.put_new(&object(&record, table), encoded).await? == PutNew::Existed {
                // A put that was repeated below us finds its own object: the name is nobody else's.
                tracing::debug!(record, table, "the record was there already");
            }
        }
        Ok(record)
    }
}

/// Lands what is missing of a claimed epoch; the rows that this call landed.
pub(super) async fn land(
    store: &Store,
    ledger: &Ledger,
    claimed: &Claimed,
    mut on_commit: impl FnMut(&str, i64, u64),
) -> Result<u64> {
    let mut landed = 0;
    for name in &claimed.tables {
        let mut attempt = Attempts::default();
        loop {
            match land_table(store, ledger, claimed, name, &mut on_commit).await {
                Ok(rows) => {
                    landed += rows;
                    break;
                }
                // Fenced means that another process was first, an unknown outcome that it may have landed: the
                // position says which.
                Err(error) => attempt.after(error).await?,
            }
        }
    }
    Ok(landed)
}

async fn land_table(
    store: &Store,
    ledger: &Ledger,
    claimed: &Claimed,
    name: &str,
    on_commit: &mut impl FnMut(&str, i64, u64),
) -> Result<u64> {
    let app_id = ledger.app_id();
    let gone = || IngestError::ReplayRecordGone {
        table: name.to_owned(),
        epoch: claimed.epoch,
        path: object(&claimed.record, name),
    };
    let Some(mut table) = store.existing(name).await? else { return Err(gone()) };
    let expected = table.position(&app_id).await?;
    if has_landed(expected, claimed) {
        return Ok(0);
    }
    let Some(bytes) = store.get(&object(&claimed.record, name)).await? else {
        // Whoever landed it meanwhile has cleared it away too.
        table.refresh().await?;
        return if has_landed(table.position(&app_id).await?, claimed) { Ok(0) } else { Err(gone()) };
    };
    let rows = decode(&table, bytes)?;
    let committed = table.commit(rows, vec![Advance { app_id, expected, next: claimed.epoch }]).await?;
    table.maintained().await;
    on_commit(name, committed.version, committed.rows);
    Ok(committed.rows)
}

/// Is a raw table still without its rows?
pub(super) async fn is_unfinished(store: &Store, ledger: &Ledger, claimed: &Claimed) -> Result<bool> {
    for name in &claimed.tables {
        let position = match store.existing(name).await? {
            Some(table) => table.position(&ledger.app_id()).await?,
            None => None,
        };
        if !has_landed(position, claimed) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_landed(position: Option<i64>, claimed: &Claimed) -> bool {
    position >= Some(claimed.epoch)
}

/// Removes the records of this epoch and of those before, all of which have landed, and what dead processes left behind
/// before they claimed any of these. A record of a later epoch may be about to be claimed.
pub(super) async fn clear_records(store: &Store, ledger: &Ledger, epoch: i64) -> Result<()> {
    for path in store.list(&records(&ledger.job)).await? {
        let name = path.rsplit('/').nth(1).unwrap_or_default();
        let of = name.split_once('-').and_then(|(number, _)| number.parse::<i64>().ok());
        if of.is_some_and(|of| of <= epoch) {
            store.delete(&path).await?;
        }
    }
    Ok(())
}

/// The folder of a job's records.
fn records(job: &str) -> String {
    format!("replays/{}", escaped(job))
}

/// A job's name as the name of a folder. It is outside input: whatever is not a letter, digit, `-` or `_` is written as
/// its bytes.
pub(crate) fn escaped(job: &str) -> String {
    let mut folder = String::new();
    for byte in job.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => folder.push(char::from(byte)),
            other => folder.push_str(&format!("={other:02x}")),
        }
    }
    folder
}

fn object(record: &str, table: &str) -> String {
    format!("{record}/{table}.parquet")
}

fn encode(table: &'static str, batches: &[RecordBatch]) -> Result<Bytes> {
    let bad = |error: parquet::errors::ParquetError| IngestError::Batch { table, why: error.to_string() };
    let Some(first) = batches.first() else { return Ok(Bytes::new()) };
    let mut writer =
        ArrowWriter::try_new(Vec::new(), first.schema(), Some(weir_store::writer_properties(&first.schema())))
            .map_err(bad)?;
    for batch in batches {
        writer.write(batch).map_err(bad)?;
    }
    Ok(writer.into_inner().map_err(bad)?.into())
}

fn decode(table: &Table, bytes: Bytes) -> Result<Vec<RecordBatch>> {
    let damaged = |why: String| StoreError::BadCommit {
        table: table.name().to_owned(),
        why: format!("the record of an interrupted replay cannot be read: {why}"),
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
    let reader = reader.map_err(|error| damaged(error.to_string()))?;
    Ok(reader.collect::<Result<Vec<_>, _>>().map_err(|error| damaged(error.to_string()))?)
}
