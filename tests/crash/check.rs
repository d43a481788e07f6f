//! The verdict: what the tables hold against what was produced, row by row.
//!
//! Tables are read as they lie there, file by file of the newest version, not through any view of Weir's. A row is
//! found by its source (topic, partition, offset) and by its content. Of each position the end of its partition is
//! expected: no message is left that a later run would read.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};
use weir_store::{Keyring, Store, UtcDay};

use crate::digest::{self, SESSION};
use crate::series::{Expected, Partition, Truth};
use crate::truth::{self, TABLES, TENANTS, TOPICS, Table, Topic};

const DEAD_LETTERS: &str = "dead_letters";
/// Findings that are described; the others are counted.
const DESCRIBED: usize = 20;

/// What is wrong with the tables of one seed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Rows and dead letters that are not there, although the position is past them.
    pub lost: u64,
    /// Those that are not there because nobody has read so far, in a run that was given up.
    #[serde(default)]
    pub unread: u64,
    /// Rows and dead letters that are there again.
    pub doubled: u64,
    /// Rows and dead letters of a message whose content is not what was sent.
    pub altered: u64,
    /// Rows and dead letters that no message explains.
    pub foreign: u64,
    /// Positions that are not at the end of their partition.
    pub positions: u64,
    /// The first findings, in words.
    pub findings: Vec<String>,
}

impl Damage {
    pub fn is_none(&self) -> bool {
        self.lost + self.unread + self.doubled + self.altered + self.foreign + self.positions == 0
    }

    fn note(&mut self, finding: impl FnOnce() -> String) {
        if self.findings.len() < DESCRIBED {
            self.findings.push(finding());
        }
    }
}

/// Compares a store with the truth.
pub async fn check(store: &Store, keyring: &Keyring, truth: &Truth, job: &str) -> Damage {
    let mut damage = Damage::default();
    let sessions = Sessions::of(keyring);
    let positions = positions(store, truth, job).await;
    for table in TABLES {
        let mut rows = Rows::new(table, truth, &sessions);
        for batch in batches(store, table.name()).await {
            rows.take(&batch, &mut damage);
        }
        rows.finish(&positions, &mut damage);
    }
    let mut letters = Letters::new(truth, keyring);
    for batch in batches(store, DEAD_LETTERS).await {
        letters.take(&batch, &mut damage);
    }
    letters.finish(&positions, &mut damage);
    check_positions(truth, &positions, &mut damage);
    damage
}

/// Every row of a table's newest version.
async fn batches(store: &Store, name: &str) -> Vec<RecordBatch> {
    let Some(table) = store.existing(name).await.expect("the table can be loaded") else { return Vec::new() };
    let table = table.delta().await.expect("the table can be loaded");
    let snapshot = table.snapshot().expect("it is loaded");
    let files: Vec<String> = snapshot.log_data().iter().map(|file| file.path().into_owned()).collect();
    let mut batches = Vec::new();
    for file in files {
        let path = format!("tables/{name}/{file}");
        let bytes = store.get(&path).await.expect("the store answers").unwrap_or_else(|| panic!("{path} is gone"));
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
        let reader = reader.unwrap_or_else(|error| panic!("{path} is not a Parquet file: {error}"));
        batches.extend(reader.map(|batch| batch.unwrap_or_else(|error| panic!("{path} cannot be read: {error}"))));
    }
    batches
}

/// The position of each table in each partition that feeds it; nothing where there is none yet.
type Positions = BTreeMap<(Table, Partition), i64>;

async fn positions(store: &Store, truth: &Truth, job: &str) -> Positions {
    let mut positions = Positions::new();
    for table in TABLES {
        let Some(loaded) = store.existing(table.name()).await.expect("the table can be loaded") else { continue };
        for (topic, partition) in truth.ends.keys().filter(|(topic, _)| topic.feeds().contains(&table)) {
            let position = loaded.position(&app_id(job, *topic, *partition)).await.expect("positions can be read");
            positions.extend(position.map(|position| ((table, (*topic, *partition)), position)));
        }
    }
    positions
}

