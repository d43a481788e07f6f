//! The poll thread: Kafka's side of ingest.
//!
//! A plain thread polls one `BaseConsumer` without pause, since rebalances and keep-alives ride on polling. It copies
//! messages into chunks and hands them to the sink over a bounded channel. When the channel stays full it pauses the
//! partitions and goes on polling.
//!
//! **Where reading starts** is decided inside the assignment callback: it asks the sink, which reads the tables, and
//! writes the answers into the assignment before the client sees it. So no message is ever fetched from elsewhere, and
//! there is nothing to seek. The channel keeps order: chunks read before a revocation reach the sink before it does.
//!
//! **Drained** means that every assigned partition was read to the high watermark of its assignment. A message at the
//! last offset proves it. Transaction markers and compaction can leave none there: then the client's own statistics must
//! say that it met the end of the partition, and a whole poll interval afterwards brings nothing. Those statistics are
//! stale for a moment after a pause (the client throws away what it has prefetched, and with it the truth of "met the
//! end"), so they count only once fetching has been left alone for [`SETTLED_AFTER`].
//!
//! Assignments are numbered. "Drained" is said once for each and carries its number, so that the sink can tell news of
//! the assignment that it works on from news of one whose rows it has dropped.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as std_mpsc};
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::{IngestConfig, IngestError, Result, broker, events};

/// Messages in a chunk, or fewer when less is flushed at a time.
const CHUNK_MESSAGES: usize = 2_048;
/// Payload bytes in a chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks between the poll thread and the sink.
const CHUNKS_WAITING: usize = 8;
/// How long a message waits for others of its chunk.
const CHUNK_AGE: Duration = Duration::from_millis(20);
const POLL: Duration = Duration::from_millis(50);
/// Pausing throws away what the client has prefetched, so a short jam is sat out.
const PAUSE_AFTER: Duration = Duration::from_millis(500);
/// How long a revocation waits for the sink to commit what it has. Past it the rows are fenced or read again.
const REVOKE_WAIT: Duration = Duration::from_secs(20);

/// The client reconsiders each partition at least once a second (`rkb_blocking_max_ms`), and forgets the end then.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Number of an assignment, counted from 1 in each run.
pub(crate) type Generation = u64;

/// A partition, by index of its topic.
pub(crate) type PartitionKey = (usize, i32);

/// What the poll thread tells the sink, in order.
pub(crate) enum Event {
    Messages(Chunk),
    /// Partitions came to us. The sink answers with the offsets to start from.
    Assigned {
        generation: Generation,
        partitions: Vec<Watermarks>,
        starts: std_mpsc::SyncSender<Vec<i64>>,
    },
    /// Partitions leave us. The sink commits what it has of them, then answers.
    Revoked {
        partitions: Vec<PartitionKey>,
        done: std_mpsc::SyncSender<()>,
    },
    /// Every partition of that assignment was read to the end it had then: with all below these offsets.
    Drained {
        generation: Generation,
        ends: Vec<(PartitionKey, i64)>,
    },
    /// A position is no longer in Kafka: reading the positions again will tell which.
    OffsetGone,
    Failed(IngestError),
}

/// What Kafka holds of a partition at some moment: offsets `low..high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watermarks {
    pub(crate) partition: PartitionKey,
    pub(crate) low: i64,
    pub(crate) high: i64,
}

/// Messages copied out of the client, payloads end to end.
#[derive(Default)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
}

/// One message of a chunk.
pub(crate) struct Entry {
    pub(crate) partition: PartitionKey,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: Option<i64>,
    payload: Option<Range<usize>>,
}

impl Chunk {
    pub(crate) fn payload(&self, entry: &Entry) -> Option<&[u8]> {
        entry.payload.clone().map(|range| &self.bytes[range])
    }

    pub(crate) fn push(&mut self, topic: usize, message: &impl Message) {
        let start = self.bytes.len();
        let payload = message.payload().map(|payload| {
            self.bytes.extend_from_slice(payload);
            start..self.bytes.len()
        });
        let partition = (topic, message.partition());
        let timestamp_ms = message.timestamp().to_millis().filter(|at| *at >= 0);
        self.entries.push(Entry { partition, offset: message.offset(), timestamp_ms, payload });
    }

    fn is_full(&self, flush_rows: usize) -> bool {
        self.entries.len() >= CHUNK_MESSAGES.min(flush_rows) || self.bytes.len() >= CHUNK_BYTES
    }
}

