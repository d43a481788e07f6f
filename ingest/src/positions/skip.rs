//! Passing over offsets because an operator says so.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::Serialize;
use weir_store::Store;

use super::{PartitionId, kafka};
use crate::gaps::{self, Cause, Decided, Move};
use crate::{IngestConfig, IngestError, Result, identity, raw_table_spec};

/// Where reading is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipTo {
    /// At the first message that Kafka holds.
    Earliest,
    /// Behind the last one that it holds now.
    Latest,
    /// Here.
    Offset(i64),
}

impl FromStr for SkipTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            offset => offset
                .parse()
                .ok()
                .filter(|offset| *offset >= 0)
                .map(Self::Offset)
                .ok_or_else(|| "write an offset, earliest or latest".to_owned()),
        }
    }
}

/// What was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The topic, as Kafka names it.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset of the gap.
    pub from_offset: i64,
    /// The offset at which reading goes on.
    pub to_offset: i64,
    /// The raw tables that have the gap.
    pub tables: BTreeSet<String>,
}

/// Moves the positions of a partition forward, in every table that its topic feeds, and records what was passed over.
/// Nobody may be reading the partition: whoever does wins, or is fenced.
///
/// # Errors
/// [`IngestError::BadSkip`] when there is no going there, [`IngestError::BeingRead`] when somebody moved the position
/// meanwhile, [`IngestError::TopicRecreated`] when the topic is not the one that the positions are about, else see
/// [`IngestError`].
pub async fn skip(
    store: &Store,
    config: &IngestConfig,
    id: &PartitionId,
    to: SkipTo,
    decided: Decided,
) -> Result<Skipped> {
    gaps::settle(store, &config.job).await?;
    let none = || IngestError::NoPositions { job: config.job.clone(), topic: id.topic.clone() };
    let notes = identity::of_topic(store, &config.job, &id.topic).await?;
    let topic = config.topic(&id.topic).ok_or_else(none)?;
    let made_again = notes.iter().map(|(_, note)| note.made_again).max().ok_or_else(none)?;
    let contracts = topic.format.contracts();
    let cluster = kafka::ask(config, vec![topic]).await?;
    let cluster_id = cluster.id.clone();
    let (known, watermarks) = cluster.one(&id.topic)?;
    for (table, note) in &notes {
        let wanted = identity::Source { cluster_id: cluster_id.clone(), topic_id: known.id.clone(), ..note.clone() };
        identity::check(store, table, &wanted).await?;
    }
    let stored = identity::stored_topic(&id.topic, made_again);
    let of = watermarks.iter().find(|of| of.partition.1 == id.partition).ok_or_else(|| IngestError::NoPartition {
        topic: id.topic.clone(),
        partition: id.partition,
        partitions: known.partitions,
    })?;
    let to = match to {
        SkipTo::Earliest => of.low,
        SkipTo::Latest => of.high,
        SkipTo::Offset(offset) => offset,
    };
    let bad = |why: String| IngestError::BadSkip { topic: id.topic.clone(), partition: id.partition, to, why };
    if !(of.low..=of.high).contains(&to) {
        return Err(bad(format!("Kafka holds {} to {}", of.low, of.high)));
    }

    let app_id = config.app_id(&stored, id.partition);
    let mut tables = BTreeMap::new();
    for contract in contracts {
        // Also one that the topic does not feed yet: it would be read from Kafka's first message else.
        let table = store.table(&raw_table_spec(contract)).await?;
        tables.insert(contract.name.to_owned(), table.position(&app_id).await?);
    }
    let ahead = tables.values().flatten().max().copied();
    tables.retain(|_, position| position.is_none_or(|position| position < to));
    if tables.is_empty() {
        return Err(bad(match ahead {
            Some(ahead) if ahead == to => "it goes on there already".to_owned(),
            ahead => {
                format!("it goes on at {} already, and going back would store rows twice", ahead.unwrap_or_default())
            }
        }));
    }
    let from = tables.values().map(|position| position.unwrap_or(of.low)).min().unwrap_or(to).min(to);
    let moved = Move { topic: stored, partition: id.partition, from, to, tables };
    let made = gaps::make(store, &config.job, Cause::Skipped, decided, vec![moved]).await?;
    let tables = made.into_iter().flat_map(|made| made.tables).collect::<BTreeSet<_>>();
    if tables.is_empty() {
        return Err(IngestError::BeingRead { topic: id.to_string(), job: config.job.clone() });
    }
    Ok(Skipped { topic: id.topic.clone(), partition: id.partition, from_offset: from, to_offset: to, tables })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_an_offset_or_an_end() {
        assert_eq!("earliest".parse(), Ok(SkipTo::Earliest));
        assert_eq!("latest".parse(), Ok(SkipTo::Latest));
        assert_eq!("17".parse(), Ok(SkipTo::Offset(17)));
        for wrong in ["", "-1", "first", "1.5"] {
            assert!(wrong.parse::<SkipTo>().is_err(), "{wrong}");
        }
    }
}
