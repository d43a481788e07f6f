//! From the buffer to Kafka: an idempotent producer that never gives up.
//!
//! Every durable message is produced in its order, with `acks=all` and without a time limit, so that an outage of any
//! length only fills the disk. The header `bridge` holds the message's position, `<segment id>/<index>`: whatever is
//! delivered twice (a crash came between Kafka's acknowledgement and our note of it) carries the same header twice.
//!
//! Three kinds of failure come back from the client. One that concerns the message alone (too large for the broker, a
//! value that the broker refuses) is counted, logged and dropped: waiting would stop everything behind it. One that
//! ends the producer's sequence (a *fatal* error) makes a new producer, which starts again at the oldest message that
//! is not acknowledged. Any other is tried again.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::statistics::Statistics;

use crate::buffer::{Buffer, Ledger, Position, Read, Reader};
use crate::message::{Message, Signal};
use crate::{BridgeConfig, BridgeError, Result, events};

/// Header of every message: its position in the buffer.
pub const HEADER: &str = "bridge";

/// How long an idle loop waits for news.
const IDLE: Duration = Duration::from_millis(100);
/// How long a message that Kafka did not take waits.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Messages that may wait for another try before nothing new is read.
const MOST_AGAIN: usize = 1_000;
/// How often the acknowledged position is written down.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// What the outside may know of the delivery.
#[derive(Debug, Default)]
pub(crate) struct Status {
    pub(crate) kafka_up: AtomicBool,
    pub(crate) delivered: [AtomicU64; 3],
    pub(crate) refused: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) left: AtomicU64,
    pub(crate) stopping: AtomicBool,
}

/// What a message carries to its delivery report.
struct Sent {
    position: Position,
    signal: Signal,
}

/// A delivery report.
enum Report {
    Delivered(Sent),
    Failed(Sent, Message, KafkaError),
}

struct Context {
    reports: Mutex<Vec<Report>>,
    status: Arc<Status>,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let up = statistics.brokers.values().any(|broker| broker.state == "UP");
        if self.status.kafka_up.swap(up, Ordering::Relaxed) != up {
            events::kafka_is(up);
        }
    }

    fn error(&self, error: KafkaError, _reason: &str) {
        events::client_trouble(&error);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        let report = match result {
            Ok(_) => Report::Delivered(*sent),
            Err((error, message)) => {
                let key = message.key().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
                let payload = message.payload().unwrap_or_default().to_vec();
                let message = Message { signal: sent.signal, key, payload };
                Report::Failed(*sent, message, error.clone())
            }
        };
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}

/// The client's settings: the operator's under ours.
pub(crate) fn client_config(config: &BridgeConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("linger.ms", "20").set("compression.type", "lz4").set("client.id", "weir-bridge");
    // What waits in memory is bounded; the rest waits on disk.
    client.set("queue.buffering.max.kbytes", "32768").set("queue.buffering.max.messages", "50000");
    for (name, value) in &config.kafka {
        client.set(name, value);
    }
    client
        .set("bootstrap.servers", &config.brokers)
        .set("enable.idempotence", "true") // implies acks=all and order within a partition
        .set("message.timeout.ms", "0") // no limit
        .set("allow.auto.create.topics", "false")
        .set("statistics.interval.ms", "1000")
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
    client
}

pub(crate) struct Delivery {
    config: BridgeConfig,
    buffer: Arc<Buffer>,
    ledger: Ledger,
    reader: Reader,
    status: Arc<Status>,
    producer: BaseProducer<Context>,
    /// Messages that Kafka did not take, in the order of their reports.
    again: VecDeque<(Position, Message)>,
    /// Not before this moment.
    again_at: Instant,
    /// One that was read while the client's queue was full.
    held: Option<(Position, Message)>,
    /// Read, and not yet acknowledged.
    in_flight: u64,
}

impl Delivery {
    pub(crate) fn new(config: BridgeConfig, buffer: Arc<Buffer>, ledger: Ledger, status: Arc<Status>) -> Result<Self> {
        let producer = producer(&config, &status)?;
        let reader = buffer.reader();
        events::kafka_not_asked_yet();
        Ok(Self {
            config,
            buffer,
            ledger,
            reader,
            status,
            producer,
            again: VecDeque::new(),
            again_at: Instant::now(),
            held: None,
            in_flight: 0,
        })
    }

