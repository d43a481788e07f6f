//! Where produced events go: a Kafka cluster or a file of JSON lines.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use crate::cli::{Common, Sink};
use crate::error::{Failure, Result};
use crate::lines::{Lines, STDOUT};

/// The topics of the three contracts: what `weir run` reads by default, and what `--create-topics` makes, so that a broker
/// that was only just started is ready for both.
pub const TOPICS: [&str; 3] = ["requests", "feedback", "gpu_telemetry"];

/// How long a broker may take to answer before we say that it cannot be reached.
const BROKER_ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long one event may wait for its acknowledgement. A broker that is restarted is back within this; one that is gone
/// must not hold the command up for the five minutes that the client library waits by itself.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);

/// A destination of events.
pub enum Output {
    Kafka(KafkaOutput),
    Lines(Lines),
}

impl Output {
    /// Opens what the command line named. `topics` must exist on the cluster, or are created when `partitions` is given.
    pub async fn open(sink: &Sink, topics: &[&str], partitions: Option<i32>) -> Result<Self> {
        match (&sink.brokers, &sink.out) {
            (Some(brokers), _) => Ok(Self::Kafka(KafkaOutput::connect(brokers, topics, partitions).await?)),
            (None, Some(path)) => Ok(Self::Lines(Lines::open(path)?)),
            (None, None) => Err(Failure::user("name a destination: --brokers HOST:PORT or --out FILE")),
        }
    }

    /// Hands one event over. Blocks while the destination is slower than we are.
    pub fn send(&mut self, topic: &str, key: &str, payload: &[u8]) -> Result<()> {
        match self {
            Self::Kafka(kafka) => kafka.send(topic, None, key, payload),
            Self::Lines(lines) => lines.send(topic, payload),
        }
    }

    /// Waits until everything is acknowledged; the number of events that were.
    pub fn finish(self) -> Result<u64> {
        match self {
            Self::Kafka(kafka) => kafka.finish(),
            Self::Lines(lines) => lines.finish(),
        }
    }

    /// Gives up after a failure: a topic keeps what it has, a file never appears.
    fn abandon(self) -> Result<()> {
        match self {
            Self::Kafka(kafka) => kafka.finish().map(|_| ()),
            Self::Lines(_) => Ok(()),
        }
    }
}

/// Counts acknowledgements, so that "produced" means "the broker has it".
#[derive(Clone, Default)]
struct Acknowledgements {
    delivered: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    /// Why the first one failed.
    reason: Arc<OnceLock<KafkaError>>,
}

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        match result {
            Ok(_) => self.delivered.fetch_add(1, Ordering::Relaxed),
            Err((error, _)) => {
                let _kept_first = self.reason.set(error.clone());
                self.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// An idempotent producer.
pub struct KafkaOutput {
    producer: BaseProducer<Acknowledgements>,
    acknowledgements: Acknowledgements,
    brokers: String,
    sent: u64,
}

impl KafkaOutput {
    /// Connects, and checks that every topic is there before anything is sent.
    pub async fn connect(brokers: &str, topics: &[&str], partitions: Option<i32>) -> Result<Self> {
        Self::connect_within(brokers, topics, partitions, ACKNOWLEDGED_WITHIN).await
    }

    async fn connect_within(
        brokers: &str,
        topics: &[&str],
        partitions: Option<i32>,
        acknowledged_within: Duration,
    ) -> Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "20")
            .set("message.timeout.ms", acknowledged_within.as_millis().to_string())
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
        Ok(Self { producer, acknowledgements, brokers: brokers.to_owned(), sent: 0 })
    }

    /// Queues one event, for the partition that its key hashes to unless another is named; polls for acknowledgements
    /// while the queue is full, and fails as soon as any event was refused.
    pub fn send(&mut self, topic: &str, partition: Option<i32>, key: &str, payload: &[u8]) -> Result<()> {
        let mut record = BaseRecord::to(topic).key(key).payload(payload);
        record.partition = partition;
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(50));
                    self.check()?;
                }
                Err((error, _)) => return Err(Failure::outside(format!("cannot produce to topic {topic}: {error}"))),
            }
        }
        self.sent += 1;
        if self.sent.is_multiple_of(256) {
            self.producer.poll(Duration::ZERO);
            self.check()?;
        }
        Ok(())
    }

    /// An error once the broker has not taken an event: more of them would only leave a larger gap.
    fn check(&self) -> Result<()> {
        let failed = self.acknowledgements.failed.load(Ordering::Relaxed);
        if failed == 0 {
            return Ok(());
        }
        let reason = self.acknowledgements.reason.get().map_or_else(String::new, |reason| format!(" ({reason})"));
        let delivered = self.acknowledgements.delivered.load(Ordering::Relaxed);
        Err(Failure::outside(format!(
            "the broker at {} acknowledged only {delivered} of {} events{reason}: check that it runs, then produce again",
            self.brokers, self.sent
        )))
    }

    /// Events that the broker has acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.producer.poll(Duration::ZERO);
        self.acknowledgements.delivered.load(Ordering::Relaxed)
    }

    /// Pushes what is queued out now, without waiting for the linger time, and waits for as long as acknowledgements come.
    pub fn flush(&self) -> Result<()> {
        let (mut delivered, mut moved) = (0, Instant::now());
        // An event that is not acknowledged in time fails by itself, so this ends; the second limit is for a client that
        // reports nothing at all.
        while self.producer.flush(Duration::from_millis(500)).is_err() {
            self.check()?;
            let now_delivered = self.acknowledgements.delivered.load(Ordering::Relaxed);
            if now_delivered > delivered {
                (delivered, moved) = (now_delivered, Instant::now());
            } else if moved.elapsed() > 2 * ACKNOWLEDGED_WITHIN {
                return Err(Failure::outside(format!(
                    "the broker at {} acknowledged nothing for {} s: check that it runs, then produce again",
                    self.brokers,
                    moved.elapsed().as_secs()
                )));
            }
        }
        self.check()
    }

    fn finish(self) -> Result<u64> {
        self.flush()?;
        Ok(self.acknowledgements.delivered.load(Ordering::Relaxed))
    }
}

