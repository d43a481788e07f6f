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
//! **Ends.** Transaction markers and compaction can leave a gap before the end of a partition, which no message tells
//! of. Such an end is proved when the client's own statistics say that it met it, and a whole poll interval afterwards
//! brings nothing. Those statistics are stale for a moment after a pause (the client throws away what it has prefetched,
//! and with it the truth of "met the end"), so they count only once fetching has been left alone for a while. The sink is
//! told, so that positions do not stay below gaps: retention would move past them one day, and look like data loss.
//!
//! **Drained** means that every assigned partition was read to the high watermark of its assignment, by its messages or
//! by a proved end. It is asked whenever all that was read is handed over, however busy the topic is.
//!
//! **Rebalances.** Of the eager protocol each ends the whole assignment and brings another. Of the cooperative ones
//! (`partition.assignment.strategy=cooperative-sticky`, and `group.protocol=consumer`, KIP-848) each callback names only
//! what leaves or what comes: the rest goes on being read, with its buffers and its positions. Both are one code here:
//! what is named is committed and dropped, or looked up and added.
//!
//! Assignments are numbered, and one that grew is a new one. What is said of one carries its number, so that the sink can tell news of the assignment
//! that it works on from news of one whose rows it has dropped.
//!
//! **Trouble** with brokers passes: the client reconnects by itself, and an assignment that cannot be prepared is parked
//! (reading at its end, where the sink passes over what comes) and asked for anew. What does not pass ends the run: no
//! access, no topic, a topic that was created anew, and batches that the client cannot read, which it would skip.

mod held;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc as std_mpsc};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use weir_decode::{Headers, Incoming, begins_with_schema};

use self::held::Held;
use crate::aside::Aside;
use crate::topic_id::topic_id;
use crate::topics::{ReadTopics, Topics};
use crate::{IngestConfig, IngestError, Result, TopicConfig, broker, events, token};

/// The header in which serializers of schema registries can name the schema of the value.
const SCHEMA_HEADER: &str = "__value_schema_id";
/// What stands before a value whose header names no schema: nothing that begins so is taken for framed.
const UNFRAMED: &[u8] = &[0xff];
/// Messages in a chunk, or fewer when less is flushed at a time.
const CHUNK_MESSAGES: usize = 8_192;
/// Payload bytes in a chunk: some thousand events, over which the fixed costs of a batch are spread.
const CHUNK_BYTES: usize = 4 << 20;
/// Chunks between the poll thread and the sink.
const CHUNKS_WAITING: usize = 4;
/// How long a message waits for others of its chunk.
const CHUNK_AGE: Duration = Duration::from_millis(20);
const POLL: Duration = Duration::from_millis(50);
/// Pausing throws away what the client has prefetched, so a short jam is sat out.
const PAUSE_AFTER: Duration = Duration::from_millis(500);
/// How long a revocation waits for the sink to commit what it has. Past it the rows are fenced or read again.
const REVOKE_WAIT: Duration = Duration::from_secs(20);
/// How long the client may take to let go of its partitions before the group is joined again.
const LEAVE_WAIT: Duration = Duration::from_secs(60);
/// Before an assignment that could not be prepared is asked for again.
const REJOIN_AFTER: Duration = Duration::from_millis(500);

/// Number of an assignment, counted from 1 in each run.
pub(crate) type Generation = u64;

/// A partition, by index of its topic.
pub(crate) type PartitionKey = (usize, i32);

/// What the poll thread tells the sink, in order.
pub(crate) enum Event {
    Messages(Chunk),
    News(News),
}

/// What the poll thread tells the sink beside messages.
pub(crate) enum News {
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
    /// Nothing lies between the last message of these partitions and these ends.
    Ends {
        generation: Generation,
        ends: Vec<(PartitionKey, i64)>,
    },
    /// Every partition of that assignment was read to the end it had then.
    Drained {
        generation: Generation,
    },
    /// A position is no longer in Kafka: reading the positions again will tell which.
    OffsetGone,
    Failed(IngestError),
}