    /// Delivers until the buffer is closed and Kafka has everything, or the time to drain is over.
    pub(crate) fn run(mut self) -> Result<()> {
        let mut saved = Instant::now();
        let mut give_up_at = None;
        loop {
            self.producer.poll(Duration::ZERO);
            let reports = self.take_reports()?;
            let produced = self.produce()?;
            if reports > 0 {
                self.buffer.remove_finished(&mut self.ledger);
            }
            if saved.elapsed() >= SAVE_EVERY {
                saved = Instant::now();
                events::unacknowledged(self.buffer.unacknowledged(&self.ledger));
                self.save();
            }
            if self.status.stopping.load(Ordering::Relaxed) && self.buffer.is_closed() {
                let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + self.config.drain);
                let left = self.buffer.unacknowledged(&self.ledger);
                if left == 0 || Instant::now() >= give_up_at {
                    self.buffer.remove_finished(&mut self.ledger);
                    self.save();
                    events::unacknowledged(left);
                    self.status.left.store(left, Ordering::Relaxed);
                    return Ok(());
                }
            }
            if reports == 0 && produced == 0 {
                if self.in_flight > 0 || !self.again.is_empty() {
                    self.producer.poll(IDLE / 5);
                } else {
                    // Keeps the statistics coming while nothing is sent.
                    self.buffer.wait(IDLE);
                }
            }
        }
    }

    fn save(&mut self) {
        if let Err(error) = self.buffer.save(&mut self.ledger) {
            events::not_saved(&error);
        }
    }

    /// Hands messages to the client until its queue is full or there is nothing more; how many.
    fn produce(&mut self) -> Result<u64> {
        let mut produced = 0;
        while produced < 10_000 {
            let (position, message) = match self.take_next() {
                Some(next) => next,
                None => break,
            };
            match self.send(position, &message) {
                Ok(()) => {
                    self.in_flight += 1;
                    produced += 1;
                }
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => {
                    self.held = Some((position, message));
                    break;
                }
                Err(error) => self.failed(position, message, error),
            }
        }
        Ok(produced)
    }

    fn take_next(&mut self) -> Option<(Position, Message)> {
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        if !self.again.is_empty() && Instant::now() >= self.again_at {
            return self.again.pop_front();
        }
        if self.again.len() >= MOST_AGAIN {
            return None;
        }
        loop {
            match self.reader.next() {
                // An earlier producer, or an earlier run, delivered it.
                Read::Message(position, _) if self.ledger.has(position) => {}
                Read::Message(position, message) => return Some((position, message)),
                Read::Nothing => return None,
                Read::Lost(from, count, error) => {
                    events::lost(from.number, from.index, count, &error);
                    self.status.lost.fetch_add(count, Ordering::Relaxed);
                    for index in from.index..from.index + count {
                        self.ledger.acknowledge(Position { index, ..from });
                    }
                    self.buffer.remove_finished(&mut self.ledger);
                }
            }
        }
    }

    fn send(&self, position: Position, message: &Message) -> Result<(), KafkaError> {
        let at = format!("{:016x}/{}", position.id, position.index);
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: HEADER, value: Some(&at) });
        let sent = Box::new(Sent { position, signal: message.signal });
        let mut record = BaseRecord::<str, [u8], Box<Sent>>::with_opaque_to(self.config.topic(message.signal), sent)
            .payload(&message.payload)
            .headers(headers);
        if !message.key.is_empty() {
            record = record.key(&message.key);
        }
        self.producer.send(record).map_err(|(error, _)| error)
    }

    fn take_reports(&mut self) -> Result<usize> {
        let reports =
            std::mem::take(&mut *self.producer.context().reports.lock().unwrap_or_else(PoisonError::into_inner));
        let count = reports.len();
        for report in reports {
            self.in_flight = self.in_flight.saturating_sub(1);
            match report {
                Report::Delivered(Sent { position, signal }) => {
                    self.ledger.acknowledge(position);
                    self.status.delivered[signal.index()].fetch_add(1, Ordering::Relaxed);
                    events::delivered(signal);
                }
                Report::Failed(sent, message, error) => self.failed(sent.position, message, error),
            }
        }
        let fatal = self.producer.client().fatal_error();
        if let Some((code, why)) = fatal {
            events::producer_restarted(&format!("{code}: {why}"));
            // Reports of the old producer die with it: what it had in flight is read and sent again.
            self.producer = producer(&self.config, &self.status)?;
            self.reader.rewind();
            self.again.clear();
            self.held = None;
            self.in_flight = 0;
        }
        Ok(count)
    }

    fn failed(&mut self, position: Position, message: Message, error: KafkaError) {
        use RDKafkaErrorCode as Code;
        let topic = self.config.topic(message.signal);
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge | Code::InvalidRecord | Code::InvalidMessageSize) => {
                events::refused(topic, position.number, position.index, &error);
                self.status.refused.fetch_add(1, Ordering::Relaxed);
                self.ledger.acknowledge(position);
                self.buffer.remove_finished(&mut self.ledger);
            }
            _ => {
                events::not_delivered(topic, &error);
                self.again_at = Instant::now() + AGAIN_AFTER;
                self.again.push_back((position, message));
            }
        }
    }
}

fn producer(config: &BridgeConfig, status: &Arc<Status>) -> Result<BaseProducer<Context>> {
    let context = Context { reports: Mutex::default(), status: status.clone() };
    client_config(config).create_with_context(context).map_err(client_error)
}

fn client_error(error: KafkaError) -> BridgeError {
    match error {
        KafkaError::ClientConfig(_, _, name, _) => BridgeError::Setting { name },
        other => BridgeError::Kafka(other),
    }
}

/// Asks the brokers for the topics of the configured signals.
///
/// # Errors
/// [`BridgeError::Unreachable`] when no broker answers, [`BridgeError::MissingTopic`] for the first topic that is not
/// there, [`BridgeError::Setting`].
pub async fn probe(config: &BridgeConfig, within: Duration) -> Result<()> {
    config.check()?;
    let config = config.clone();
    let asked = tokio::task::spawn_blocking(move || ask(&config, within)).await;
    asked.map_err(|error| BridgeError::Thread(error.to_string()))?
}

fn ask(config: &BridgeConfig, within: Duration) -> Result<()> {
    let brokers = || config.brokers.clone();
    let client: BaseProducer = client_config(config).create().map_err(client_error)?;
    let metadata = client
        .client()
        .fetch_metadata(None, within)
        .map_err(|_| BridgeError::Unreachable { brokers: brokers(), waited_s: within.as_secs() })?;
    let known: BTreeSet<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
    for signal in &config.signals {
        let topic = config.topic(*signal);
        if !known.contains(topic) {
            return Err(BridgeError::MissingTopic {
                topic: topic.to_owned(),
                brokers: brokers(),
                signal: signal.name(),
            });
        }
    }
    Ok(())
}
