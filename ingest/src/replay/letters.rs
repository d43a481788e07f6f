//! The letters themselves: which are meant, what is known of each, and its bytes where their key still is.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use serde::Serialize;
use weir_decode::Headers;
use weir_store::{Keyring, LiveFile, Store, StoreError, Table, UtcDay};

use super::ledger::{Ledger, Past};
use crate::dead_letters::{self, Sealed};
use crate::tables::{DEAD_LETTERS, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC};
use crate::{IngestError, Result};

const SEALED: &str = "sealed_payload";
/// What is read of a letter when its bytes are wanted.
pub(super) const ALL_COLUMNS: [&str; 9] = [
    SOURCE_TOPIC,
    SOURCE_PARTITION,
    SOURCE_OFFSET,
    "reason_class",
    "reason",
    "observed_ms",
    "observed_date",
    "payload_bytes",
    SEALED,
];
/// The same without the bytes.
const DESCRIPTION: &[&str] = ALL_COLUMNS.split_at(8).0;

/// Where a letter's message lies in Kafka: what identifies it. Prints and parses as `topic/partition/offset`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct LetterId {
    /// The topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let mut parts = text.rsplitn(3, '/');
            let (offset, partition, topic) = (parts.next()?, parts.next()?, parts.next()?);
            let id = Self { topic: topic.to_owned(), partition: partition.parse().ok()?, offset: offset.parse().ok()? };
            (!topic.is_empty() && id.partition >= 0 && id.offset >= 0).then_some(id)
        };
        parsed().ok_or_else(|| "write TOPIC/PARTITION/OFFSET, as in requests/0/9715".to_owned())
    }
}

/// Which letters are meant. What is left out does not narrow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// Of this topic.
    pub topic: Option<String>,
    /// Of this partition.
    pub partition: Option<i32>,
    /// Whose reason is of this class.
    pub reason_class: Option<String>,
    /// Seen at or after this moment, ms since the Unix epoch.
    pub since_ms: Option<i64>,
}

impl LetterFilter {
    /// Can the file hold a letter that is meant? Where the log does not say, it can.
    pub(super) fn may_be_in(&self, file: &LiveFile) -> bool {
        let partition = self.partition.is_none_or(|wanted| {
            file.range(SOURCE_PARTITION).is_none_or(|(low, high)| (low..=high).contains(&i64::from(wanted)))
        });
        let since = self.since_ms.is_none_or(|since| file.range("observed_ms").is_none_or(|(_, high)| high >= since));
        partition && since
    }

    pub(super) fn takes(&self, rows: &Rows<'_>, row: usize) -> bool {
        self.topic.as_ref().is_none_or(|wanted| rows.topics.value(row) == wanted)
            && self.partition.is_none_or(|wanted| rows.partitions.value(row) == wanted)
            && self.reason_class.as_ref().is_none_or(|wanted| rows.classes.value(row) == wanted)
            && self.since_ms.is_none_or(|since| rows.observed_ms.value(row) >= since)
    }
}

/// A letter and its message. `Debug` is not derived: the payload must not reach a log.
pub(super) struct Letter {
    pub(super) id: LetterId,
    pub(super) reason: String,
    pub(super) observed_ms: i64,
    pub(super) message: Sealed,
}

/// A letter's bytes.
pub(super) enum Opened {
    Message(Sealed),
    /// They are too old, or their day's key is gone.
    Expired,
    /// They do not open with their day's key.
    Foreign,
}

