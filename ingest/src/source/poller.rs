//! The loop of the poll thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::chunk::CHUNK_MESSAGES;
use super::group::Context;
use super::parked::Retry;
use super::{Control, Generation, News, PartitionKey, lock};
use crate::topics::ReadTopics;
use crate::{IngestError, Result, broker, events};

/// How long a message waits for others of its chunk.
const CHUNK_AGE: Duration = Duration::from_millis(20);
const POLL: Duration = Duration::from_millis(50);
/// Pausing throws away what the client has prefetched, so a short jam is sat out.
const PAUSE_AFTER: Duration = Duration::from_millis(500);
/// How long the client may take to let go of its partitions before the group is joined again.
const LEAVE_WAIT: Duration = Duration::from_secs(60);

/// How often the positions that people see are told at the end, and how long lies between.
const LAST_WORD_TRIES: usize = 6;
const LAST_WORD_AGAIN: Duration = Duration::from_millis(500);

/// What a poll brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Polled {
    Message,
    News,
    Nothing,
}

/// The consumer, and what the loop remembers from one poll to the next.
pub(super) struct Poller {
    consumer: BaseConsumer<Context>,
    control: Arc<Control>,
    /// As they were subscribed to last.
    topics: Arc<ReadTopics>,
    /// That of the last message.
    last: usize,
    paused: bool,
    pending_since: Option<Instant>,
    retry: Retry,
    /// What was shown in Kafka since that assignment, for people. That it arrived is not known.
    shown: (Generation, BTreeMap<PartitionKey, i64>),
}

impl Poller {
    pub(super) fn new(consumer: BaseConsumer<Context>, control: Arc<Control>) -> Self {
        let topics = control.topics.now();
        Self {
            consumer,
            control,
            topics,
            last: 0,
            paused: false,
            pending_since: None,
            retry: Retry::default(),
            shown: Default::default(),
        }
    }

    pub(super) fn run(&mut self) {
        while !self.stopping() {
            if let Err(error) = self.do_as_told() {
                self.context().events.news(News::Failed(error));
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

    fn do_as_told(&mut self) -> Result<()> {
        if self.control.subscribe.swap(false, Ordering::SeqCst) {
            self.subscribe()?;
        }
        if self.control.rejoin.swap(false, Ordering::SeqCst) {
            self.rejoin()?;
        }
        self.retry.go_on(&self.consumer, self.paused)
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
            context.events.news(News::Ends { generation, ends });
        }
        if let Some(generation) = drained {
            context.events.news(News::Drained { generation });
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
                    if !lock(&context.held).read(partition, offset) {
                        return Polled::Message;
                    }
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
                context.events.news(News::OffsetGone);
            }
            // The client goes on behind a batch that it cannot read, or asks for it for ever.
            Some(
                code @ (RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::BadCompression
                | RDKafkaErrorCode::NotImplemented),
            ) => {
                let brokers = context.config.brokers.clone();
                context.events.news(News::Failed(IngestError::UnreadableBatch { brokers, why: code.to_string() }));
            }
            // Of a topic that only a pattern matches, it must not end the run. The lookout knows which one it is.
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) if self.control.ask_which_is_refused() => {}
            _ => match broker::classify(&context.config, "a topic or the group", Duration::ZERO, error) {
                // One that a pattern matched may go, and a broker that has just started knows none. The lookout tells.
                IngestError::MissingTopic { .. } if self.control.wake_lookout() => {}
                refused @ (IngestError::Refused { .. } | IngestError::MissingTopic { .. }) => {
                    context.events.news(News::Failed(refused));
                }
                error if fatal => context.events.news(News::Failed(error)),
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
        if self.try_send_pending(patience) {
            self.pending_since = None;
            if self.paused {
                self.set_paused(false);
            }
        } else if !self.stopping() {
            // Also while paused: what was assigned meanwhile was resumed.
            self.set_paused(true);
        }
    }

    fn try_send_pending(&self, patience: Duration) -> bool {
        let context = self.context();
        let mut chunk = context.take_pending();
        if chunk.entries.is_empty() {
            return true;
        }
        let began = Instant::now();
        loop {
            chunk = match context.events.try_chunk(chunk) {
                Ok(()) => return true,
                Err(chunk) => chunk,
            };
            if began.elapsed() >= patience || self.stopping() {
                context.is_full.store(chunk.is_full(context.config.flush_rows), Ordering::Relaxed);
                *lock(&context.pending) = chunk;
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What is parked stays paused, whatever becomes of the rest.
    fn set_paused(&mut self, pause: bool) {
        let mut partitions = TopicPartitionList::new();
        for (topic, partition) in lock(&self.context().held).open_partitions() {
            partitions.add_partition(&self.topics.list[topic].config.topic, partition);
        }
        let changed = if pause { self.consumer.pause(&partitions) } else { self.consumer.resume(&partitions) };
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
        lock(&self.context().asked).clear();
        self.subscribe()
    }

    fn show_committed(&mut self, mode: CommitMode) {
        let committed = std::mem::take(&mut *lock(&self.control.committed));
        let is_last = matches!(mode, CommitMode::Sync);
        if committed.is_empty() && !is_last {
            return;
        }
        let (generation, is_held) = {
            let held = lock(&self.context().held);
            (held.generation, held.open_partitions().collect::<BTreeSet<_>>())
        };
        if self.shown.0 != generation {
            self.shown = (generation, BTreeMap::new());
        }
        self.shown.1.extend(&committed);
        // At the end all of it again: a broker that was restarting may have dropped what it was told last.
        let show = if is_last { &self.shown.1 } else { &committed };
        let mut list = TopicPartitionList::new();
        for (partition, next) in show.iter().filter(|(partition, _)| is_held.contains(partition)) {
            let name = &self.topics.list[partition.0].config.topic;
            list.add_partition_offset(name, partition.1, Offset::Offset(*next)).ok();
        }
        // For lag dashboards only: a failure costs nothing. But the last word should arrive, also while the group's
        // coordinator comes back.
        let tries = if is_last { LAST_WORD_TRIES } else { 1 };
        for _ in 0..tries {
            if list.count() == 0 || self.consumer.commit(&list, mode).is_ok() {
                return;
            }
            if is_last {
                std::thread::sleep(LAST_WORD_AGAIN);
            }
        }
    }

    fn stopping(&self) -> bool {
        self.control.stop.load(Ordering::SeqCst) || self.context().events.is_closed()
    }

    fn context(&self) -> &Context {
        self.consumer.client().context()
    }
}
