//! Gaps: offsets that are passed over unread, because Kafka has lost them or an operator says so, and their record.
//!
//! A gap is made in four steps:
//!
//! 1. *Intent.* What will be moved, from where to where, by whom and why, is written down as `gaps/<job>/<nonce>.json`.
//! 2. *Move.* Each raw table's positions go from where they were found to the end of the gap, compare-and-set, in one
//!    commit a table.
//! 3. *Record.* One commit to `ingest_gaps` adds a row for each partition that was moved, and the position
//!    `weir/<job>/gap/<nonce>`, which no other commit can set again.
//! 4. The intent goes.
//!
//! **Why nothing is passed over without a row.** Whoever reads positions to go on from them (a new assignment, a command)
//! reads them first, then looks for intents, and finishes those that there are before anything else. An intent that comes
//! after that look is moved after it too, so what was read is stale and the next commit is fenced. So a position beyond the
//! end of a gap is never one that the gap was moved to and that nobody recorded.
//!
//! **Why no row without a gap.** A table whose position is neither where the intent found it nor at the gap's end was moved
//! by somebody who still read: its part of the gap is given up. A partition that no table was moved of gets no row. (One
//! case cannot be told apart: a process that was not stopped commits exactly up to the gap's end, and the command dies
//! before its own move. Then a row stands for messages that were read.)
//!
//! **Why no row twice.** The position of the nonce is set in the commit that adds the rows.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use weir_store::{Advance, Store, StoreError, Table};

use crate::replay::escaped;
use crate::tables::ingest_gaps_spec;
use crate::{IngestError, Result, events};

/// Tries of one step, each after another writer came first or the store was in trouble.
const ATTEMPTS_MAX: u32 = 12;

/// Why offsets are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Kafka no longer had them, and the configuration says "count".
    DataLoss,
    /// An operator said so.
    Skipped,
    /// The topic was made again, and an operator gave the old one up: nobody knows how much more it held.
    TopicForgotten,
}

impl Cause {
    /// As the table has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DataLoss => "data_loss",
            Self::Skipped => "skipped",
            Self::TopicForgotten => "topic_forgotten",
        }
    }
}

/// Who passes over offsets, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// A person, or the process that follows a policy.
    pub actor: String,
    /// In their words.
    pub reason: Option<String>,
}

/// One partition to be moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Move {
    /// As the tables name the topic.
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// The lowest offset that is passed over.
    pub(crate) from: i64,
    /// Where reading goes on; [`RETIRED`] when it never does.
    pub(crate) to: i64,
    /// Where each raw table that is moved was found.
    pub(crate) tables: BTreeMap<String, Option<i64>>,
}

/// The position of a partition of a topic that was given up: beyond every offset, so that whoever still reads it is fenced.
pub(crate) const RETIRED: i64 = i64::MAX;

/// A gap that is made: what became of it in which tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) moved: Move,
    /// Those that now have the gap. None when somebody else was reading on.
    pub(crate) tables: BTreeSet<String>,
}

/// What is written down before anything is moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Intent {
    job: String,
    cause: Cause,
    #[serde(flatten)]
    decided: Decided,
    at_ms: i64,
    moves: Vec<Move>,
}

/// Makes the gaps, and says what became of each.
///
/// # Errors
/// Storage trouble that did not pass. What was begun is finished by whoever comes next.
pub(crate) async fn make(
    store: &Store,
    job: &str,
    cause: Cause,
    decided: Decided,
    moves: Vec<Move>,
) -> Result<Vec<Made>> {
    let intent = Intent { job: job.to_owned(), cause, decided, at_ms: now_ms(), moves };
    let nonce = format!("{:032x}", rand::random::<u128>());
    let bytes = serde_json::to_vec_pretty(&intent).expect("texts and numbers have a JSON form");
    store.put_new(&path(job, &nonce), bytes.into()).await?;
    settle_one(store, &nonce, intent).await
}

