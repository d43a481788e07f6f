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
use weir_ingest::{Format, IngestConfig, Start, TopicConfig};

use crate::events;

/// Partitions of the topic.
pub const PARTITIONS: i32 = 2;

/// Ingest of this topic to its end, in commits of 100,000 rows.
pub fn ingest_config(brokers: &str, topic: &str) -> IngestConfig {
    IngestConfig {
        brokers: brokers.into(),
        group_id: format!("{topic}-group"),
        job: "bench".into(),
        topics: vec![TopicConfig { topic: topic.into(), format: Format::Requests }],
        flush_rows: 100_000,
        flush_bytes: 64 << 20,
        flush_interval: Duration::from_secs(10),
        stop_when_drained: true,
        keep_text: false,
        allowed_unknown: Vec::new(),
        start: Start::Earliest,
        kafka: BTreeMap::new(),
        dead_letter_days: 14,
    }
}

/// Creates the topic and fills it; the bytes that went in.
pub async fn fill(brokers: &str, topic: &str, messages: u64) -> Result<usize, Box<dyn Error>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("linger.ms", "50").set("enable.idempotence", "true");
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let wanted = [NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1))];
    for result in admin.create_topics(&wanted, &AdminOptions::new()).await? {
        result.map_err(|(name, code)| format!("cannot create topic {name}: {code}"))?;
    }
    let producer: BaseProducer = config.create()?;
    let mut bytes = 0;
    for n in 0..messages {
        let payload = events::event(n);
        bytes += payload.len();
        let key = n.to_string();
        let mut record = BaseRecord::to(topic).key(&key).payload(&payload);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    producer.poll(Duration::from_millis(20));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(bytes)
}
