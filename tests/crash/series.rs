//! The topics of a series: produced once, read back once with a plain client, and read by every seed.
//!
//! What Kafka holds is what counts, offsets included. So the truth is what a reader of committed messages finds there,
//! after each message has been compared with the one that was meant to be sent: each number once, in its partition,
//! byte for byte, and nothing else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use crate::truth::{self, Fate, TOPICS, Table, Topic};

const WAIT: Duration = Duration::from_secs(60);
/// Messages of a transaction; before every third one, a shorter one is aborted.
const TRANSACTION: u64 = 20_000;
const ABORTED: u64 = 300;
/// Key of messages that nobody may read.
const NOBODY: u64 = u64::MAX;

/// A topic-partition.
pub type Partition = (Topic, i32);

/// A row that must be in a table once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    pub offset: i64,
    pub digest: u64,
    /// Of the message that it came from.
    pub number: u64,
}

/// What Kafka holds, and what must become of it.
pub struct Truth {
    /// Messages, those without a value and those that cannot be read included.
    pub events: u64,
    /// Rows by table and source, by offset and digest.
    pub rows: BTreeMap<(Table, Partition), Vec<Expected>>,
    /// Offsets and numbers of what cannot be read.
    pub dead: BTreeMap<Partition, Vec<(i64, u64)>>,
    /// One past the last offset.
    pub ends: BTreeMap<Partition, i64>,
}

/// Produces the topics and reads them back.
pub fn produce(brokers: &str, events: u64) -> Truth {
    assert!(events <= truth::NUMBERS_MAX, "a series has at most {} events", truth::NUMBERS_MAX);
    create_topics(brokers);
    for topic in TOPICS {
        send_all(brokers, topic, topic.count(events));
    }
    read_back(brokers, events)
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

fn create_topics(brokers: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let admin: AdminClient<DefaultClientContext> = client(brokers).create().expect("an admin client starts");
    let wanted: Vec<NewTopic<'_>> = TOPICS
        .iter()
        .map(|topic| NewTopic::new(topic.name(), topic.partitions(), TopicReplication::Fixed(1)))
        .collect();
    let created = runtime.block_on(admin.create_topics(&wanted, &AdminOptions::new().operation_timeout(Some(WAIT))));
    for result in created.expect("the broker answers") {
        result.expect("a topic is created");
    }
}

fn send_all(brokers: &str, topic: Topic, count: u64) {
    let mut config = client(brokers);
    config.set("enable.idempotence", "true").set("linger.ms", "20").set("compression.type", "lz4");
    if topic.is_transactional() {
        config.set("transactional.id", topic.name());
    }
    let producer: BaseProducer = config.create().expect("a producer starts");
    if !topic.is_transactional() {
        (0..count).for_each(|number| send(&producer, topic, number, number));
        producer.flush(WAIT).expect("all is acknowledged");
        return;
    }
    producer.init_transactions(WAIT).expect("transactions are to be had");
    for (index, first) in (0..count).step_by(usize::try_from(TRANSACTION).unwrap_or(usize::MAX)).enumerate() {
        if index % 3 == 0 {
            producer.begin_transaction().expect("a transaction begins");
            (first..first + ABORTED).for_each(|number| send(&producer, topic, number, NOBODY));
            producer.flush(WAIT).expect("all is acknowledged");
            producer.abort_transaction(WAIT).expect("a transaction is aborted");
        }
        producer.begin_transaction().expect("a transaction begins");
        (first..count.min(first + TRANSACTION)).for_each(|number| send(&producer, topic, number, number));
        producer.commit_transaction(WAIT).expect("a transaction is committed");
    }
}

fn send(producer: &BaseProducer, topic: Topic, number: u64, key: u64) {
    let payload =
        if key == NOBODY { Some(truth::readable(topic, number)) } else { truth::message(topic, number).payload };
    let key = key.to_le_bytes();
    let mut record = BaseRecord::to(topic.name()).key(&key).partition(truth::partition(topic, number));
    record.payload = payload.as_ref();
    while let Err((error, back)) = producer.send(record) {
        let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
        assert_eq!(error, full, "a message was not taken");
        record = back;
        producer.poll(Duration::from_millis(20));
    }
    if number.is_multiple_of(512) {
        producer.poll(Duration::ZERO);
    }
}

fn read_back(brokers: &str, events: u64) -> Truth {
    let consumer: BaseConsumer = client(brokers)
        .set("group.id", "crash-truth")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .create()
        .expect("a consumer starts");
    let mut from_the_start = TopicPartitionList::new();
    let mut truth = Truth { events: 0, rows: BTreeMap::new(), dead: BTreeMap::new(), ends: BTreeMap::new() };
    for topic in TOPICS {
        for partition in 0..topic.partitions() {
            from_the_start.add_partition_offset(topic.name(), partition, Offset::Beginning).expect("an offset fits");
            let (_, end) = consumer.fetch_watermarks(topic.name(), partition, WAIT).expect("the broker knows its ends");
            truth.ends.insert((topic, partition), end);
            truth.dead.insert((topic, partition), Vec::new());
            for table in topic.feeds() {
                truth.rows.insert((*table, (topic, partition)), Vec::new());
            }
        }
    }
    consumer.assign(&from_the_start).expect("partitions are assigned");
    let mut seen: BTreeMap<Topic, Vec<bool>> =
        TOPICS.iter().map(|topic| (*topic, vec![false; usize::try_from(topic.count(events)).unwrap_or(0)])).collect();
    let mut last = Instant::now();
    while truth.events < events {
        assert!(last.elapsed() < WAIT, "only {} of {events} messages can be read back", truth.events);
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.expect("messages can be read back");
        last = Instant::now();
        let topic = TOPICS.into_iter().find(|topic| topic.name() == message.topic()).expect("one of ours");
        let number = u64::from_le_bytes(message.key().and_then(|key| key.try_into().ok()).expect("keys are numbers"));
        assert_ne!(number, NOBODY, "a message of an aborted transaction was read");
        let seen = &mut seen.get_mut(&topic).expect("all topics are there")[usize::try_from(number).expect("a number")];
        assert!(!std::mem::replace(seen, true), "{} holds number {number} twice", topic.name());
        truth.take(topic, message.partition(), message.offset(), number, message.payload());
    }
    truth.rows.values_mut().for_each(|rows| rows.sort_unstable());
    truth
}

impl Truth {
    fn take(&mut self, topic: Topic, partition: i32, offset: i64, number: u64, payload: Option<&[u8]>) {
        let meant = truth::message(topic, number);
        assert_eq!(payload, meant.payload.as_deref(), "{} number {number} is not what was sent", topic.name());
        assert_eq!(partition, truth::partition(topic, number), "{} number {number} is elsewhere", topic.name());
        self.events += 1;
        match meant.fate {
            Fate::Tombstone => {}
            Fate::DeadLetter => self.dead.entry((topic, partition)).or_default().push((offset, number)),
            Fate::Rows(rows) => {
                for (table, row) in rows {
                    let expected = Expected { offset, digest: row.digest(), number };
                    self.rows.entry((table, (topic, partition))).or_default().push(expected);
                }
            }
        }
    }

    /// Rows of a table, from all its topics.
    pub fn rows_of(&self, table: Table) -> u64 {
        self.rows.iter().filter(|((of, _), _)| *of == table).map(|(_, rows)| rows.len() as u64).sum()
    }
}