/// Finishes what others of the job have begun and not finished; true when there was something. Positions that were read
/// before are to be read again then.
pub(crate) async fn settle(store: &Store, job: &str) -> Result<bool> {
    let mut found = false;
    for path in store.list(&folder(job)).await? {
        // Gone meanwhile: whoever made it has finished it, after our look at the positions or before it.
        found = true;
        let Some(bytes) = store.get(&path).await? else { continue };
        let nonce = path.rsplit('/').next().and_then(|name| name.strip_suffix(".json")).unwrap_or_default().to_owned();
        let intent = serde_json::from_slice(&bytes).map_err(|error| {
            IngestError::Store(StoreError::BadCommit {
                table: crate::tables::INGEST_GAPS.to_owned(),
                why: format!("the note {path} of an unfinished gap cannot be read: {error}"),
            })
        })?;
        settle_one(store, &nonce, intent).await?;
    }
    Ok(found)
}

async fn settle_one(store: &Store, nonce: &str, intent: Intent) -> Result<Vec<Made>> {
    let mut made: Vec<Made> =
        intent.moves.iter().map(|moved| Made { moved: moved.clone(), tables: BTreeSet::new() }).collect();
    let tables: BTreeSet<&String> = intent.moves.iter().flat_map(|moved| moved.tables.keys()).collect();
    for name in tables {
        let Some(mut table) = store.existing(name).await? else { continue };
        for index in move_table(&mut table, &intent).await? {
            made[index].tables.insert(name.clone());
        }
        table.maintained().await;
    }
    let landed: Vec<&Made> = made.iter().filter(|made| !made.tables.is_empty()).collect();
    if !landed.is_empty() && record(store, nonce, &intent, &landed).await? {
        for made in &landed {
            events::GapRecorded { job: &intent.job, cause: intent.cause.name(), gap: &made.moved }.emit();
        }
    }
    store.delete(&path(&intent.job, nonce)).await?;
    Ok(made)
}

/// Moves one table's positions; the moves, by index, that have landed in it, whoever landed them.
async fn move_table(table: &mut Table, intent: &Intent) -> Result<Vec<usize>> {
    let mut attempt = Attempts::default();
    loop {
        table.refresh().await?;
        let (mut landed, mut advances) = (Vec::new(), Vec::new());
        for (index, moved) in intent.moves.iter().enumerate() {
            let Some(expected) = moved.tables.get(table.name()).copied() else { continue };
            let app_id = app_id(&intent.job, moved);
            let position = table.position(&app_id).await?;
            if position == Some(moved.to) {
                landed.push(index);
            } else if position == expected {
                landed.push(index);
                advances.push(Advance { app_id, expected, next: moved.to });
            }
        }
        if advances.is_empty() {
            return Ok(landed);
        }
        match table.commit(Vec::new(), advances).await {
            Ok(_) => return Ok(landed),
            // Fenced: somebody moved one of them; unknown: the positions tell.
            Err(error) => attempt.after(error).await?,
        }
    }
}

/// Adds the rows; false when they were there.
async fn record(store: &Store, nonce: &str, intent: &Intent, landed: &[&Made]) -> Result<bool> {
    let mut table = store.table(&ingest_gaps_spec()).await?;
    let app_id = format!("weir/{}/gap/{nonce}", intent.job);
    let mut attempt = Attempts::default();
    loop {
        table.refresh().await?;
        if table.position(&app_id).await?.is_some() {
            return Ok(false);
        }
        let batch = table::batch(intent, landed)?;
        let advance = Advance { app_id: app_id.clone(), expected: None, next: 1 };
        match table.commit(vec![batch], vec![advance]).await {
            Ok(_) => {
                table.maintained().await;
                return Ok(true);
            }
            Err(error) => attempt.after(error).await?,
        }
    }
}

fn app_id(job: &str, moved: &Move) -> String {
    format!("weir/{job}/{}/{}", moved.topic, moved.partition)
}

fn folder(job: &str) -> String {
    format!("gaps/{}", escaped(job))
}

