//! Where produced events go: a Kafka cluster or a file of JSON lines.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use crate::cli::Sink;
use crate::error::{Failure, Result};

/// The topics of the three contracts: what `weir run` reads by default, and what `--create-topics` makes, so that a broker
/// that was only just started is ready for both.
pub const TOPICS: [&str; 3] = ["requests", "feedback", "gpu_telemetry"];

/// How long a broker may take to answer before we say that it cannot be reached.
const BROKER_ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// A destination of events.
pub enum Output {
    Kafka(KafkaOutput),
    Lines(Box<dyn Write + Send>, u64),
}

impl Output {
    /// Opens what the command line named. `topics` must exist on the cluster, or are created when `partitions` is given.
    pub async fn open(sink: &Sink, topics: &[&str], partitions: Option<i32>) -> Result<Self> {
        match (&sink.brokers, &sink.out) {
            (Some(brokers), _) => Ok(Self::Kafka(KafkaOutput::connect(brokers, topics, partitions).await?)),
            (None, Some(path)) if path == Path::new("-") => {
                Ok(Self::Lines(Box::new(BufWriter::new(std::io::stdout())), 0))
            }
            (None, Some(path)) => {
                let file = File::create(path)
                    .map_err(|error| Failure::user(format!("cannot write {}: {error}", path.display())))?;
                Ok(Self::Lines(Box::new(BufWriter::new(file)), 0))
            }
            (None, None) => Err(Failure::user("name a destination: --brokers HOST:PORT or --out FILE")),
        }
    }

    /// Hands one event over. Blocks while the destination is slower than we are.
    pub fn send(&mut self, topic: &str, key: &str, payload: &[u8]) -> Result<()> {
        match self {
            Self::Kafka(kafka) => kafka.send(topic, key, payload),
            Self::Lines(out, count) => {
                *count += 1;
                write!(out, "{{\"topic\":\"{topic}\",\"event\":")
                    .and_then(|()| out.write_all(payload))
                    .and_then(|()| out.write_all(b"}\n"))
                    .map_err(|error| Failure::outside(format!("cannot write events: {error}")))
            }
        }
    }

    /// Waits until everything is acknowledged; the number of events that were.
    pub fn finish(self) -> Result<u64> {
        match self {
            Self::Kafka(kafka) => kafka.finish(),
            Self::Lines(mut out, count) => {
                out.flush().map_err(|error| Failure::outside(format!("cannot write events: {error}")))?;
                Ok(count)
            }
        }
    }
}

/// Counts acknowledgements, so that "produced" means "the broker has it".
#[derive(Clone, Default)]
struct Acknowledgements {
    delivered: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        match result {
            Ok(_) => self.delivered.fetch_add(1, Ordering::Relaxed),
            Err(_) => self.failed.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// An idempotent producer.
pub struct KafkaOutput {
    producer: BaseProducer<Acknowledgements>,
    acknowledgements: Acknowledgements,
    sent: u64,
}

impl KafkaOutput {
    /// Connects, and checks that every topic is there before anything is sent.
    pub async fn connect(brokers: &str, topics: &[&str], partitions: Option<i32>) -> Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "20")
            .set("compression.type", "lz4")
            .set("allow.auto.create.topics", "false")
            .set("log_level", "0");
        let acknowledgements = Acknowledgements::default();
        let producer: BaseProducer<Acknowledgements> = config
            .create_with_context(acknowledgements.clone())
            .map_err(|error| Failure::user(format!("cannot use brokers {brokers}: {error}")))?;
        if let Some(partitions) = partitions {
            create_topics(&config, &TOPICS, partitions).await?;
        }
        let metadata = producer.client().fetch_metadata(None, BROKER_ANSWERS_WITHIN).map_err(|error| {
            Failure::outside(format!(
                "no Kafka broker answered at {brokers} within {} s ({error}): check that it runs and that the address is right",
                BROKER_ANSWERS_WITHIN.as_secs()
            ))
        })?;
        for topic in topics {
            if !metadata.topics().iter().any(|known| known.name() == *topic && known.error().is_none()) {
                return Err(Failure::user(format!(
                    "topic {topic} does not exist on {brokers}: create it, or pass --create-topics PARTITIONS"
                )));
            }
        }
        Ok(Self { producer, acknowledgements, sent: 0 })
    }

    /// Queues one event; polls for acknowledgements while the queue is full.
    pub fn send(&mut self, topic: &str, key: &str, payload: &[u8]) -> Result<()> {
        let mut record = BaseRecord::to(topic).key(key).payload(payload);
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(50));
                }
                Err((error, _)) => return Err(Failure::outside(format!("cannot produce to topic {topic}: {error}"))),
            }
        }
        self.sent += 1;
        if self.sent.is_multiple_of(256) {
            self.producer.poll(Duration::ZERO);
        }
        Ok(())
    }

    /// Events that the broker has acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.producer.poll(Duration::ZERO);
        self.acknowledgements.delivered.load(Ordering::Relaxed)
    }

    /// Pushes what is queued out now, without waiting for the linger time.
    pub fn flush(&self) -> Result<()> {
        self.producer
            .flush(Duration::from_secs(30))
            .map_err(|error| Failure::outside(format!("events were not acknowledged within 30 s: {error}")))
    }

    fn finish(self) -> Result<u64> {
        self.flush()?;
        let failed = self.acknowledgements.failed.load(Ordering::Relaxed);
        if failed > 0 {
            return Err(Failure::outside(format!("{failed} of {} events were refused by the broker", self.sent)));
        }
        Ok(self.acknowledgements.delivered.load(Ordering::Relaxed))
    }
}

async fn create_topics(config: &ClientConfig, topics: &[&str], partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        config.create().map_err(|error| Failure::user(format!("cannot use these brokers: {error}")))?;
    let wanted: Vec<NewTopic<'_>> =
        topics.iter().map(|topic| NewTopic::new(topic, partitions, TopicReplication::Fixed(1))).collect();
    let options =
        AdminOptions::new().operation_timeout(Some(BROKER_ANSWERS_WITHIN)).request_timeout(Some(BROKER_ANSWERS_WITHIN));
    let results = admin
        .create_topics(&wanted, &options)
        .await
        .map_err(|error| Failure::outside(format!("cannot create topics: {error}")))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(Failure::outside(format!("cannot create topic {topic}: {code}"))),
        }
    }
    Ok(())
}

/// What was produced, by topic.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Produced {
    /// Events that the destination has acknowledged.
    pub produced: u64,
    /// The same, by topic.
    pub by_topic: std::collections::BTreeMap<&'static str, u64>,
}

impl std::fmt::Display for Produced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.by_topic.iter().map(|(topic, count)| format!("{count} {topic}")).collect();
        write!(f, "{} events: {}", self.produced, parts.join(", "))
    }
}

/// Sends every event, as fast as the destination takes them.
pub fn all(output: Output, events: impl Iterator<Item = weir_traffic::Timed>) -> Result<Produced> {
    all_or_error(output, events.map(Ok))
}

/// The same for a source that can fail; what was sent before the failure is flushed.
pub fn all_or_error(mut output: Output, events: impl Iterator<Item = Result<weir_traffic::Timed>>) -> Result<Produced> {
    let mut produced = Produced::default();
    for timed in events {
        let timed = match timed {
            Ok(timed) => timed,
            Err(failure) => {
                output.finish()?;
                return Err(failure);
            }
        };
        let topic = timed.event.topic();
        output.send(topic, timed.event.key(), &timed.event.to_json())?;
        *produced.by_topic.entry(topic).or_default() += 1;
    }
    produced.produced = output.finish()?;
    Ok(produced)
}