/// A batch of `dead_letters`.
pub(super) struct Rows<'a> {
    topics: &'a StringArray,
    partitions: &'a Int32Array,
    offsets: &'a Int64Array,
    classes: &'a StringArray,
    reasons: &'a StringArray,
    observed_ms: &'a Int64Array,
    days: &'a StringArray,
    payload_bytes: &'a Int64Array,
    /// Absent when the bytes were not read.
    sealed: Option<&'a BinaryArray>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(batch: &'a RecordBatch) -> Result<Self> {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| lacks(name));
        Ok(Self {
            topics: column(SOURCE_TOPIC)?.as_string(),
            partitions: column(SOURCE_PARTITION)?.as_primitive::<Int32Type>(),
            offsets: column(SOURCE_OFFSET)?.as_primitive::<Int64Type>(),
            classes: column("reason_class")?.as_string(),
            reasons: column("reason")?.as_string(),
            observed_ms: column("observed_ms")?.as_primitive::<Int64Type>(),
            days: column("observed_date")?.as_string(),
            payload_bytes: column("payload_bytes")?.as_primitive::<Int64Type>(),
            sealed: batch.column_by_name(SEALED).map(|sealed| sealed.as_binary()),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    pub(super) fn id(&self, row: usize) -> LetterId {
        LetterId {
            topic: self.topics.value(row).to_owned(),
            partition: self.partitions.value(row),
            offset: self.offsets.value(row),
        }
    }

    fn day(&self, row: usize) -> Result<UtcDay> {
        let named = UtcDay::parse(self.days.value(row));
        named.ok_or_else(|| bad("a letter's observed_date is no day".to_owned()))
    }

    pub(super) fn open(&self, row: usize, keyring: &Keyring, oldest_kept: UtcDay) -> Result<Opened> {
        let sealed = self.sealed.ok_or_else(|| lacks(SEALED))?;
        unseal(keyring, self.day(row)?, oldest_kept, sealed.value(row))
    }

    pub(super) fn letter(&self, row: usize, id: LetterId, message: Sealed) -> Letter {
        let reason = self.reasons.value(row).to_owned();
        Letter { id, reason, observed_ms: self.observed_ms.value(row), message }
    }
}

/// Expiring a key is a promise with a date: it holds also when nobody has shredded the key yet.
fn unseal(keyring: &Keyring, day: UtcDay, oldest_kept: UtcDay, sealed: &[u8]) -> Result<Opened> {
    if day < oldest_kept {
        return Ok(Opened::Expired);
    }
    match dead_letters::unseal(keyring, day, sealed) {
        Ok(Some(message)) => Ok(Opened::Message(message)),
        Ok(None) => Ok(Opened::Expired),
        Err(StoreError::NotSealedHere { .. }) => Ok(Opened::Foreign),
        Err(error) => Err(error.into()),
    }
}

/// The letters of a store, to look at. Nothing is written.
#[derive(Debug)]
pub struct DeadLetters {
    /// Absent when there was never one.
    table: Option<Table>,
    outcomes: HashMap<LetterId, Past>,
    oldest_kept: UtcDay,
}

/// Letters of one topic that were turned down for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterGroup {
    /// Their topic.
    pub topic: String,
    /// Class of the reason.
    pub reason_class: String,
    /// The reason at first; never quotes a message.
    pub reason: String,
    /// How many.
    pub letters: u64,
    /// Those that a replay has dealt with.
    pub replayed: u64,
    /// The others.
    pub pending: u64,
    /// Pending letters whose bytes can still be opened; absent without a keys folder.
    pub readable: Option<u64>,
    /// Pending letters whose bytes have expired; absent without a keys folder.
    pub expired: Option<u64>,
    /// When the first was seen, ms since the Unix epoch.
    pub first_observed_ms: i64,
    /// When the last was seen.
    pub last_observed_ms: i64,
}

/// One letter, without its bytes. `Debug` is not derived: the sealed bytes are nobody's business.
#[derive(Clone)]
pub struct FoundLetter {
    /// Where its message lies.
    pub id: LetterId,
    /// Class of the reason.
    pub reason_class: String,
    /// The reason at first; never quotes the message.
    pub reason: String,
    /// When it was seen, ms since the Unix epoch.
    pub observed_ms: i64,
    /// Length of the message, bytes.
    pub payload_bytes: i64,
    /// The last replay that dealt with it or turned it down.
    pub replay: Option<LetterReplay>,
    day: UtcDay,
    oldest_kept: UtcDay,
    sealed: Vec<u8>,
}

