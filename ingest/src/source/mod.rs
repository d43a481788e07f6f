//! The poll thread: Kafka's side of ingest.
//!
//! A plain thread polls one `BaseConsumer` without pause, since rebalances and keep-alives ride on polling. It copies
//! messages into chunks and hands them to the sink over a bounded channel. When the channel stays full it pauses the
//! partitions and goes on polling. It waits for nothing without a limit, however long the sink takes for a commit.
//!
//! **Where reading starts** is decided inside the assignment callback: it asks the sink, which reads the tables, and
//! writes the answers into the assignment before the client sees it. So no message is ever fetched from elsewhere, and
//! there is nothing to seek, except for partitions that were parked. The channel keeps order: chunks read before a
//! revocation reach the sink before it does.
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
//! Assignments are numbered, and one that grew is a new one. What is said of one carries its number, so that the sink can
//! tell news of the assignment that it works on from news of one whose rows it has dropped.
//!
//! **Trouble** with brokers passes: the client reconnects by itself, and partitions that cannot be prepared are parked, one
//! by one, until they can ([`parked`]). What does not pass ends the run: no access, no topic, a topic that was created anew,
//! and batches that the client cannot read, which it would skip.

mod channel;
mod chunk;
mod control;
mod group;
mod held;
mod lookup;
mod parked;
mod poller;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as std_mpsc};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;

pub(crate) use self::channel::Arriving;
#[cfg(test)]
pub(crate) use self::channel::channel;
pub(crate) use self::chunk::Chunk;
pub(crate) use self::control::Control;
use self::group::Context;
use self::poller::Poller;
use crate::{IngestConfig, IngestError, Result, broker};

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
    /// Partitions came to us. The sink answers with the offsets to start from; without an answer it is asked again.
    Assigned {
        generation: Generation,
        partitions: Vec<Watermarks>,
        /// When Kafka was asked. Somebody else may have read them since, if that is long ago.
        as_of: Instant,
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
    /// The group has taken us in and has nothing for us.
    NothingAssigned,
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

/// The running poll thread.
pub(crate) struct Source {
    control: Arc<Control>,
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl Source {
    /// Starts the thread, which heeds `control` and reads its topics; events arrive on the returned channel.
    pub(crate) fn start(config: &IngestConfig, control: Arc<Control>) -> Result<(Self, Arriving)> {
        let (sender, arriving) = channel::channel();
        let context = Context::new(config.clone(), control.clone(), sender);
        let consumer: BaseConsumer<Context> = consumer_config(config).create_with_context(context)?;
        let (end, ended) = tokio::sync::oneshot::channel();
        let mut poller = Poller::new(consumer, control.clone());
        std::thread::Builder::new()
            .name("weir-kafka-poll".to_owned())
            .spawn(move || {
                poller.run();
                drop(poller);
                // Nobody may be waiting any more.
                end.send(()).ok();
            })
            .map_err(|_| IngestError::PollThread)?;
        Ok((Self { control, ended }, arriving))
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