impl From<News> for Event {
    fn from(news: News) -> Self {
        Self::News(news)
    }
}

/// What Kafka holds of a partition at some moment: offsets `low..high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watermarks {
    pub(crate) partition: PartitionKey,
    pub(crate) low: i64,
    pub(crate) high: i64,
}

/// Messages copied out of the client, payloads end to end, each with the headers that are kept of it behind it.
#[derive(Default)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
}

/// One message of a chunk.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) partition: PartitionKey,
    pub(crate) offset: i64,
    timestamp_ms: Option<i64>,
    payload: Option<Range<usize>>,
    /// Those that the topic's list names, packed; mostly none.
    headers: Range<usize>,
}

/// Not the payloads: they may be anybody's prompt.
impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunk").field("messages", &self.entries.len()).field("bytes", &self.bytes.len()).finish()
    }
}

impl Chunk {
    /// The message of the entry of that index.
    pub(crate) fn incoming(&self, entry: usize) -> Incoming<'_> {
        let Entry { partition, offset, timestamp_ms, payload, headers } = &self.entries[entry];
        let payload = payload.clone().map(|range| &self.bytes[range]);
        let headers = Headers::of(&self.bytes[headers.clone()]);
        Incoming { partition: partition.1, offset: *offset, timestamp_ms: *timestamp_ms, payload, headers }
    }

    pub(crate) fn push<M: Message>(&mut self, topic: usize, config: &TopicConfig, message: &M) {
        // The client makes headers of its bytes when it is asked for them.
        let headers = if config.reads_headers() { message.headers() } else { None };
        let start = self.bytes.len();
        let payload = message.payload().map(|payload| {
            if config.encoding.needs_schemas() {
                // The header holds what otherwise stands before the value: there it is read, and kept with a dead letter.
                let schema = headers.and_then(|headers| last_value(headers, SCHEMA_HEADER));
                let usable = schema.map(|schema| if begins_with_schema(schema) { schema } else { UNFRAMED });
                self.bytes.extend_from_slice(usable.unwrap_or_default());
            }
            self.bytes.extend_from_slice(payload);
            start..self.bytes.len()
        });
        let behind = self.bytes.len();
        for name in &config.headers {
            if let Some(value) = headers.and_then(|headers| last_value(headers, name)) {
                Headers::pack(name, value, &mut self.bytes);
            }
        }
        let headers = behind..self.bytes.len();
        let partition = (topic, message.partition());
        let timestamp_ms = message.timestamp().to_millis().filter(|at| *at >= 0);
        self.entries.push(Entry { partition, offset: message.offset(), timestamp_ms, payload, headers });
    }

    #[inline]
    fn is_full(&self, flush_rows: usize) -> bool {
        self.entries.len() >= CHUNK_MESSAGES.min(flush_rows) || self.bytes.len() >= CHUNK_BYTES
    }
}

/// Of a header that comes several times the last counts, as for Kafka's own clients.
fn last_value<'h>(headers: &'h impl rdkafka::message::Headers, name: &str) -> Option<&'h [u8]> {
    let last = (0..headers.count()).rev().map(|place| headers.get(place)).find(|header| header.key == name);
    last.and_then(|header| header.value)
}

/// What the sink tells the poll thread.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stop: AtomicBool,
    rejoin: AtomicBool,
    pauses: AtomicU64,
    /// Next offsets to show in Kafka, for people.
    committed: Mutex<BTreeMap<PartitionKey, i64>>,
    /// Empty chunks whose memory can be used again.
    spare: Mutex<Vec<Chunk>>,
    /// What to read, by the indices of partition keys.
    pub(crate) topics: Topics,
    subscribe: AtomicBool,
    /// Those of patterns that cannot be read.
    pub(crate) aside: Aside,
    /// Kafka has refused to let a topic be read, and nobody has looked yet which one.
    refused: AtomicBool,
    /// The thread that looks out for topics, if there is one.
    lookout: OnceLock<Thread>,
}