/// What a replay did with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterReplay {
    /// `stored`, `already_stored` or `rejected`.
    pub outcome: &'static str,
    /// The job's replays are counted by it.
    pub epoch: i64,
    /// Rows that it got, over all raw tables.
    pub rows: i64,
    /// Why it was turned down again.
    pub reason: Option<String>,
    /// When, ms since the Unix epoch.
    pub replayed_ms: i64,
}

/// The bytes of one letter.
#[derive(Clone, PartialEq, Eq)]
pub enum LetterPayload {
    /// The message as it came.
    Message {
        /// Its value, behind the id of its schema where a header named that.
        payload: Vec<u8>,
        /// Those of its headers that its topic's list named.
        headers: Vec<(String, Vec<u8>)>,
    },
    /// Older than letters are kept, or the key of its day is not in the keys folder.
    Expired,
    /// The key of its day does not open it.
    Foreign,
}

impl DeadLetters {
    /// The letters as they are now, with what replays of `job` did with them. Bytes count as expired after
    /// `dead_letter_days`, whether their key was shredded yet or not.
    ///
    /// # Errors
    /// [`IngestError::Store`].
    pub async fn open(store: &Store, job: &str, dead_letter_days: u32) -> Result<Self> {
        let table = store.existing(DEAD_LETTERS).await?;
        let outcomes = Ledger::existing(store, job).await?.outcomes().await?;
        Ok(Self { table, outcomes, oldest_kept: UtcDay::today().minus_days(dead_letter_days) })
    }

