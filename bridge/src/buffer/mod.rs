//! The disk buffer: what a sender was told "yes" for, until Kafka has it.
//!
//! Segment files of records ([`record`]) in one folder. One thread writes: it takes all waiting requests, appends their
//! messages, makes them durable with one `fdatasync`, and only then answers them. Another reads what is durable and
//! hands it to Kafka ([`crate::delivery`]). A segment is removed once Kafka has acknowledged all of it; what a killed
//! process left is read again by the next one, under the same positions.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod ledger;
mod reader;
mod record;
mod segment;
mod writer;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

pub(crate) use self::ledger::Ledger;
pub(crate) use self::reader::{Read, Reader};
use self::segment::Segment;
use crate::events;
use crate::message::Message;
use crate::{BridgeError, Result};

/// Requests that may wait for the writer; more wait at their connections.
const WAITING_REQUESTS: usize = 256;

/// Where a message lies. It stays the same over restarts, so a message that is delivered twice carries it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    /// Order of the segment.
    pub(crate) number: u64,
    /// The segment's random id.
    pub(crate) id: u64,
    /// The message's number in its segment, from 0.
    pub(crate) index: u64,
}

/// Why messages were not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// There is no room until Kafka has taken some of what is here.
    Full,
    /// The disk does not take them; the operating system's words.
    Disk(String),
    /// The bridge is stopping.
    Closing,
}

/// Where the buffer lies and how large it may grow.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) max_bytes: u64,
    pub(crate) segment_bytes: u64,
}

/// What opening found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Messages of an earlier process that Kafka may not have.
    pub(crate) messages: u64,
    /// Bytes of records that a crash cut off; no sender was told "yes" for them.
    pub(crate) torn_bytes: u64,
}

pub(crate) struct Buffer {
    shared: Arc<Shared>,
    jobs: SyncSender<Job>,
    writer: Mutex<Option<JoinHandle<()>>>,
    found: Found,
    // Released by the operating system when the process ends, however it ends.
    _lock: File,
}

enum Job {
    Append(Vec<Message>, oneshot::Sender<Result<(), NotTaken>>),
    Close,
}

/// What writer and reader share.
struct Shared {
    folder: PathBuf,
    limits: Limits,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// Of all segment files.
    bytes: u64,
    /// The last append found no room, and none was made since.
    full: bool,
    /// Nothing will be appended any more.
    closed: bool,
}

impl Buffer {
    /// Opens the folder, makes it if it is missing, and finds what an earlier process left.
    pub(crate) fn open(folder: &Path, limits: Limits) -> Result<(Self, Ledger)> {
        let failed = |source| BridgeError::Buffer { folder: folder.to_owned(), source };
        segment::make_folder(folder).map_err(failed)?;
        let lock =
            File::options().create(true).truncate(false).write(true).open(folder.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(BridgeError::BufferInUse { folder: folder.to_owned() });
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        let (segments, torn_bytes) = segment::recover(folder).map_err(failed)?;
        let ledger = Ledger::read(folder, segments.front());
        let held: u64 = segments.iter().map(|segment| segment.records).sum();
        let found = Found { messages: held - ledger.acknowledged(), torn_bytes };
        let bytes = segments.iter().map(|segment| segment.durable_bytes).sum();
        let state = State { segments, bytes, full: bytes >= limits.max_bytes, closed: false };
        events::buffer_opened(found, limits.max_bytes);
        events::buffer_bytes(bytes);
        let shared =
            Arc::new(Shared { folder: folder.to_owned(), limits, state: Mutex::new(state), changed: Condvar::new() });
        let (jobs, taken) = std::sync::mpsc::sync_channel(WAITING_REQUESTS);
        let writer = std::thread::Builder::new()
            .name("bridge-disk".into())
            .spawn({
                let shared = shared.clone();
                move || writer::run(&shared, &taken)
            })
            .map_err(failed)?;
        Ok((Self { shared, jobs, writer: Mutex::new(Some(writer)), found, _lock: lock }, ledger))
    }

    pub(crate) fn found(&self) -> Found {
        self.found
    }

    /// Makes the messages of one request durable, together with those of whoever else waits.
    pub(crate) async fn append(&self, messages: Vec<Message>) -> Result<(), NotTaken> {
        if messages.is_empty() {
            return Ok(());
        }
        let (done, outcome) = oneshot::channel();
        // A full queue is a disk that is slower than the senders: they are told so at once, and keep their data.
        self.jobs.try_send(Job::Append(messages, done)).map_err(|error| match error {
            std::sync::mpsc::TrySendError::Full(_) => NotTaken::Full,
            std::sync::mpsc::TrySendError::Disconnected(_) => NotTaken::Closing,
        })?;
        outcome.await.unwrap_or(Err(NotTaken::Closing))
    }

    /// Reads what is durable, from the oldest message on.
    pub(crate) fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    /// Is there no room?
    pub(crate) fn is_full(&self) -> bool {
        self.shared.state().full
    }

    /// Kafka has acknowledged all of these segments, and nothing is written to them any more.
    pub(crate) fn remove_finished(&self, ledger: &mut Ledger) {
        self.shared.remove_finished(ledger);
    }

    /// Messages that Kafka has not acknowledged.
    pub(crate) fn unacknowledged(&self, ledger: &Ledger) -> u64 {
        let state = self.shared.state();
        let held: u64 = state.segments.iter().map(|segment| segment.records).sum();
        held - ledger.acknowledged()
    }

    /// Waits until there is something new to read, or for so long.
    pub(crate) fn wait(&self, for_at_most: Duration) {
        let state = self.shared.state();
        let _state = self.shared.changed.wait_timeout(state, for_at_most);
    }

    /// Nothing is taken any more; what is being written is finished.
    pub(crate) fn close(&self) {
        // The writer is gone only if it has panicked, and then nothing can be written either way.
        self.jobs.send(Job::Close).ok();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            writer.join().ok();
        }
    }

    /// Nothing will be appended any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.state().closed
    }

    /// Writes down how far Kafka has acknowledged the oldest segment, so that a next process repeats little.
    pub(crate) fn save(&self, ledger: &mut Ledger) -> io::Result<()> {
        ledger.write(&self.shared.folder)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove_finished(&self, ledger: &mut Ledger) {
        loop {
            let finished = {
                let state = self.state();
                let oldest = state.segments.front();
                oldest.filter(|segment| segment.sealed && ledger.has_all(segment)).cloned()
            };
            let Some(segment) = finished else { return };
            if let Err(error) = std::fs::remove_file(segment::path(&self.folder, segment.number)) {
                // It will be read again after a restart; until then it is done with.
                events::not_removed(segment.number, &error);
            }
            ledger.forget(&segment);
            let mut state = self.state();
            state.segments.pop_front();
            state.bytes -= segment.durable_bytes;
            state.full = false;
            events::buffer_bytes(state.bytes);
        }
    }
}

#[cfg(test)]
mod tests;