impl Control {
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Leave the group and join again, so that positions are read anew.
    pub(crate) fn rejoin(&self) {
        self.rejoin.store(true, Ordering::SeqCst);
    }

    /// The topics have changed.
    pub(crate) fn subscribe_again(&self) {
        self.subscribe.store(true, Ordering::SeqCst);
    }

    /// Whom to wake when there is a reason to think that topics have changed in Kafka.
    pub(crate) fn look_with(&self, lookout: Thread) {
        self.lookout.set(lookout).ok();
    }

    /// False when there is none.
    fn wake_lookout(&self) -> bool {
        self.lookout.get().inspect(|lookout| lookout.unpark()).is_some()
    }

    /// Kafka refuses a topic, and the client does not say which: the lookout asks. False when there is none.
    fn ask_which_is_refused(&self) -> bool {
        self.refused.store(true, Ordering::SeqCst);
        self.wake_lookout()
    }

    /// Is it to be asked which topic may not be read?
    pub(crate) fn take_refused(&self) -> bool {
        self.refused.swap(false, Ordering::SeqCst)
    }

    /// Has the topic no longer read, if the error is about it alone and only a pattern matches it.
    pub(crate) fn set_aside(&self, config: &IngestConfig, error: &IngestError) -> bool {
        let Some(topic) = error.only_topic().filter(|topic| self.aside.takes(config, topic, error)) else {
            return false;
        };
        if let Some(index) = self.topics.now().index(topic) {
            self.topics.set_gone(index);
            self.subscribe_again();
        }
        true
    }

    /// How often reading was paused because the tables were slower.
    pub(crate) fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::SeqCst)
    }

    pub(crate) fn show_committed(&self, partition: PartitionKey, next: i64) {
        lock(&self.committed).insert(partition, next);
    }

    /// Takes back a chunk that is done with: fresh memory costs a page fault every 4 KiB.
    pub(crate) fn reuse(&self, mut chunk: Chunk) {
        let mut spare = lock(&self.spare);
        // One large message must not keep its room for ever.
        if spare.len() < CHUNKS_WAITING && chunk.bytes.capacity() <= 2 * CHUNK_BYTES {
            chunk.bytes.clear();
            chunk.entries.clear();
            spare.push(chunk);
        }
    }
}