    /// The letters that pass the filter, by topic and reason, most letters first. Without a keyring nothing is said of
    /// their bytes.
    ///
    /// # Errors
    /// [`IngestError::Store`].
    pub async fn list(&self, filter: &LetterFilter, keyring: Option<&Keyring>) -> Result<Vec<LetterGroup>> {
        let mut keys: HashMap<UtcDay, bool> = HashMap::new();
        let mut has_key = |day: UtcDay| -> Result<Option<bool>> {
            let Some(keyring) = keyring else { return Ok(None) };
            if let Some(known) = keys.get(&day) {
                return Ok(Some(*known));
            }
            let there = day >= self.oldest_kept && keyring.can_unseal(day)?;
            Ok(Some(*keys.entry(day).or_insert(there)))
        };
        let mut groups: BTreeMap<(String, String), LetterGroup> = BTreeMap::new();
        let Some(table) = &self.table else { return Ok(Vec::new()) };
        for file in table.live_files().await?.iter().filter(|file| filter.may_be_in(file)) {
            for batch in table.live_rows(file, DESCRIPTION).await? {
                let batch = batch?;
                let rows = Rows::of(&batch)?;
                for row in (0..rows.len()).filter(|row| filter.takes(&rows, *row)) {
                    let observed_ms = rows.observed_ms.value(row);
                    let key = (rows.topics.value(row).to_owned(), rows.reasons.value(row).to_owned());
                    let group = groups.entry(key).or_insert_with_key(|(topic, reason)| LetterGroup {
                        topic: topic.clone(),
                        reason_class: rows.classes.value(row).to_owned(),
                        reason: reason.clone(),
                        letters: 0,
                        replayed: 0,
                        pending: 0,
                        readable: keyring.map(|_| 0),
                        expired: keyring.map(|_| 0),
                        first_observed_ms: observed_ms,
                        last_observed_ms: observed_ms,
                    });
                    group.letters += 1;
                    group.first_observed_ms = group.first_observed_ms.min(observed_ms);
                    group.last_observed_ms = group.last_observed_ms.max(observed_ms);
                    if self.outcomes.get(&rows.id(row)).is_some_and(|past| past.outcome.is_final()) {
                        group.replayed += 1;
                        continue;
                    }
                    group.pending += 1;
                    let counted = match has_key(rows.day(row)?)? {
                        Some(true) => &mut group.readable,
                        Some(false) => &mut group.expired,
                        None => continue,
                    };
                    *counted.get_or_insert(0) += 1;
                }
            }
        }
        let mut groups: Vec<LetterGroup> = groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.letters));
        Ok(groups)
    }

    /// One letter, if there is one.
    ///
    /// # Errors
    /// [`IngestError::Store`].
    pub async fn find(&self, id: &LetterId) -> Result<Option<FoundLetter>> {
        let Some(table) = &self.table else { return Ok(None) };
        let filter =
            LetterFilter { topic: Some(id.topic.clone()), partition: Some(id.partition), ..LetterFilter::default() };
        let may_hold = |file: &&LiveFile| {
            let offsets = file.range(SOURCE_OFFSET);
            filter.may_be_in(file) && offsets.is_none_or(|(low, high)| (low..=high).contains(&id.offset))
        };
        for file in table.live_files().await?.iter().filter(may_hold) {
            for batch in table.live_rows(file, &ALL_COLUMNS).await? {
                let batch = batch?;
                let rows = Rows::of(&batch)?;
                let found =
                    (0..rows.len()).find(|row| rows.offsets.value(*row) == id.offset && filter.takes(&rows, *row));
                if let Some(row) = found {
                    return Ok(Some(FoundLetter {
                        id: id.clone(),
                        reason_class: rows.classes.value(row).to_owned(),
                        reason: rows.reasons.value(row).to_owned(),
                        observed_ms: rows.observed_ms.value(row),
                        payload_bytes: rows.payload_bytes.value(row),
                        replay: self.outcomes.get(id).map(|past| LetterReplay {
                            outcome: past.outcome.name(),
                            epoch: past.epoch,
                            rows: past.rows,
                            reason: past.reason.clone(),
                            replayed_ms: past.replayed_ms,
                        }),
                        day: rows.day(row)?,
                        oldest_kept: self.oldest_kept,
                        sealed: rows.sealed.ok_or_else(|| lacks(SEALED))?.value(row).to_vec(),
                    }));
                }
            }
        }
        Ok(None)
    }
}

impl FoundLetter {
    /// The day whose key seals its bytes.
    #[must_use]
    pub fn day(&self) -> UtcDay {
        self.day
    }

    /// Opens its bytes with the key of its day.
    ///
    /// # Errors
    /// [`IngestError::Store`] when the key cannot be read.
    pub fn payload(&self, keyring: &Keyring) -> Result<LetterPayload> {
        Ok(match unseal(keyring, self.day, self.oldest_kept, &self.sealed)? {
            Opened::Message(Sealed { payload, headers }) => {
                let headers = Headers::of(&headers).iter().map(|(name, value)| (name.to_owned(), value.to_vec()));
                LetterPayload::Message { headers: headers.collect(), payload }
            }
            Opened::Expired => LetterPayload::Expired,
            Opened::Foreign => LetterPayload::Foreign,
        })
    }
}

/// This machine's clock, ms since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

fn lacks(column: &str) -> IngestError {
    bad(format!("it has no column {column}"))
}

fn bad(why: String) -> IngestError {
    IngestError::Batch { table: DEAD_LETTERS, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_named_by_topic_partition_and_offset() {
        let id: LetterId = "a.b/c/3/17".parse().unwrap();
        assert_eq!((id.topic.as_str(), id.partition, id.offset), ("a.b/c", 3, 17));
        assert_eq!(id.to_string(), "a.b/c/3/17");
        for wrong in ["", "llm", "llm/0", "/0/1", "llm/-1/2", "llm/0/-2", "llm/0/x"] {
            assert!(wrong.parse::<LetterId>().is_err(), "{wrong}");
        }
    }
}