fn check_positions(truth: &Truth, positions: &Positions, damage: &mut Damage) {
    for (source, end) in &truth.ends {
        for table in source.0.feeds() {
            let position = positions.get(&(*table, *source));
            if position != Some(end) {
                damage.positions += 1;
                let (table, topic, partition) = (table.name(), source.0.name(), source.1);
                damage.note(|| {
                    format!("{table}: the position of {topic}/{partition} is {position:?} and not its end {end}")
                });
            }
        }
    }
}

/// Whose position a partition's is.
pub fn app_id(job: &str, topic: Topic, partition: i32) -> String {
    format!("weir/{job}/{}/{partition}", topic.name())
}

/// The pseudonyms that sessions must have: by tenant, then by session.
pub struct Sessions(Vec<Vec<String>>);

impl Sessions {
    pub fn of(keyring: &Keyring) -> Self {
        let of_tenant = |tenant: &&str| {
            let key = keyring.known_tenant_key(tenant).expect("keys can be read");
            // Without a key there is no pseudonym, and none that a row could have by chance.
            let pseudonym = |session| {
                key.as_ref().map_or_else(String::new, |key| key.pseudonym(SESSION, &truth::session_name(session)))
            };
            (0..truth::SESSIONS).map(pseudonym).collect()
        };
        Self(TENANTS.iter().map(of_tenant).collect())
    }

    fn expected(&self, topic: Topic, number: u64) -> Option<&str> {
        let (tenant, session) = truth::session(topic, number)?;
        Some(&self.0[tenant][usize::try_from(session).unwrap_or_default()])
    }
}

/// The rows of one table that were looked for and found.
struct Rows<'a> {
    table: Table,
    sessions: &'a Sessions,
    expected: BTreeMap<Partition, Wanted<'a>>,
}

/// The rows of one table and partition, and which were found.
struct Wanted<'a> {
    rows: &'a [Expected],
    found: Vec<bool>,
}

impl<'a> Rows<'a> {
    fn new(table: Table, truth: &'a Truth, sessions: &'a Sessions) -> Self {
        let of_table = truth.rows.iter().filter(|((of, _), _)| *of == table);
        let wanted = |rows: &'a Vec<Expected>| Wanted { rows, found: vec![false; rows.len()] };
        let expected = of_table.map(|((_, partition), rows)| (*partition, wanted(rows))).collect();
        Self { table, sessions, expected }
    }

    fn take(&mut self, batch: &RecordBatch, damage: &mut Damage) {
        let source = Source::of(batch);
        let digests = digest::of_rows(batch);
        let sessions = batch.column_by_name(SESSION).map(|column| column.as_string::<i32>());
        let table = self.table.name();
        for (row, digest) in digests.into_iter().enumerate() {
            let (topic, partition, offset) = source.at(row);
            let place = || format!("{table}: {topic}/{partition} offset {offset}");
            let wanted = topic_of(topic).and_then(|topic| Some((topic, self.expected.get_mut(&(topic, partition))?)));
            let Some((topic, wanted)) = wanted else {
                damage.foreign += 1;
                damage.note(|| format!("{} feeds no such table", place()));
                continue;
            };
            let at = wanted.rows.partition_point(|row| row.offset < offset);
            let of_message = wanted.rows[at..].iter().take_while(|row| row.offset == offset).count();
            let of_message = at..at + of_message;
            if of_message.is_empty() {
                damage.foreign += 1;
                damage.note(|| format!("{} has no such row", place()));
                continue;
            }
            let number = wanted.rows[at].number;
            let session = sessions.filter(|sessions| sessions.is_valid(row)).map(|sessions| sessions.value(row));
            let same = of_message.clone().find(|index| wanted.rows[*index].digest == digest);
            match same {
                Some(index) if session == self.sessions.expected(topic, number) => {
                    if std::mem::replace(&mut wanted.found[index], true) {
                        damage.doubled += 1;
                        damage.note(|| format!("{} is there again", place()));
                    }
                }
                _ => {
                    damage.altered += 1;
                    damage.note(|| format!("{} holds something else than was sent", place()));
                }
            }
        }
    }

