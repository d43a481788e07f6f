//! What the sink, and the lookout beside it, tell the poll thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::Thread;

use super::channel::CHUNKS_WAITING;
use super::{Chunk, PartitionKey, lock};
use crate::aside::Aside;
use crate::topics::Topics;
use crate::{IngestConfig, IngestError};

/// What the sink tells the poll thread.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(super) stop: AtomicBool,
    pub(super) rejoin: AtomicBool,
    pub(super) pauses: AtomicU64,
    /// Next offsets to show in Kafka, for people.
    pub(super) committed: Mutex<BTreeMap<PartitionKey, i64>>,
    /// Empty chunks whose memory can be used again.
    pub(super) spare: Mutex<Vec<Chunk>>,
    /// What to read, by the indices of partition keys.
    pub(crate) topics: Topics,
    pub(super) subscribe: AtomicBool,
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
    pub(super) fn wake_lookout(&self) -> bool {
        self.lookout.get().inspect(|lookout| lookout.unpark()).is_some()
    }

    /// Kafka refuses a topic, and the client does not say which: the lookout asks. False when there is none.
    pub(super) fn ask_which_is_refused(&self) -> bool {
        self.refused.store(true, Ordering::SeqCst);
        self.wake_lookout()
    }

    /// Is it to be asked which topic may not be read?
    pub(crate) fn take_refused(&self) -> bool {
        self.refused.swap(false, Ordering::SeqCst)
    }

    /// It is still to be asked.
    pub(crate) fn still_refused(&self) {
        self.refused.store(true, Ordering::SeqCst);
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
    pub(crate) fn reuse(&self, chunk: Chunk) {
        let mut spare = lock(&self.spare);
        if spare.len() < CHUNKS_WAITING {
            spare.extend(chunk.emptied());
        }
    }

    /// Trouble that passes: with brokers, or with a topic that they do not know: the lookout tells if it stays away.
    pub(super) fn passes(&self, config: &IngestConfig, error: &IngestError) -> bool {
        match error {
            IngestError::Unreachable { .. } | IngestError::Kafka(_) => true,
            IngestError::MissingTopic { .. } => self.wake_lookout(),
            // One that only a pattern matches is set aside, and the others are read.
            _ => self.set_aside(config, error),
        }
    }
}
