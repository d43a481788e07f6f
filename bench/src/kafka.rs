//! A topic of request events, and how ingest reads it.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use weir_ingest::{Encoding, Format, IngestConfig, OnDataLoss, Start, TopicConfig, TypeConflicts};

use crate::events;

/// Partitions of a topic, unless the caller wants another number.
pub const PARTITIONS: i32 = 2;

/// Ingest of this topic to its end, in commits of 100,000 rows.
pub fn ingest_config(brokers: &str, topic: &str) -> IngestConfig {
    IngestConfig {
        brokers: brokers.into(),
        group_id: format!("{topic}-group"),
        job: "bench".into(),
        topics: vec![TopicConfig {
            topic: topic.into(),
            format: Format::Requests,
            encoding: Encoding::Json,
            headers: Vec::new(),
        }],
        patterns: Vec::new(),
        flush_rows: 100_000,
        flush_bytes: 64 << 20,
        flush_interval: Duration::from_secs(10),
        stop_when_drained: true,
        keep_text: false,
        allowed_unknown: Vec::new(),
        registry: None,
        type_conflicts: TypeConflicts::default(),
        start: Start::Earliest,
        on_data_loss: OnDataLoss::Stop,
        kafka: BTreeMap::new(),
        dead_letter_days: 14,
        storage_patience: IngestConfig::STORAGE_PATIENCE,
    }
}

/// Creates the topic and fills it with events; the bytes that went in.
pub async fn fill(brokers: &str, topic: &str, partitions: i32, messages: u64) -> Result<usize, Box<dyn Error>> {
    create(brokers, topic, partitions).await?;
    let producer = producer(brokers, "50")?;
    let mut bytes = 0;
    for n in 0..messages {
        let payload = events::event(n);
        bytes += payload.len();
        send(&producer, topic, n, &payload)?;
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(bytes)
}

/// Fills a topic for other programs, and prints how many bytes went in.
pub fn produce(brokers: &str, topic: &str, messages: u64, partitions: i32) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bytes = runtime.block_on(fill(brokers, topic, partitions, messages))?;
    println!("{}", serde_json::json!({"events": messages, "partitions": partitions, "bytes": bytes}));
    Ok(())
}

/// Creates the topic.
pub async fn create(brokers: &str, topic: &str, partitions: i32) -> Result<(), Box<dyn Error>> {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create()?;
    let wanted = [NewTopic::new(topic, partitions, TopicReplication::Fixed(1))];
    for result in admin.create_topics(&wanted, &AdminOptions::new()).await? {
        result.map_err(|(name, code)| format!("cannot create topic {name}: {code}"))?;
    }
    Ok(())
}

/// A producer that writes every message once, and waits so long for a batch to fill.
pub fn producer(brokers: &str, linger_ms: &str) -> Result<BaseProducer, KafkaError> {
    client(brokers).set("linger.ms", linger_ms).set("enable.idempotence", "true").create()
}

/// Hands one message to the producer, waiting while its queue is full.
pub fn send(producer: &BaseProducer, topic: &str, n: u64, payload: &[u8]) -> Result<(), KafkaError> {
    let key = n.to_string();
    let mut record = BaseRecord::to(topic).key(&key).payload(payload);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(20));
            }
            Err((error, _)) => return Err(error),
        }
    }
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}