    fn finish(self, positions: &Positions, damage: &mut Damage) {
        for ((topic, partition), wanted) in self.expected {
            let position = positions.get(&(self.table, (topic, partition))).copied().unwrap_or(0);
            for (row, _) in wanted.rows.iter().zip(wanted.found).filter(|(_, found)| !found) {
                if row.offset >= position {
                    damage.unread += 1;
                    continue;
                }
                damage.lost += 1;
                damage.note(|| {
                    format!("{}: {}/{partition} offset {} is not there", self.table.name(), topic.name(), row.offset)
                });
            }
        }
    }
}

/// The dead letters that were looked for and found.
struct Letters<'a> {
    keyring: &'a Keyring,
    expected: BTreeMap<(Partition, i64), (u64, bool)>,
}

impl<'a> Letters<'a> {
    fn new(truth: &Truth, keyring: &'a Keyring) -> Self {
        let of_partition = |(partition, letters): (&Partition, &Vec<(i64, u64)>)| {
            let partition = *partition;
            letters.clone().into_iter().map(move |(offset, number)| ((partition, offset), (number, false)))
        };
        Self { keyring, expected: truth.dead.iter().flat_map(of_partition).collect() }
    }

    fn take(&mut self, batch: &RecordBatch, damage: &mut Damage) {
        let source = Source::of(batch);
        let column = |name: &str| batch.column_by_name(name).unwrap_or_else(|| panic!("dead letters have {name}"));
        let observed = column("observed_ms").as_primitive::<Int64Type>();
        let sealed = column("sealed_payload").as_binary::<i32>();
        for row in 0..batch.num_rows() {
            let (topic, partition, offset) = source.at(row);
            let place = || format!("{DEAD_LETTERS}: {topic}/{partition} offset {offset}");
            let topic = topic_of(topic);
            let wanted = topic.and_then(|topic| Some((topic, self.expected.get_mut(&((topic, partition), offset))?)));
            let Some((topic, (number, found))) = wanted else {
                damage.foreign += 1;
                damage.note(|| format!("{} could be read", place()));
                continue;
            };
            let opened = self.keyring.unseal(UtcDay::of_ms(observed.value(row)), sealed.value(row)).ok().flatten();
            if opened != truth::message(topic, *number).payload {
                damage.altered += 1;
                damage.note(|| format!("{} holds something else than was sent", place()));
            } else if std::mem::replace(found, true) {
                damage.doubled += 1;
                damage.note(|| format!("{} is there again", place()));
            }
        }
    }

    fn finish(self, positions: &Positions, damage: &mut Damage) {
        for (((topic, partition), offset), _) in self.expected.iter().filter(|(_, (_, found))| !found) {
            // What every table of the topic is past is dealt with.
            let position = |table: &Table| positions.get(&(*table, (*topic, *partition))).copied().unwrap_or(0);
            if topic.feeds().iter().map(position).min().is_none_or(|lowest| *offset >= lowest) {
                damage.unread += 1;
                continue;
            }
            damage.lost += 1;
            damage.note(|| format!("{DEAD_LETTERS}: {}/{partition} offset {offset} is not there", topic.name()));
        }
    }
}

/// Where the rows of a batch came from.
struct Source<'a> {
    topics: &'a StringArray,
    partitions: &'a arrow::array::Int32Array,
    offsets: &'a arrow::array::Int64Array,
}

impl<'a> Source<'a> {
    fn of(batch: &'a RecordBatch) -> Self {
        let column = |name: &str| batch.column_by_name(name).unwrap_or_else(|| panic!("rows have a {name}"));
        Self {
            topics: column("source_topic").as_string(),
            partitions: column("source_partition").as_primitive::<Int32Type>(),
            offsets: column("source_offset").as_primitive::<Int64Type>(),
        }
    }

    fn at(&self, row: usize) -> (&'a str, i32, i64) {
        (self.topics.value(row), self.partitions.value(row), self.offsets.value(row))
    }
}

fn topic_of(name: &str) -> Option<Topic> {
    TOPICS.into_iter().find(|topic| topic.name() == name)
}

#[cfg(test)]
mod tests;
