//! Where a job stands.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use weir_store::{Store, Table};

use super::PartitionId;
use super::kafka::{self, Cluster};
use crate::gaps::RETIRED;
use crate::identity::{self, Source};
use crate::source::Watermarks;
use crate::{IngestConfig, IngestError, Result};

/// Without Kafka's word on how many partitions there are, so many without a position in a row are the end.
const NONE_IN_A_ROW: i32 = 16;

/// Where a job stands in every partition that it reads or has read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Positions {
    /// By topic and partition.
    pub partitions: Vec<PartitionPosition>,
    /// Why Kafka was not asked, or did not answer.
    pub kafka_error: Option<String>,
}

/// Where a job stands in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionPosition {
    /// The topic, as Kafka names it.
    pub topic: String,
    /// How rows name it; another name once it was made again.
    pub source_topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset at which reading goes on: the lowest of the tables. None when nothing was read, or never will be again.
    pub next: Option<i64>,
    /// The next offset of each raw table that the topic feeds.
    pub tables: BTreeMap<String, Option<i64>>,
    /// Kafka's first offset, if it answers.
    pub low: Option<i64>,
    /// One past Kafka's last offset, if it answers.
    pub high: Option<i64>,
    /// Messages between `next` and `high`, or fewer: offsets have gaps.
    pub lag: Option<i64>,
    /// What that means.
    pub state: PositionState,
}

/// What a position means, beside what Kafka holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionState {
    /// Kafka holds what comes next.
    Ok,
    /// Nothing was read of it yet.
    New,
    /// Kafka no longer holds what comes next.
    Lost,
    /// The position lies beyond what Kafka holds: it was cut off, or made again where brokers tell no ids.
    BeyondEnd,
    /// Kafka's topic of that name is another one.
    AnotherTopic,
    /// Kafka has no such topic, or no such partition.
    Gone,
    /// Kafka did not say.
    Unknown,
}

impl PositionState {
    /// In a word or two, for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::New => "new",
            Self::Lost => "LOST",
            Self::BeyondEnd => "BEYOND END",
            Self::AnotherTopic => "ANOTHER TOPIC",
            Self::Gone => "gone",
            Self::Unknown => "?",
        }
    }
}

/// Where the job of the configuration stands: topics that it names, and those that it has read. Writes nothing.
///
/// # Errors
/// Storage trouble. Brokers that do not answer are none: see [`Positions::kafka_error`].
pub async fn positions(store: &Store, config: &IngestConfig) -> Result<Positions> {
    let mut notes: BTreeMap<String, Vec<(String, Source)>> = BTreeMap::new();
    for (table, source) in identity::of_job(store, &config.job).await? {
        notes.entry(source.topic.clone()).or_default().push((table, source));
    }
    let mut names: BTreeSet<String> = notes.keys().cloned().collect();
    names.extend(config.topics.iter().map(|topic| topic.topic.clone()));
    let asked = names.iter().map(|name| {
        // A topic that the configuration no longer names is asked for all the same; its format does not matter for that.
        let format = || crate::TopicConfig {
            topic: name.clone(),
            format: crate::Format::Requests,
            encoding: weir_decode::Encoding::Json,
            headers: Vec::new(),
        };
        config.topic(name).unwrap_or_else(format)
    });
    let (cluster, kafka_error) = match kafka::ask(config, asked.collect()).await {
        Ok(cluster) => (Some(cluster), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let mut found = Positions { partitions: Vec::new(), kafka_error };
    let mut tables = BTreeMap::new();
    for name in &names {
        let notes = notes.remove(name).unwrap_or_default();
        for (table, _) in &notes {
            if !tables.contains_key(table)
                && let Some(opened) = store.existing(table).await?
            {
                tables.insert(table.clone(), opened);
            }
        }
        found.partitions.extend(of_topic(config, name, &notes, &tables, cluster.as_ref()).await?);
    }
    Ok(found)
}

async fn of_topic(
    config: &IngestConfig,
    name: &str,
    notes: &[(String, Source)],
    tables: &BTreeMap<String, Table>,
    cluster: Option<&Cluster>,
) -> Result<Vec<PartitionPosition>> {
    let made_again = notes.iter().map(|(_, note)| note.made_again).max().unwrap_or_default();
    let source_topic = identity::stored_topic(name, made_again);
    let in_kafka = cluster.map(|cluster| (cluster, cluster.topics.get(name)));
    let known = in_kafka.and_then(|(_, topic)| topic?.as_ref().ok());
    let is_another = |(_, note): &(String, Source)| {
        let topic_id = known.and_then(|(topic, _)| topic.id.as_deref());
        !note.is_of(cluster.and_then(|cluster| cluster.id.as_deref()), topic_id)
    };
    let is_another = notes.iter().any(is_another);
    let mut found = Vec::new();
    let sure = known.map_or(0, |(topic, _)| topic.partitions);
    let (mut partition, mut none) = (0, 0);
    while partition < sure || (none < NONE_IN_A_ROW && !notes.is_empty()) {
        let app_id = config.app_id(&source_topic, partition);
        let mut its = BTreeMap::new();
        for (table, _) in notes {
            let position = match tables.get(table) {
                Some(opened) => opened.position(&app_id).await?,
                None => None,
            };
            its.insert(table.clone(), position);
        }
        let is_there = its.values().any(Option::is_some);
        none = if is_there { 0 } else { none + 1 };
        if is_there || partition < sure {
            let watermarks = known.and_then(|(_, all)| all.iter().find(|of| of.partition.1 == partition));
            let next = its.values().flatten().min().copied().filter(|next| *next != RETIRED);
            let state = match in_kafka {
                None => PositionState::Unknown,
                Some((_, Some(Err(IngestError::MissingTopic { .. })))) => PositionState::Gone,
                Some((_, None | Some(Err(_)))) => PositionState::Unknown,
                Some(_) if is_another => PositionState::AnotherTopic,
                Some(_) => state(next, watermarks),
            };
            let lag = watermarks.zip(next).map(|(of, next)| (of.high - next).max(0));
            found.push(PartitionPosition {
                topic: name.to_owned(),
                source_topic: source_topic.clone(),
                partition,
                next,
                tables: its,
                low: watermarks.map(|of| of.low),
                high: watermarks.map(|of| of.high),
                // Offsets of another topic say nothing about this one's.
                lag: lag.filter(|_| !is_another),
                state,
            });
        }
        partition += 1;
    }
    Ok(found)
}

fn state(next: Option<i64>, watermarks: Option<&Watermarks>) -> PositionState {
    match (next, watermarks) {
        (_, None) => PositionState::Gone,
        (None, Some(_)) => PositionState::New,
        (Some(next), Some(of)) if next < of.low => PositionState::Lost,
        (Some(next), Some(of)) if next > of.high => PositionState::BeyondEnd,
        (Some(_), Some(_)) => PositionState::Ok,
    }
}

impl PartitionPosition {
    /// The partition, as Kafka names it.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        PartitionId { topic: self.topic.clone(), partition: self.partition }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_judged_by_what_kafka_holds() {
        let of = Watermarks { partition: (0, 0), low: 5, high: 9 };
        for (next, expected) in [
            (None, PositionState::New),
            (Some(4), PositionState::Lost),
            (Some(5), PositionState::Ok),
            (Some(9), PositionState::Ok),
            (Some(10), PositionState::BeyondEnd),
        ] {
            assert_eq!(state(next, Some(&of)), expected, "{next:?}");
        }
        assert_eq!(state(Some(5), None), PositionState::Gone);
    }
}
