//! Partitions that the group gave us and that are not read yet, and their way from there to being read.
//!
//! A partition is parked when, at the assignment, no broker could say what it holds of it (it has no leader, its leader is
//! dead), or the sink could not say in time where to start. The others are read meanwhile, and the group is not left: that
//! would stop all of them, at all members, for as long as one is in trouble.
//!
//! A parked partition is paused before the client sees it, at an offset that is asked of nobody: a client that looked up
//! an end would do so once more when the answer is late, and read from there, whatever was said meanwhile. Messages of
//! it are nobody's ([`super::held::Held::read`]). A thread asks for the watermarks again and again, with a client of its
//! own, so that the poll thread goes on polling. When they are there the sink is asked as at an assignment, and its answer
//! is where the client is told to seek before the partition is resumed.
#![expect(unsafe_code, reason = "rdkafka has no safe call that makes the client know of a partition")]

use std::ffi::CString;
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList, bindings as sys};

use super::group::{Asked, Context};
use super::held::Ticket;
use super::lookup::{Found, LookUp};
use super::{Control, PartitionKey, lock};
use crate::broker::Asking;
use crate::topics::ReadTopics;
use crate::{IngestConfig, IngestError, Result, events};

/// Before the first look at what was parked; it doubles with each that brings nothing.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);
const LOOK_AGAIN_AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// How long one look may take, apart from the connection to a broker.
const LOOK_WAIT: Duration = Duration::from_secs(10);
/// How long the client may take to begin to read elsewhere. It asks nobody for that.
const SEEK_WAIT: Duration = Duration::from_secs(2);

/// The poll thread's work on what is parked.
#[derive(Default)]
pub(super) struct Retry {
    looking: Option<Looking>,
    next: Option<Instant>,
    wait: Duration,
    /// The newest that was waited for.
    newest: Ticket,
}

/// A thread that asks what Kafka holds.
struct Looking {
    partitions: Vec<(PartitionKey, Ticket)>,
    result: mpsc::Receiver<(Instant, Result<Found>)>,
}

impl Retry {
    /// To be called between polls: takes answers of the sink and of Kafka as they come. Waits for neither.
    ///
    /// # Errors
    /// What does not pass, as at an assignment.
    pub(super) fn go_on(&mut self, consumer: &BaseConsumer<Context>, is_paused: bool) -> Result<()> {
        let context = consumer.client().context();
        let unanswered = std::mem::take(&mut *lock(&context.asked));
        for asked in unanswered {
            match asked.answer.try_recv() {
                Ok(starts) => open(consumer, &asked, &starts, is_paused)?,
                Err(TryRecvError::Disconnected) => context.declined(&asked),
                Err(TryRecvError::Empty) => lock(&context.asked).push(asked),
            }
        }
        self.look(context)?;
        context.show_parked();
        Ok(())
    }

    fn look(&mut self, context: &Context) -> Result<()> {
        if let Some(looking) = &self.looking {
            let (as_of, found) = match looking.result.try_recv() {
                Ok((as_of, found)) => (as_of, found?),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(IngestError::PollThread),
            };
            for trouble in &found.troubles {
                events::client_trouble(&context.config.job, trouble);
            }
            let partitions = self.looking.take().map(|looking| looking.partitions).unwrap_or_default();
            ask_the_sink(context, &partitions, as_of, found);
        }
        let unasked = lock(&context.held).unasked();
        let Some(newest) = unasked.iter().map(|(_, ticket)| *ticket).max() else {
            self.next = None;
            return Ok(());
        };
        if self.next.is_none() || newest > self.newest {
            (self.newest, self.wait) = (newest, LOOK_AGAIN_AFTER);
            self.next = Some(Instant::now() + self.wait);
        }
        if self.next.is_some_and(|next| Instant::now() >= next) {
            self.looking = Some(Looking::start(context, unasked)?);
            self.wait = (self.wait * 2).min(LOOK_AGAIN_AT_LEAST_EVERY);
            self.next = Some(Instant::now() + self.wait);
        }
        Ok(())
    }
}

impl Looking {
    /// The thread ends by itself, and nobody waits for it.
    fn start(context: &Context, partitions: Vec<(PartitionKey, Ticket)>) -> Result<Self> {
        let (config, control) = (context.config.clone(), context.control.clone());
        let keys: Vec<PartitionKey> = partitions.iter().map(|(partition, _)| *partition).collect();
        let (sender, result) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("weir-kafka-parked".to_owned())
            .spawn(move || sender.send(look_up(&config, &control, &keys)).ok())
            .map_err(|_| IngestError::PollThread)?;
        Ok(Self { partitions, result })
    }
}