fn path(job: &str, nonce: &str) -> String {
    format!("{}/{nonce}.json", folder(job))
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// Failures in a row that may pass.
#[derive(Default)]
struct Attempts(u32);

impl Attempts {
    async fn after(&mut self, error: StoreError) -> Result<()> {
        self.0 += 1;
        if self.0 >= ATTEMPTS_MAX || !error.retry_helps() {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(5) * 2_u32.pow(self.0.min(8))).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw_table_spec;

    async fn table(store: &Store, name: &str) -> Table {
        let contract = weir_schemas::contracts().into_iter().find(|contract| contract.name == name).unwrap();
        let mut table = store.table(&raw_table_spec(contract)).await.unwrap();
        table.refresh().await.unwrap();
        table
    }

    async fn advance(store: &Store, name: &str, expected: Option<i64>, next: i64) {
        let advance = Advance { app_id: "weir/j/llm/0".to_owned(), expected, next };
        table(store, name).await.commit(vec![], vec![advance]).await.unwrap();
    }

    async fn position(store: &Store, name: &str) -> Option<i64> {
        table(store, name).await.position("weir/j/llm/0").await.unwrap()
    }

    async fn rows(store: &Store) -> usize {
        let Some(table) = store.existing("ingest_gaps").await.unwrap() else { return 0 };
        let mut rows = 0;
        for version in 1..=table.version() {
            rows += table.appended(version).await.unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>();
        }
        rows
    }

    fn gap(from: i64, to: i64, tables: &[(&str, i64)]) -> Vec<Move> {
        let tables = tables.iter().map(|(name, at)| ((*name).to_owned(), Some(*at))).collect();
        vec![Move { topic: "llm".to_owned(), partition: 0, from, to, tables }]
    }

    fn ann() -> Decided {
        Decided { actor: "ann".to_owned(), reason: None }
    }

    #[tokio::test]
    async fn a_gap_moves_every_table_and_is_recorded_once() {
        let store = Store::open("memory://").await.unwrap();
        advance(&store, "requests", None, 5).await;
        advance(&store, "feedback", None, 3).await;
        let moves = gap(3, 9, &[("requests", 5), ("feedback", 3)]);
        let made = make(&store, "j", Cause::Skipped, ann(), moves).await.unwrap();
        assert_eq!(made[0].tables.len(), 2);
        assert_eq!((position(&store, "requests").await, position(&store, "feedback").await), (Some(9), Some(9)));
        assert_eq!(rows(&store).await, 1);
        assert!(!settle(&store, "j").await.unwrap(), "the intent is gone");
    }

    #[tokio::test]
    async fn what_somebody_read_meanwhile_is_no_gap() {
        let store = Store::open("memory://").await.unwrap();
        advance(&store, "requests", None, 6).await;
        advance(&store, "feedback", None, 3).await;
        // Found at 5, and at 6 by the time that it is to be moved.
        let made = make(&store, "j", Cause::Skipped, ann(), gap(5, 9, &[("requests", 5)])).await.unwrap();
        assert!(made[0].tables.is_empty());
        assert_eq!((position(&store, "requests").await, rows(&store).await), (Some(6), 0));
        let made =
            make(&store, "j", Cause::Skipped, ann(), gap(3, 9, &[("requests", 5), ("feedback", 3)])).await.unwrap();
        assert_eq!(made[0].tables, ["feedback".to_owned()].into(), "the other goes on reading");
        assert_eq!((position(&store, "feedback").await, rows(&store).await), (Some(9), 1));
    }

    #[tokio::test]
    async fn what_was_begun_is_finished_by_whoever_comes_next_and_once() {
        let store = Store::open("memory://").await.unwrap();
        advance(&store, "requests", None, 5).await;
        let moves = gap(5, 9, &[("requests", 5)]);
        let intent = Intent { job: "j".to_owned(), cause: Cause::DataLoss, decided: ann(), at_ms: 7, moves };
        let note = serde_json::to_vec(&intent).unwrap();
        for round in 0..3 {
            // The second time the table is moved already, and the row is there.
            store.put(&path("j", "n"), note.clone().into()).await.unwrap();
            assert!(settle(&store, "j").await.unwrap());
            assert_eq!((position(&store, "requests").await, rows(&store).await), (Some(9), 1), "round {round}");
            assert_eq!(store.list("gaps").await.unwrap().len(), 0);
        }
        assert!(!settle(&store, "other").await.unwrap(), "jobs do not finish each other's");
    }
}
