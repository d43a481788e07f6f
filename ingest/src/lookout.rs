//! The lookout: a thread that asks Kafka which topics there are, now and then when the configuration has patterns, and
//! whenever somebody has a reason to think that they have changed.
//!
//! The client could match patterns itself. But it has another kind of regular expression than ours, the brokers (which
//! match for groups of the new protocol, KIP-848) have a third, and topics that one of them matches and we do not would
//! stay unread without a word. So Weir matches, and subscribes to names.
//!
//! A topic that comes is told until it is taken on; one that goes is told when it was missing for a while, since a broker
//! that has just started may not know of all. A topic that the configuration names must not go. One that only a pattern
//! matches and that cannot be read is set aside (see `aside`), and looked at again each time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use tokio::sync::mpsc;

use crate::broker::{self, Asking, BELIEVED_AFTER};
use crate::source::Control;
use crate::topics::{KnownTopic, ReadTopics};
use crate::{IngestConfig, IngestError, Result, events};

/// Before a missing topic is looked for once more.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Before brokers that did not answer are asked once more.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Without patterns nothing comes, and of what goes the reader hears first.
const UNTIL_WOKEN: Duration = Duration::from_secs(3_600);

/// What the lookout tells the sink.
pub(crate) enum Seen {
    /// Topics that match, and are not read yet.
    Came(Vec<KnownTopic>),
    /// Topics that were deleted, by index.
    Went(Vec<usize>),
    Failed(IngestError),
}

/// The running thread; it ends when this is dropped.
pub(crate) struct Lookout {
    thread: std::thread::Thread,
    ended: Arc<AtomicBool>,
}

impl Lookout {
    /// Starts it.
    pub(crate) fn start(config: &IngestConfig, control: Arc<Control>) -> Result<(Self, mpsc::Receiver<Seen>)> {
        // One at a time: what was said and not yet heard is said again if it still holds.
        let (sender, receiver) = mpsc::channel(1);
        let ended = Arc::new(AtomicBool::new(false));
        let looking = Looking {
            config: config.clone(),
            control: control.clone(),
            sender,
            ended: ended.clone(),
            missing: BTreeMap::new(),
        };
        let thread = std::thread::Builder::new()
            .name("weir-kafka-topics".to_owned())
            .spawn(move || looking.run())
            .map_err(|_| IngestError::PollThread)?;
        let thread = thread.thread().clone();
        control.look_with(thread.clone());
        Ok((Self { thread, ended }, receiver))
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

struct Looking {
    config: IngestConfig,
    control: Arc<Control>,
    sender: mpsc::Sender<Seen>,
    ended: Arc<AtomicBool>,
    /// Names that were missing when it last looked, and since when.
    missing: BTreeMap<String, Instant>,
}

impl Looking {
    fn run(mut self) {
        let pace = if self.config.patterns.is_empty() { UNTIL_WOKEN } else { self.config.topics_asked_every() };
        let mut client = None;
        let mut wait = pace;
        loop {
            std::thread::park_timeout(wait);
            if self.ended.load(Ordering::SeqCst) || self.sender.is_closed() {
                return;
            }
            wait = match self.look(&mut client) {
                Ok(()) if self.missing.is_empty() => pace,
                Ok(()) => pace.min(LOOK_AGAIN),
                Err(
                    error
                    @ (IngestError::Unreachable { .. } | IngestError::Kafka(_) | IngestError::MissingTopic { .. }),
                ) => {
                    // Brokers go and come, and a topic may go between two questions about it.
                    events::client_trouble(&self.config.job, &error);
                    // What woke it is not answered.
                    pace.min(ASK_AGAIN)
                }
                Err(error) => {
                    self.sender.blocking_send(Seen::Failed(error)).ok();
                    return;
                }
            };
        }
    }

    fn look(&mut self, client: &mut Option<BaseConsumer<Asking>>) -> Result<()> {
        let client = match client {
            Some(client) => client,
            None => client.insert(Asking::connect(&self.config)?),
        };
        let names = broker::topic_names(client, &self.config)?;
        let read = self.control.topics.now();
        if self.control.take_refused()
            && let Err(error) = self.set_unreadable_aside(client, &read)
        {
            // The client may not say it again.
            self.control.still_refused();
            return Err(error);
        }
        let was_missing = std::mem::take(&mut self.missing);
        let mut went = Vec::new();
        for (index, topic) in read.list.iter().enumerate().filter(|(_, topic)| !topic.is_gone) {
            let name = &topic.config.topic;
            if names.contains(name) {
                continue;
            }
            let since = was_missing.get(name).copied().unwrap_or_else(Instant::now);
            self.missing.insert(name.clone(), since);
            if since.elapsed() >= BELIEVED_AFTER {
                if self.config.is_named(name) {
                    let brokers = self.config.brokers.clone();
                    let missing = IngestError::MissingTopic { topic: name.clone(), brokers };
                    self.sender.blocking_send(Seen::Failed(missing)).ok();
                    return Ok(());
                }
                went.push(index);
            }
        }
        let new = self.config.matched(names.iter().map(String::as_str).filter(|name| !read.is_read(name)));
        let mut came = Vec::new();
        for config in new {
            let name = config.topic.clone();
            match broker::describe_readable(client, &self.config, config) {
                Ok(topic) => came.push(topic),
                Err(error) if self.control.aside.takes(&self.config, &name, &error) => {}
                Err(error) => return Err(error),
            }
        }
        for name in self.control.aside.names().into_iter().filter(|name| !names.contains(name)) {
            self.control.aside.release(&self.config, &name);
        }
        if !went.is_empty() {
            self.sender.blocking_send(Seen::Went(went)).ok();
        }
        if !came.is_empty() {
            self.sender.blocking_send(Seen::Came(came)).ok();
        }
        Ok(())
    }

    /// Kafka refused a topic to the reader. It must not be one that the configuration names.
    fn set_unreadable_aside(&self, client: &BaseConsumer<Asking>, read: &ReadTopics) -> Result<()> {
        let unreadable = broker::unreadable(client, &self.config, &read.list)?;
        if unreadable.is_empty() {
            let (brokers, what) = (self.config.brokers.clone(), "a topic".to_owned());
            let why = "the client does not say which one".to_owned();
            return Err(IngestError::Refused { brokers, what, why });
        }
        for (_, error) in unreadable {
            if !self.control.set_aside(&self.config, &error) {
                return Err(error);
            }
        }
        Ok(())
    }
}
