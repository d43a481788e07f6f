//! The client's callbacks: what the group gives us and takes away. All run on the poll thread, inside `poll`.
//!
//! Nobody polls meanwhile, and the group throws out members that do not poll (`max.poll.interval.ms`). So every wait here is
//! bounded, and what is not there in time is left to [`super::parked`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc as std_mpsc};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::channel::Sender;
use super::held::{Held, Ticket};
use super::lookup::LookUp;
use super::parked::hold_still;
use super::{Chunk, Control, Generation, News, PartitionKey, Watermarks, lock};
use crate::topics::ReadTopics;
use crate::{IngestConfig, Result, events, token};

/// How long brokers may take, in the callback, to say what they hold of the partitions that come.
const LOOK_UP_WAIT: Duration = Duration::from_secs(5);
/// How long the sink may take, in the callback, to say where to start.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long a revocation waits for the sink to commit what it has. Past it the rows are fenced or read again.
const REVOKE_WAIT: Duration = Duration::from_secs(20);
/// How long a member of the consumer protocol (KIP-848) is up before no callback means that it was given nothing.
const IDLE_AFTER_MS: i64 = 5_000;

/// What the callbacks work on.
pub(super) struct Context {
    pub(super) config: IngestConfig,
    pub(super) control: Arc<Control>,
    pub(super) events: Sender,
    pub(super) pending: Mutex<Chunk>,
    /// Is the pending chunk worth handing over?
    pub(super) is_full: AtomicBool,
    pub(super) held: Mutex<Held>,
    /// What the sink has not answered yet.
    pub(super) asked: Mutex<Vec<Asked>>,
    pub(super) told_idle: AtomicBool,
}

/// A question to the sink: where do these partitions start?
pub(super) struct Asked {
    pub(super) partitions: Vec<(Watermarks, Ticket)>,
    pub(super) answer: std_mpsc::Receiver<Vec<i64>>,
}

impl Context {
    pub(super) fn new(config: IngestConfig, control: Arc<Control>, events: Sender) -> Self {
        Self {
            config,
            control,
            events,
            pending: Mutex::default(),
            is_full: AtomicBool::new(false),
            held: Mutex::new(Held::new()),
            asked: Mutex::default(),
            told_idle: AtomicBool::new(false),
        }
    }

    pub(super) fn take_pending(&self) -> Chunk {
        self.is_full.store(false, Ordering::Relaxed);
        let next = lock(&self.control.spare).pop().unwrap_or_default();
        std::mem::replace(&mut *lock(&self.pending), next)
    }

    fn keys(&self, partitions: &TopicPartitionList) -> Vec<PartitionKey> {
        let topics = self.control.topics.now();
        let index = |name: &str| topics.index(name);
        let elements = partitions.elements();
        elements.iter().filter_map(|element| Some((index(element.topic())?, element.partition()))).collect()
    }

    /// Asks the sink where the partitions start, which are parked. What Kafka holds of them is as of that moment.
    pub(super) fn ask(&self, generation: Generation, as_of: Instant, watermarks: Vec<Watermarks>) -> Asked {
        let (starts, answer) = std_mpsc::sync_channel(1);
        let ask = |found: &Watermarks| Some((*found, lock(&self.held).ask(found.partition)?));
        let partitions: Vec<(Watermarks, Ticket)> = watermarks.iter().filter_map(ask).collect();
        let watermarks = partitions.iter().map(|(found, _)| *found).collect();
        self.events.news(News::Assigned { generation, partitions: watermarks, as_of, starts });
        Asked { partitions, answer }
    }

    /// The partition is read from `start` on.
    pub(super) fn open(&self, topics: &ReadTopics, watermarks: &Watermarks, start: i64) {
        let (topic, partition) = watermarks.partition;
        lock(&self.held).open(watermarks.partition, start, watermarks.high);
        events::assigned(&self.config.job, &topics.list[topic].config.topic, partition, start);
    }

    /// Says how many partitions are parked, if that has changed.
    pub(super) fn show_parked(&self) {
        if let Some(parked) = lock(&self.held).parked_news() {
            events::parked_partitions(&self.config.job, parked);
        }
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) -> Result<()> {
        let keys = self.keys(partitions);
        let generation = {
            let mut held = lock(&self.held);
            // Also of partitions that are parked: they are left again like any other.
            (held.assigned, held.generation) = (true, held.generation + 1);
            held.disturb();
            keys.iter().for_each(|key| held.park(*key));
            held.generation
        };
        // The client keeps "paused" with a partition also after it has left us: one that left while reading was paused, for a
        // rebalance or to have its positions read again, would come back paused, and nobody would ever resume it.
        consumer.resume(&partitions.clone())?;
        let prepared = self.prepare(consumer, partitions, &keys, generation);
        let topics = self.control.topics.now();
        let parked: Vec<PartitionKey> = lock(&self.held).unopened(&keys);
        hold_still(consumer, &topics, partitions, &parked)?;
        for (topic, partition) in parked {
            events::parked(&self.config.job, &topics.list[topic].config.topic, partition);
        }
        self.show_parked();
        prepared
    }