/// What the sink tells the poll thread.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stop: AtomicBool,
    rejoin: AtomicBool,
    pauses: AtomicU64,
    /// Next offsets to show in Kafka, for people.
    committed: Mutex<BTreeMap<PartitionKey, i64>>,
}

impl Control {
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Leave the group and join again, so that positions are read anew.
    pub(crate) fn rejoin(&self) {
        self.rejoin.store(true, Ordering::SeqCst);
    }

    /// How often reading was paused because the tables were slower.
    pub(crate) fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::SeqCst)
    }

    pub(crate) fn show_committed(&self, partition: PartitionKey, next: i64) {
        lock(&self.committed).insert(partition, next);
    }
}

/// The running poll thread.
pub(crate) struct Source {
    control: Arc<Control>,
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl Source {
    /// Starts the thread, which heeds `control`; events arrive on the returned channel.
    pub(crate) fn start(config: &IngestConfig, control: Arc<Control>) -> Result<(Self, mpsc::Receiver<Event>)> {
        let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
        let context = Context {
            config: config.clone(),
            topics: config.topics.iter().map(|topic| topic.topic.clone()).collect(),
            events: sender,
            pending: Mutex::default(),
            held: Mutex::new(Held::new()),
        };
        let consumer: BaseConsumer<Context> = consumer_config(config).create_with_context(context)?;
        let (end, ended) = tokio::sync::oneshot::channel();
        let mut poller = Poller { consumer, control: control.clone(), paused: false, pending_since: None };
        std::thread::Builder::new()
            .name("weir-kafka-poll".to_owned())
            .spawn(move || {
                poller.run();
                drop(poller);
                // Nobody may be waiting any more.
                end.send(()).ok();
            })
            .map_err(|_| IngestError::PollThread)?;
        Ok((Self { control, ended }, receiver))
    }

    /// Stops the thread and waits a while for it to leave the group. The channel must have been dropped.
    pub(crate) async fn end(self) {
        self.control.stop();
        tokio::time::timeout(Duration::from_secs(15), self.ended).await.ok();
    }
}

fn consumer_config(config: &IngestConfig) -> ClientConfig {
    let mut client = broker::client_config(config);
    client
        .set("group.id", &config.group_id)
        .set("enable.partition.eof", "true")
        .set("statistics.interval.ms", if config.stop_when_drained { "200" } else { "2000" });
    client
}

struct Poller {
    consumer: BaseConsumer<Context>,
    control: Arc<Control>,
    paused: bool,
    pending_since: Option<Instant>,
}

impl Poller {
    fn run(&mut self) {
        if let Err(error) = self.subscribe() {
            self.context().send(Event::Failed(error));
            return;
        }
        while !self.stopping() {
            if self.control.rejoin.swap(false, Ordering::SeqCst)
                && let Err(error) = self.rejoin()
            {
                self.context().send(Event::Failed(error));
                return;
            }
            let began = Instant::now();
            let idle = self.poll_once();
            self.hand_over(idle);
            if idle && self.pending_since.is_none() && self.context().config.stop_when_drained {
                let news = lock(&self.context().held).drained(began);
                if let Some((generation, ends)) = news {
                    self.context().send(Event::Drained { generation, ends });
                }
            }
            self.show_committed();
        }
        self.show_committed();
    }

    /// Takes one message; true when a whole poll interval brought nothing.
    fn poll_once(&mut self) -> bool {
        let began = Instant::now();
        match self.consumer.poll(POLL) {
            Some(Ok(message)) => {
                let context = self.consumer.client().context();
                if let Some(topic) = context.topics.iter().position(|topic| topic == message.topic()) {
                    lock(&context.held).read((topic, message.partition()), message.offset());
                    lock(&context.pending).push(topic, &message);
                    self.pending_since.get_or_insert_with(Instant::now);
                }
                false
            }
            Some(Err(KafkaError::PartitionEOF(_))) => false,
            Some(Err(error)) => {
                self.trouble(error);
                false
            }
            None => began.elapsed() >= POLL,
        }
    }

    fn trouble(&self, error: KafkaError) {
        let context = self.context();
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => {
                context.send(Event::OffsetGone);
            }
            _ => match broker::classify(&context.config, "a topic or the group", Duration::ZERO, error) {
                refused @ (IngestError::Refused { .. } | IngestError::MissingTopic { .. }) => {
                    context.send(Event::Failed(refused));
                }
                error if fatal => context.send(Event::Failed(error)),
                // Brokers go and come: the client reconnects by itself.
                error => events::client_trouble(&context.config.job, &error),
            },
        }
    }