/// The running poll thread.
pub(crate) struct Source {
    control: Arc<Control>,
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl Source {
    /// Starts the thread, which heeds `control` and reads its topics; events arrive on the returned channel.
    pub(crate) fn start(config: &IngestConfig, control: Arc<Control>) -> Result<(Self, mpsc::Receiver<Event>)> {
        let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
        let context = Context {
            config: config.clone(),
            control: control.clone(),
            events: sender,
            pending: Mutex::default(),
            is_full: AtomicBool::new(false),
            held: Mutex::new(Held::new()),
        };
        let consumer: BaseConsumer<Context> = consumer_config(config).create_with_context(context)?;
        let (end, ended) = tokio::sync::oneshot::channel();
        let topics = control.topics.now();
        let mut poller =
            Poller { consumer, control: control.clone(), topics, last: 0, paused: false, pending_since: None };
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

/// What a poll brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Polled {
    Message,
    News,
    Nothing,
}

struct Poller {
    consumer: BaseConsumer<Context>,
    control: Arc<Control>,
    /// As they were subscribed to last.
    topics: Arc<ReadTopics>,
    /// That of the last message.
    last: usize,
    paused: bool,
    pending_since: Option<Instant>,
}

impl Poller {
    fn run(&mut self) {
        while !self.stopping() {
            if self.control.subscribe.swap(false, Ordering::SeqCst)
                && let Err(error) = self.subscribe()
            {
                self.context().send(News::Failed(error));
                return;
            }
            if self.control.rejoin.swap(false, Ordering::SeqCst)
                && let Err(error) = self.rejoin()
            {
                self.context().send(News::Failed(error));
                return;
            }
            let began = Instant::now();
            let idle = self.poll_once(POLL) == Polled::Nothing && began.elapsed() >= POLL;
            if !idle {
                self.poll_what_is_there();
            }
            self.hand_over(idle);
            if self.pending_since.is_none() {
                self.tell_ends(idle.then_some(began));
            }
            self.show_committed(CommitMode::Async);
        }
        // The client leaves the group next, and what is under way then may not arrive.
        self.show_committed(CommitMode::Sync);
    }

    /// What the client holds already, up to a full chunk, without a look at the clock for each message.
    fn poll_what_is_there(&mut self) {
        for _ in 0..CHUNK_MESSAGES {
            if self.poll_once(Duration::ZERO) != Polled::Message || self.context().is_full.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// To be called when all that was read is handed over; `idle_since` is when the last poll began, if it brought nothing.
    fn tell_ends(&self, idle_since: Option<Instant>) {
        let context = self.context();
        let (generation, ends, drained) = {
            let mut held = lock(&context.held);
            let ends = idle_since.map(|began| held.prove_ends(began)).unwrap_or_default();
            let drained = if context.config.stop_when_drained { held.drained() } else { None };
            (held.generation, ends, drained)
        };
        if !ends.is_empty() {
            context.send(News::Ends { generation, ends });
        }
        if let Some(generation) = drained {
            context.send(News::Drained { generation });
        }
    }

    /// Takes one message, if one comes in time.
    fn poll_once(&mut self, patience: Duration) -> Polled {
        match self.consumer.poll(patience) {
            Some(Ok(message)) => {
                let context = self.consumer.client().context();
                if let Some(topic) = self.topics.index_near(self.last, message.topic()) {
                    self.last = topic;
                    let (partition, offset) = ((topic, message.partition()), message.offset());
                    lock(&context.held).read(partition, offset);
                    let mut pending = lock(&context.pending);
                    pending.push(topic, &self.topics.list[topic].config, &message);
                    if pending.is_full(context.config.flush_rows) {
                        context.is_full.store(true, Ordering::Relaxed);
                    }
                    drop(pending);
                    self.pending_since.get_or_insert_with(Instant::now);
                }
                Polled::Message
            }
            Some(Err(KafkaError::PartitionEOF(_))) => Polled::News,
            Some(Err(error)) => {
                self.trouble(error);
                Polled::News
            }
            None => Polled::Nothing,
        }
    }

    fn trouble(&self, error: KafkaError) {
        let context = self.context();
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => {
                context.send(News::OffsetGone);
            }
            // The client goes on behind a batch that it cannot read, or asks for it for ever.
            Some(
                code @ (RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::BadCompression
                | RDKafkaErrorCode::NotImplemented),
            ) => {
                let brokers = context.config.brokers.clone();
                context.send(News::Failed(IngestError::UnreadableBatch { brokers, why: code.to_string() }));
            }
            // Of a topic that only a pattern matches, it must not end the run.
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) if self.control.ask_which_is_refused() => {}
            _ => match broker::classify(&context.config, "a topic or the group", Duration::ZERO, error) {
                // A topic that a pattern matched may go. The lookout knows which one it is.
                IngestError::MissingTopic { .. } if self.control.wake_lookout() => {}
                refused @ (IngestError::Refused { .. } | IngestError::MissingTopic { .. }) => {
                    context.send(News::Failed(refused));
                }
                error if fatal => context.send(News::Failed(error)),
                // Brokers go and come: the client reconnects by itself.
                error => events::client_trouble(&context.config.job, &error),
            },
        }
    }

    fn hand_over(&mut self, idle: bool) {
        let Some(since) = self.pending_since else { return };
        let ripe = idle || self.context().is_full.load(Ordering::Relaxed) || since.elapsed() >= CHUNK_AGE;
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
            // Also while paused: what was assigned meanwhile was resumed.
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
        lock(&self.context().held).disturb();
    }

    fn subscribe(&mut self) -> Result<()> {
        self.topics = self.control.topics.now();
        let here = self.topics.list.iter().filter(|topic| !topic.is_gone);
        let names: Vec<&str> = here.map(|topic| topic.config.topic.as_str()).collect();
        if names.is_empty() {
            // The lookout will tell of the first one.
            self.consumer.unsubscribe();
            return Ok(());
        }
        Ok(self.consumer.subscribe(&names)?)
    }

    fn rejoin(&mut self) -> Result<()> {
        self.consumer.unsubscribe();
        let give_up = Instant::now() + LEAVE_WAIT;
        while !lock(&self.context().held).is_empty() && !self.stopping() {
            // Joined again with partitions still held, they would not be assigned anew, nor read from the tables' positions.
            if Instant::now() >= give_up {
                return Err(IngestError::PollThread);
            }
            // What still arrives is of the old assignment, and the sink has dropped that.
            self.poll_once(POLL);
        }
        self.context().take_pending();
        self.pending_since = None;
        self.paused = false;
        self.subscribe()
    }

    fn show_committed(&self, mode: CommitMode) {
        let committed = std::mem::take(&mut *lock(&self.control.committed));
        if committed.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for ((topic, partition), next) in committed {
            let name = &self.topics.list[topic].config.topic;
            list.add_partition_offset(name, partition, Offset::Offset(next)).ok();
        }
        // For lag dashboards only: a failure costs nothing.
        self.consumer.commit(&list, mode).ok();
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
    control: Arc<Control>,
    events: mpsc::Sender<Event>,
    pending: Mutex<Chunk>,
    /// Is the pending chunk worth handing over?
    is_full: AtomicBool,
    held: Mutex<Held>,
}

impl Context {
    fn take_pending(&self) -> Chunk {
        self.is_full.store(false, Ordering::Relaxed);
        let next = lock(&self.control.spare).pop().unwrap_or_default();
        std::mem::replace(&mut *lock(&self.pending), next)
    }

    /// Blocks while the channel is full; a sink that has gone is told nothing, and `stopping` sees it.
    fn send(&self, event: impl Into<Event>) {
        self.events.blocking_send(event.into()).ok();
    }

    fn try_send_pending(&self, patience: Duration) -> bool {
        let chunk = self.take_pending();
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
                    self.is_full.store(chunk.is_full(self.config.flush_rows), Ordering::Relaxed);
                    *lock(&self.pending) = chunk;
                }
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn keys(&self, partitions: &TopicPartitionList) -> Vec<PartitionKey> {
        let topics = self.control.topics.now();
        let index = |name: &str| topics.index(name);
        let elements = partitions.elements();
        elements.iter().filter_map(|element| Some((index(element.topic())?, element.partition()))).collect()
    }

    /// What Kafka holds of the partitions now. Fails when a topic is not the one that the tables were checked for.
    fn watermarks(&self, consumer: &BaseConsumer<Self>, partitions: &[PartitionKey]) -> Result<Vec<Watermarks>> {
        let wait = self.config.answer_within();
        let read = self.control.topics.now();
        let topics: BTreeSet<usize> = partitions.iter().map(|(topic, _)| *topic).collect();
        for topic in topics {
            let name = &read.list[topic].config.topic;
            let id = topic_id(consumer.client(), name, wait)
                .map_err(|error| broker::classify(&self.config, name, wait, error))?;
            let known = &read.list[topic].id;
            if known.is_some() && id.is_some() && id != *known {
                return Err(IngestError::TopicRecreated { topic: name.clone() });
            }
        }
        let mut watermarks = Vec::new();
        for (topic, partition) in partitions {
            let name = &read.list[*topic].config.topic;
            let (low, high) = consumer
                .fetch_watermarks(name, *partition, wait)
                .map_err(|error| broker::classify(&self.config, name, wait, error))?;
            watermarks.push(Watermarks { partition: (*topic, *partition), low, high });
        }
        Ok(watermarks)
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) -> Result<()> {
        let generation = {
            let mut held = lock(&self.held);
            // Also of an assignment that is parked: it is left again like any other.
            (held.assigned, held.generation) = (true, held.generation + 1);
            held.disturb();
            held.generation
        };
        // The client keeps "paused" with a partition also after it has left us: one that left while reading was paused, for a
        // rebalance or to have its positions read again, would come back paused, and nobody would ever resume it.
        consumer.resume(&partitions.clone())?;
        let watermarks = match self.watermarks(consumer, &self.keys(partitions)) {
            Ok(watermarks) => watermarks,
            Err(error) if self.passes(&error) => {
                events::client_trouble(&self.config.job, &error);
                std::thread::sleep(REJOIN_AFTER);
                self.control.rejoin();
                return self.park(partitions);
            }
            Err(error) => {
                self.park(partitions)?;
                return Err(error);
            }
        };
        let (starts, answer) = std_mpsc::sync_channel(1);
        self.send(News::Assigned { generation, partitions: watermarks.clone(), starts });
        // A sink that does not answer has failed and says so itself, or has asked for another assignment.
        let Ok(starts) = answer.recv() else { return self.park(partitions) };
        let topics = self.control.topics.now();
        let mut held = lock(&self.held);
        for (Watermarks { partition: (topic, partition), high, .. }, start) in watermarks.into_iter().zip(starts) {
            let name = &topics.list[topic].config.topic;
            let element = partitions.find_partition(name, partition);
            if let Some(mut element) = element {
                element.set_offset(Offset::Offset(start))?;
            }
            held.insert((topic, partition), start, high);
            events::assigned(&self.config.job, name, partition, start);
        }
        Ok(())
    }

    /// Trouble that passes: with brokers, or with a topic that was deleted, if it need not be there.
    fn passes(&self, error: &IngestError) -> bool {
        match error {
            IngestError::Unreachable { .. } | IngestError::Kafka(_) => true,
            IngestError::MissingTopic { .. } => self.control.wake_lookout(),
            // One that only a pattern matches is set aside, and the others are read.
            _ => self.control.set_aside(&self.config, error),
        }
    }

    /// Partitions that the sink does not know of: nothing old is fetched for nobody.
    fn park(&self, partitions: &TopicPartitionList) -> Result<()> {
        let topics = self.control.topics.now();
        for (topic, partition) in self.keys(partitions) {
            lock(&self.held).park((topic, partition));
            if let Some(mut element) = partitions.find_partition(&topics.list[topic].config.topic, partition) {
                element.set_offset(Offset::End)?;
            }
        }
        Ok(())
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        if !matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
            // All of it ends, and another assignment follows. Else what is not named goes on, if only nothing.
            lock(&self.held).assigned = false;
        }
        let keys = self.keys(partitions);
        // In order: first what was read of them, then that they are gone.
        let chunk = self.take_pending();
        if !chunk.entries.is_empty() {
            self.send(Event::Messages(chunk));
        }
        let (done, answer) = std_mpsc::sync_channel(1);
        self.send(News::Revoked { partitions: keys.clone(), done });
        answer.recv_timeout(REVOKE_WAIT).ok();
        let topics = self.control.topics.now();
        let mut held = lock(&self.held);
        for key in keys {
            held.remove(key);
            let (job, topic, partition) = (&self.config.job, &topics.list[key.0].config.topic, key.1);
            // Its lag is another member's to tell: a gauge that kept its last value would look like a stalled reader.
            events::Lag { job, topic, partition, messages: 0 }.emit();
            events::revoked(job, topic, partition);
        }
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                if let Err(error) = self.assign(consumer, partitions) {
                    self.send(News::Failed(error));
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
