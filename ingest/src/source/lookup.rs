//! What Kafka holds of partitions, asked for in bounded time.
//!
//! One partition that nobody can tell of must not keep the others from being read: what is not found is named, and asked
//! for again by whoever asked. So that a hundred partitions of one dead broker do not take a hundred timeouts, partitions
//! without a leader are not asked for at all, and a leader that did not answer is not asked again in the same round.
//!
//! Both ends are asked for, in one call, also in a run without end: a position beyond the last message is data loss, too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{Control, PartitionKey, Watermarks};
use crate::ends::ends;
use crate::topic_id::topic_id_by;
use crate::topics::ReadTopics;
use crate::{IngestConfig, IngestError, Result, broker};

/// What was found out. Partitions that are not among the watermarks were not found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) watermarks: Vec<Watermarks>,
    /// Why something is missing; each passes by itself.
    pub(super) troubles: Vec<IngestError>,
}

/// One round of questions.
pub(super) struct LookUp<'a, C: ConsumerContext> {
    pub(super) client: &'a BaseConsumer<C>,
    pub(super) config: &'a IngestConfig,
    pub(super) control: &'a Control,
    pub(super) topics: &'a ReadTopics,
    /// When to stop asking.
    pub(super) give_up: Instant,
}

impl<C: ConsumerContext> LookUp<'_, C> {
    /// What Kafka holds of the partitions now, as far as it can be had.
    ///
    /// # Errors
    /// What does not pass: no access, no topic, or a topic that is not the one that the tables were checked for.
    pub(super) fn watermarks(&self, partitions: &[PartitionKey]) -> Result<Found> {
        let mut by_topic: BTreeMap<usize, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in partitions {
            by_topic.entry(*topic).or_default().push(*partition);
        }
        let (mut found, mut silent) = (Found::default(), BTreeSet::new());
        for (topic, partitions) in by_topic {
            if let Err(error) = self.of_topic(topic, &partitions, &mut found, &mut silent) {
                if !self.control.passes(self.config, &error) {
                    return Err(error);
                }
                found.troubles.push(error);
            }
        }
        Ok(found)
    }

    fn of_topic(&self, topic: usize, partitions: &[i32], found: &mut Found, silent: &mut BTreeSet<i32>) -> Result<()> {
        let read = &self.topics.list[topic];
        let name = read.config.topic.as_str();
        let trouble = |error| broker::classify(self.config, name, self.config.answer_within(), error);
        let metadata = self.client.fetch_metadata(Some(name), self.left()?).map_err(trouble)?;
        let id = topic_id_by(self.client.client(), metadata.orig_broker_id(), name, self.left()?).map_err(trouble)?;
        if read.id.is_some() && id.is_some() && id != read.id {
            return Err(IngestError::TopicRecreated { topic: name.to_owned() });
        }
        let described = metadata.topics().iter().find(|found| found.name() == name);
        let leaders: BTreeMap<i32, i32> = described
            .into_iter()
            .flat_map(|topic| topic.partitions())
            .filter(|partition| partition.leader() >= 0)
            .map(|partition| (partition.id(), partition.leader()))
            .collect();
        let mut why = None;
        for partition in partitions {
            let Some(leader) = leaders.get(partition) else {
                let code = described.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
                let code = code.unwrap_or(RDKafkaErrorCode::LeaderNotAvailable);
                why.get_or_insert(trouble(KafkaError::MetadataFetch(code)));
                continue;
            };
            if silent.contains(leader) {
                continue;
            }
            match ends(self.client, name, *partition, self.left()?) {
                Ok((low, high)) => found.watermarks.push(Watermarks { partition: (topic, *partition), low, high }),
                Err(error) => {
                    let error = trouble(error);
                    if matches!(error, IngestError::Unreachable { .. }) {
                        silent.insert(*leader);
                    }
                    if !self.control.passes(self.config, &error) {
                        return Err(error);
                    }
                    why.get_or_insert(error);
                }
            }
        }
        found.troubles.extend(why);
        Ok(())
    }

    /// How long the next answer may take.
    fn left(&self) -> Result<Duration> {
        let left = self.give_up.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let waited_s = self.config.answer_within().as_secs();
            return Err(IngestError::Unreachable { brokers: self.config.brokers.clone(), waited_s });
        }
        Ok(left.min(self.config.answer_within()))
    }
}