/// What Kafka holds of the partitions, and the moment before it was asked.
fn look_up(config: &IngestConfig, control: &Arc<Control>, partitions: &[PartitionKey]) -> (Instant, Result<Found>) {
    let topics = control.topics.now();
    let connected = Asking::connect(config);
    let as_of = Instant::now();
    let found = connected.and_then(|client| {
        let (topics, give_up) = (&*topics, as_of + LOOK_WAIT);
        LookUp { client: &client, config, control, topics, give_up }.watermarks(partitions)
    });
    let found = match found {
        Err(error) if control.passes(config, &error) => Ok(Found { troubles: vec![error], ..Found::default() }),
        found => found,
    };
    (as_of, found)
}

/// Asks about those of the partitions that were found and have been parked ever since they were looked for.
fn ask_the_sink(context: &Context, looked_for: &[(PartitionKey, Ticket)], as_of: Instant, found: Found) {
    let mut watermarks = found.watermarks;
    let generation = {
        let mut held = lock(&context.held);
        let is_parked = |partition| {
            let ticket = looked_for.iter().find(|(looked_for, _)| *looked_for == partition).map(|(_, ticket)| *ticket);
            ticket.is_some_and(|ticket| held.is_parked(partition, ticket))
        };
        watermarks.retain(|found| is_parked(found.partition));
        if watermarks.is_empty() {
            return;
        }
        // An assignment that grew is a new one.
        held.generation += 1;
        held.generation
    };
    let asked = context.ask(generation, as_of, watermarks);
    lock(&context.asked).push(asked);
}

/// Begins to read the partitions where the sink says, as far as they are still parked.
fn open(consumer: &BaseConsumer<Context>, asked: &Asked, starts: &[i64], is_paused: bool) -> Result<()> {
    let context = consumer.client().context();
    let topics = context.control.topics.now();
    let name = |(topic, _): PartitionKey| topics.list[topic].config.topic.as_str();
    let mut list = TopicPartitionList::new();
    for ((watermarks, ticket), start) in asked.partitions.iter().zip(starts) {
        if lock(&context.held).is_parked(watermarks.partition, *ticket) {
            list.add_partition_offset(name(watermarks.partition), watermarks.partition.1, Offset::Offset(*start))?;
        }
    }
    if list.count() == 0 {
        return Ok(());
    }
    let sought = match consumer.seek_partitions(list, SEEK_WAIT) {
        Ok(sought) => sought,
        Err(error) => {
            // It may still happen. Until it has been done and seen, nothing of them is taken.
            events::client_trouble(&context.config.job, &error);
            context.declined(asked);
            return Ok(());
        }
    };
    let mut begun = TopicPartitionList::new();
    for ((watermarks, ticket), start) in asked.partitions.iter().zip(starts) {
        let (topic, partition) = (name(watermarks.partition), watermarks.partition.1);
        match sought.find_partition(topic, partition).map(|element| element.error()) {
            Some(Ok(())) => {
                context.open(&topics, watermarks, *start);
                begun.add_partition(topic, partition);
            }
            Some(Err(error)) => {
                events::client_trouble(&context.config.job, &error);
                lock(&context.held).decline(watermarks.partition, *ticket);
            }
            // It has left, or is parked anew.
            None => {}
        }
    }
    lock(&context.held).disturb();
    if !is_paused && begun.count() > 0 {
        consumer.resume(&begun)?;
    }
    Ok(())
}

/// Parks those of the partitions of an assignment that is about to be made: paused, at an offset that is asked of nobody.
pub(super) fn hold_still(
    consumer: &BaseConsumer<Context>,
    topics: &ReadTopics,
    assignment: &TopicPartitionList,
    parked: &[PartitionKey],
) -> Result<()> {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in parked {
        let name = topics.list[*topic].config.topic.as_str();
        make_known(consumer, name, *partition)?;
        list.add_partition(name, *partition);
        if let Some(mut element) = assignment.find_partition(name, *partition) {
            element.set_offset(Offset::Offset(0))?;
        }
    }
    if parked.is_empty() {
        return Ok(());
    }
    consumer.pause(&list)?;
    for element in list.elements() {
        element.error()?;
    }
    Ok(())
}

/// Has the client know of the partition, which it otherwise does only once it was assigned: it cannot pause others.
fn make_known(consumer: &BaseConsumer<Context>, topic: &str, partition: i32) -> Result<()> {
    let name = CString::new(topic).map_err(KafkaError::Nul)?;
    let (mut low, mut high) = (0, 0);
    // SAFETY: the client lives as long as `consumer`, which is borrowed. The name is a valid C string, which is copied where
    // it is kept. Both numbers live, and are written to by this call alone, which asks no broker.
    let code = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            name.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    match code {
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(KafkaError::MetadataFetch(code.into()).into()),
    }
}