/// Creates the topics that the cluster lacks.
pub async fn create_topics(config: &ClientConfig, topics: &[&str], partitions: i32) -> Result<()> {
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

/// Says what was produced: on standard output, unless the events are there; then on standard error.
pub fn report(common: &Common, sink: &Sink, head: &str, produced: &Produced) -> Result<()> {
    let summary = if common.json {
        serde_json::to_string(produced).map_err(|error| Failure::ours(format!("cannot print JSON: {error}")))?
    } else {
        format!("{head}{produced}")
    };
    if sink.out.as_deref() == Some(Path::new(STDOUT)) {
        eprintln!("{summary}");
    } else {
        println!("{summary}");
    }
    Ok(())
}

/// Sends every event, as fast as the destination takes them.
pub fn all(output: Output, events: impl Iterator<Item = weir_traffic::Timed>) -> Result<Produced> {
    all_or_error(output, events.map(Ok))
}

/// The same for a source that can fail; then a topic keeps what was sent before, and a file never appears.
pub fn all_or_error(mut output: Output, events: impl Iterator<Item = Result<weir_traffic::Timed>>) -> Result<Produced> {
    let mut produced = Produced::default();
    for timed in events {
        let timed = match timed {
            Ok(timed) => timed,
            Err(failure) => {
                output.abandon()?;
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

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_broker_that_dies_while_we_produce_is_an_error_within_the_timeout() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("requests", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let within = Duration::from_secs(2);
        let mut output = KafkaOutput::connect_within(&brokers, &["requests"], None, within).await.unwrap();
        for _ in 0..500 {
            output.send("requests", None, "key", b"{}").unwrap();
        }
        output.flush().unwrap();
        assert_eq!(output.acknowledged(), 500);

        cluster.broker_down(1).unwrap();
        let died = Instant::now();
        let failure = loop {
            if let Err(failure) = output.send("requests", None, "key", b"{}") {
                break failure;
            }
            assert!(died.elapsed() < Duration::from_secs(20), "events went on into the void");
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(failure.exit_code(), 3);
        let said = failure.to_string();
        assert!(
            said.contains(&brokers) && said.contains("acknowledged only 500 of") && said.contains("check"),
            "{said}"
        );
        assert!(output.finish().is_err(), "the end of the command must not hide it");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_topic_that_the_cluster_lacks_is_named_before_anything_is_sent() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("requests", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let failure = KafkaOutput::connect(&brokers, &["requests", "feedback"], None).await.err().unwrap();
        let said = failure.to_string();
        assert_eq!(failure.exit_code(), 2);
        assert!(said.contains("feedback") && said.contains(&brokers) && said.contains("--create-topics"), "{said}");
    }
}
