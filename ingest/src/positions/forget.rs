//! Giving up a topic for another one of its name.
//!
//! Kafka's new topic counts its offsets from 0 again, so topic, partition and offset would name two messages. Rows, letters
//! and positions of the new topic therefore have another name (`topic@2`), which no topic of Kafka's can have; what is
//! stored of the old one stays as it is.
//!
//! In order: the old positions are retired in every table (a process that still reads under the old name is fenced by that)
//! and recorded as gaps, whose ends nobody knows; then the notes are rewritten, each with Kafka's ids of now. Interrupted, it
//! is to be run again: tables whose notes are new are left as they are, and the number is that of theirs.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_store::Store;

use super::kafka;
use crate::gaps::{self, Cause, Decided, Move, RETIRED};
use crate::identity::{self, Source};
use crate::{IngestConfig, IngestError, Result};

/// Behind the last partition that is known to have been read, so many are looked at.
const NONE_IN_A_ROW: i32 = 16;

/// A topic that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forgotten {
    /// The topic, as Kafka names it.
    pub topic: String,
    /// How the rows of the new topic will name it.
    pub source_topic: String,
    /// Where each partition of the old one was left.
    pub left_at: BTreeMap<i32, i64>,
}

/// Retires the positions of a topic that was made again, so that the new one is read from its first message, as another
/// topic. Without `force` only where Kafka says that it is another one.
///
/// # Errors
/// [`IngestError::NoPositions`] when the job has none of the topic, [`IngestError::SameTopic`] when Kafka's topic is the one
/// that they are about, [`IngestError::BeingRead`] when somebody moved one meanwhile, else see [`IngestError`].
pub async fn forget(
    store: &Store,
    config: &IngestConfig,
    topic: &str,
    force: bool,
    decided: Decided,
) -> Result<Forgotten> {
    gaps::settle(store, &config.job).await?;
    let none = || IngestError::NoPositions { job: config.job.clone(), topic: topic.to_owned() };
    let notes = identity::of_topic(store, &config.job, topic).await?;
    let asked = config.topic(topic).ok_or_else(none)?;
    let newest = notes.iter().map(|(_, note)| note.made_again).max().ok_or_else(none)?;
    let cluster = kafka::ask(config, vec![asked]).await?;
    let cluster_id = cluster.id.clone();
    let (known, _) = cluster.one(topic)?;

    let is_old = |(_, note): &&(String, Source)| !note.is_of(cluster_id.as_deref(), known.id.as_deref());
    let old: Vec<&(String, Source)> = notes.iter().filter(is_old).collect();
    if old.is_empty() && !force {
        return Err(IngestError::SameTopic { topic: topic.to_owned() });
    }
    // Those that are not old were rewritten by one that was interrupted: their number is the new one.
    let begun = notes.len() > old.len() && !old.is_empty() && old.iter().all(|(_, note)| note.made_again < newest);
    let made_again = if begun { newest } else { newest + 1 };
    let old = if old.is_empty() { notes.iter().collect() } else { old };

    let moves = retired(store, config, topic, &old, known.partitions).await?;
    let left_at = moves.iter().map(|moved| (moved.partition, moved.from)).collect();
    if !moves.is_empty() {
        let made = gaps::make(store, &config.job, Cause::TopicForgotten, decided, moves).await?;
        if made.iter().any(|made| made.tables.len() < made.moved.tables.len()) {
            return Err(IngestError::BeingRead { topic: topic.to_owned(), job: config.job.clone() });
        }
    }
    for (table, note) in old {
        let new = Source {
            cluster_id: cluster_id.clone().or_else(|| note.cluster_id.clone()),
            topic_id: known.id.clone(),
            // All that the new topic holds came after the old one's end, also where "latest" was chosen.
            partitions_at_first: Some(0),
            made_again,
            ..note.clone()
        };
        identity::rewrite(store, table, &new).await?;
    }
    Ok(Forgotten { topic: topic.to_owned(), source_topic: identity::stored_topic(topic, made_again), left_at })
}

/// All positions of the topic's old names, on their way to where nobody reads.
async fn retired(
    store: &Store,
    config: &IngestConfig,
    topic: &str,
    old: &[&(String, Source)],
    partitions: i32,
) -> Result<Vec<Move>> {
    let mut moves: BTreeMap<(String, i32), Move> = BTreeMap::new();
    for (name, note) in old {
        let Some(table) = store.existing(name).await? else { continue };
        let stored = identity::stored_topic(topic, note.made_again);
        let sure = partitions.max(note.partitions_at_first.unwrap_or_default());
        let (mut partition, mut none) = (0, 0);
        while partition < sure || none < NONE_IN_A_ROW {
            match table.position(&config.app_id(&stored, partition)).await? {
                Some(position) if position != RETIRED => {
                    none = 0;
                    let new = || Move {
                        topic: stored.clone(),
                        partition,
                        from: position,
                        to: RETIRED,
                        tables: BTreeMap::new(),
                    };
                    let moved = moves.entry((stored.clone(), partition)).or_insert_with(new);
                    moved.from = moved.from.min(position);
                    moved.tables.insert(name.clone(), Some(position));
                }
                Some(_) => none = 0,
                None => none += 1,
            }
            partition += 1;
        }
    }
    Ok(moves.into_values().collect())
}