    fn hand_over(&mut self, idle: bool) {
        let Some(since) = self.pending_since else { return };
        let flush_rows = self.context().config.flush_rows;
        let ripe = idle || since.elapsed() >= CHUNK_AGE || lock(&self.context().pending).is_full(flush_rows);
        if !ripe {
            return;
        }
        let patience = if self.paused { Duration::ZERO } else { PAUSE_AFTER };
        if self.context().try_send_pending(patience) {
            self.pending_since = None;
            if self.paused {
                self.set_paused(false);
            }
        } else if !self.stopping() {
            // Also while paused: an assignment that came meanwhile starts unpaused.
            self.set_paused(true);
        }
    }

    fn set_paused(&mut self, pause: bool) {
        let assignment = self.consumer.assignment();
        let changed = assignment.and_then(|partitions| {
            if pause { self.consumer.pause(&partitions) } else { self.consumer.resume(&partitions) }
        });
        if let Err(error) = changed {
            events::client_trouble(&self.context().config.job, &error);
        }
        if pause && !self.paused {
            self.control.pauses.fetch_add(1, Ordering::SeqCst);
            events::paused(&self.context().config.job);
        }
        self.paused = pause;
        lock(&self.context().held).disturbed = Instant::now();
    }

    fn subscribe(&self) -> Result<()> {
        let topics: Vec<&str> = self.context().topics.iter().map(String::as_str).collect();
        Ok(self.consumer.subscribe(&topics)?)
    }

    fn rejoin(&mut self) -> Result<()> {
        self.consumer.unsubscribe();
        let give_up = Instant::now() + REVOKE_WAIT;
        while lock(&self.context().held).assigned && Instant::now() < give_up && !self.stopping() {
            // What still arrives is of the old assignment, and the sink has dropped that.
            self.poll_once();
        }
        *lock(&self.context().pending) = Chunk::default();
        self.pending_since = None;
        self.paused = false;
        self.subscribe()
    }

    fn show_committed(&self) {
        let committed = std::mem::take(&mut *lock(&self.control.committed));
        if committed.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for ((topic, partition), next) in committed {
            list.add_partition_offset(&self.context().topics[topic], partition, Offset::Offset(next)).ok();
        }
        // For lag dashboards only: a failure costs nothing.
        self.consumer.commit(&list, CommitMode::Async).ok();
    }

    fn stopping(&self) -> bool {
        self.control.stop.load(Ordering::SeqCst) || self.context().events.is_closed()
    }

    fn context(&self) -> &Context {
        self.consumer.client().context()
    }
}

/// The client's callbacks; all run on the poll thread, inside `poll`.
struct Context {
    config: IngestConfig,
    topics: Vec<String>,
    events: mpsc::Sender<Event>,
    pending: Mutex<Chunk>,
    held: Mutex<Held>,
}

/// The assignment, and how far each partition was read.
struct Held {
    partitions: BTreeMap<PartitionKey, Reading>,
    /// False before the first assignment and while the group rebalances.
    assigned: bool,
    generation: Generation,
    /// The last assignment that was said to be drained.
    said_drained: Generation,
    /// When fetching was last started, paused or resumed.
    disturbed: Instant,
}

struct Reading {
    next: i64,
    /// High watermark at the assignment.
    high: i64,
    /// Since when the client is known to have met the end of the partition, if no message came since.
    met_end: Option<Instant>,
}

impl Reading {
    /// Is everything below the high watermark read, and did nothing come in the poll interval that `began` then?
    fn is_at_end(&self, began: Instant) -> bool {
        self.next >= self.high || self.met_end.is_some_and(|since| since <= began)
    }
}

impl Held {
    fn new() -> Self {
        Self { partitions: BTreeMap::new(), assigned: false, generation: 0, said_drained: 0, disturbed: Instant::now() }
    }

    /// The assignment and its ends when it is drained, once; the last poll interval brought nothing and `began` then.
    fn drained(&mut self, began: Instant) -> Option<(Generation, Vec<(PartitionKey, i64)>)> {
        let news = self.assigned && self.said_drained < self.generation;
        if !news || !self.partitions.values().all(|reading| reading.is_at_end(began)) {
            return None;
        }
        self.said_drained = self.generation;
        Some((self.generation, self.partitions.iter().map(|(partition, reading)| (*partition, reading.high)).collect()))
    }

    fn read(&mut self, partition: PartitionKey, offset: i64) {
        if let Some(reading) = self.partitions.get_mut(&partition) {
            reading.next = offset + 1;
            reading.met_end = None;
        }
    }
}