    /// Finds out where the partitions start, and writes that into the assignment, as far as it can be had in time.
    fn prepare(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &TopicPartitionList,
        keys: &[PartitionKey],
        generation: Generation,
    ) -> Result<()> {
        let (as_of, topics) = (Instant::now(), self.control.topics.now());
        let give_up = as_of + self.config.between_polls(LOOK_UP_WAIT);
        let (client, config, control) = (consumer, &self.config, &*self.control);
        let found = LookUp { client, config, control, topics: &topics, give_up }.watermarks(keys)?;
        for trouble in &found.troubles {
            events::client_trouble(&self.config.job, trouble);
        }
        let asked = self.ask(generation, as_of, found.watermarks);
        match asked.answer.recv_timeout(self.config.between_polls(ANSWER_WAIT)) {
            Ok(starts) => {
                for ((watermarks, _), start) in asked.partitions.iter().zip(starts) {
                    let (topic, partition) = watermarks.partition;
                    let element = partitions.find_partition(&topics.list[topic].config.topic, partition);
                    if let Some(mut element) = element {
                        element.set_offset(Offset::Offset(start))?;
                        self.open(&topics, watermarks, start);
                    }
                }
            }
            // It is busy with a commit, or waits for storage.
            Err(std_mpsc::RecvTimeoutError::Timeout) => lock(&self.asked).push(asked),
            // It has failed and says so itself, or has asked for another assignment.
            Err(std_mpsc::RecvTimeoutError::Disconnected) => self.declined(&asked),
        }
        Ok(())
    }

    /// The sink does not say where to start: the partitions are looked up again.
    pub(super) fn declined(&self, asked: &Asked) {
        let mut held = lock(&self.held);
        for (watermarks, ticket) in &asked.partitions {
            held.decline(watermarks.partition, *ticket);
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        if !matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
            // All of it ends, and another assignment follows. Else what is not named goes on, if only nothing.
            lock(&self.held).assigned = false;
        }
        lock(&self.held).disturb();
        let keys = self.keys(partitions);
        // In order: first what was read of them, then that they are gone.
        let chunk = self.take_pending();
        if !chunk.entries.is_empty() {
            self.events.last(chunk);
        }
        let (done, answer) = std_mpsc::sync_channel(1);
        self.events.news(News::Revoked { partitions: keys.clone(), done });
        answer.recv_timeout(self.config.between_polls(REVOKE_WAIT)).ok();
        let topics = self.control.topics.now();
        for key in keys {
            lock(&self.held).remove(key);
            let (job, topic, partition) = (&self.config.job, &topics.list[key.0].config.topic, key.1);
            // Its lag is another member's to tell: a gauge that kept its last value would look like a stalled reader. Of one
            // that comes back and is not read, the number of parked partitions tells.
            events::Lag { job, topic, partition, messages: 0 }.emit();
            events::revoked(job, topic, partition);
        }
        // What stays is fetched again from here on, however long this took.
        lock(&self.held).disturb();
        self.show_parked();
    }

    /// Of the consumer protocol (KIP-848) a member that is given nothing hears nothing.
    fn see_idle(&self, statistics: &Statistics) {
        let is_up = |state: &str, age_ms: i64| state == "up" && age_ms >= IDLE_AFTER_MS;
        let Some(group) = statistics.cgrp.as_ref().filter(|group| is_up(&group.state, group.stateage)) else { return };
        let has_heard = lock(&self.held).generation > 0;
        let is_told = || self.told_idle.swap(true, Ordering::Relaxed);
        if group.assignment_size == 0 && !has_heard && self.config.is_of_consumer_protocol() && !is_told() {
            self.events.news(News::NothingAssigned);
        }
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                if let Err(error) = self.assign(consumer, partitions) {
                    self.events.news(News::Failed(error));
                }
            }
            Rebalance::Revoke(partitions) => self.revoke(consumer, partitions),
            Rebalance::Error(error) => events::client_trouble(&self.config.job, error),
        }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        token::read(&self.config)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        events::client_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, _reason: &str) {
        // The end of a partition is news, not trouble; the client reports it here too.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        events::client_trouble(&self.config.job, &error);
    }

    fn stats(&self, statistics: Statistics) {
        self.see_idle(&statistics);
        let topics = self.control.topics.now();
        let mut held = lock(&self.held);
        let offsets: Vec<(PartitionKey, i64)> = held.next_offsets().collect();
        for ((topic, partition), next) in offsets {
            let name = &topics.list[topic].config.topic;
            let Some(seen) = statistics.topics.get(name).and_then(|topic| topic.partitions.get(&partition)) else {
                continue;
            };
            held.observe((topic, partition), seen);
            let messages = (seen.hi_offset - next).max(0);
            events::Lag { job: &self.config.job, topic: name, partition, messages }.emit();
        }
    }
}