impl Context {
    /// Blocks while the channel is full; a sink that has gone is told nothing, and `stopping` sees it.
    fn send(&self, event: Event) {
        self.events.blocking_send(event).ok();
    }

    fn try_send_pending(&self, patience: Duration) -> bool {
        let chunk = std::mem::take(&mut *lock(&self.pending));
        if chunk.entries.is_empty() {
            return true;
        }
        let began = Instant::now();
        let mut event = Event::Messages(chunk);
        loop {
            event = match self.events.try_send(event) {
                Ok(()) | Err(TrySendError::Closed(_)) => return true,
                Err(TrySendError::Full(event)) => event,
            };
            if began.elapsed() >= patience {
                if let Event::Messages(chunk) = event {
                    *lock(&self.pending) = chunk;
                }
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn keys(&self, partitions: &TopicPartitionList) -> Vec<PartitionKey> {
        let index = |name: &str| self.topics.iter().position(|topic| topic == name);
        let elements = partitions.elements();
        elements.iter().filter_map(|element| Some((index(element.topic())?, element.partition()))).collect()
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) -> Result<()> {
        let wait = self.config.answer_within();
        let mut watermarks = Vec::new();
        for (topic, partition) in self.keys(partitions) {
            let name = &self.topics[topic];
            let (low, high) = consumer
                .fetch_watermarks(name, partition, wait)
                .map_err(|error| broker::classify(&self.config, name, wait, error))?;
            watermarks.push(Watermarks { partition: (topic, partition), low, high });
        }
        let (starts, answer) = std_mpsc::sync_channel(1);
        let generation = {
            let mut held = lock(&self.held);
            held.generation += 1;
            held.generation
        };
        self.send(Event::Assigned { generation, partitions: watermarks.clone(), starts });
        // A sink that cannot answer has failed and says so itself.
        let Ok(starts) = answer.recv() else { return Ok(()) };
        let mut held = lock(&self.held);
        for (Watermarks { partition: (topic, partition), high, .. }, start) in watermarks.into_iter().zip(starts) {
            let element = partitions.find_partition(&self.topics[topic], partition);
            if let Some(mut element) = element {
                element.set_offset(Offset::Offset(start))?;
            }
            held.partitions.insert((topic, partition), Reading { next: start, high, met_end: None });
            events::assigned(&self.config.job, &self.topics[topic], partition, start);
        }
        (held.assigned, held.disturbed) = (true, Instant::now());
        Ok(())
    }

    fn revoke(&self, partitions: &TopicPartitionList) {
        lock(&self.held).assigned = false;
        let keys = self.keys(partitions);
        // In order: first what was read of them, then that they are gone.
        let chunk = std::mem::take(&mut *lock(&self.pending));
        if !chunk.entries.is_empty() {
            self.send(Event::Messages(chunk));
        }
        let (done, answer) = std_mpsc::sync_channel(1);
        self.send(Event::Revoked { partitions: keys.clone(), done });
        answer.recv_timeout(REVOKE_WAIT).ok();
        let mut held = lock(&self.held);
        for key in keys {
            held.partitions.remove(&key);
            events::revoked(&self.config.job, &self.topics[key.0], key.1);
        }
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                if let Err(error) = self.assign(consumer, partitions) {
                    self.send(Event::Failed(error));
                }
            }
            Rebalance::Revoke(partitions) => self.revoke(partitions),
            Rebalance::Error(error) => events::client_trouble(&self.config.job, error),
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(facility, message, "kafka client");
            }
            _ => tracing::debug!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, _reason: &str) {
        // The end of a partition is news, not trouble; the client reports it here too.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        events::client_trouble(&self.config.job, &error);
    }

    fn stats(&self, statistics: Statistics) {
        let mut held = lock(&self.held);
        let settled = held.disturbed.elapsed() >= SETTLED_AFTER;
        for ((topic, partition), reading) in &mut held.partitions {
            let name = &self.topics[*topic];
            let Some(seen) = statistics.topics.get(name).and_then(|topic| topic.partitions.get(partition)) else {
                continue;
            };
            let at_end = seen.fetch_state == "active" && seen.eof_offset.min(seen.next_offset) >= reading.high;
            reading.met_end = (settled && at_end).then(|| reading.met_end.unwrap_or_else(Instant::now));
            let messages = (seen.hi_offset - reading.next).max(0);
            events::Lag { job: &self.config.job, topic: name, partition: *partition, messages }.emit();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
