//! Reads durable messages in their order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::record::{self, Decoded, HEADER_BYTES};
use super::segment::{self, Segment};
use super::{Position, Shared};
use crate::message::Message;

/// Bytes read from a segment at once.
const CHUNK_BYTES: u64 = 256 << 10;

/// What comes next.
#[derive(Debug)]
pub(crate) enum Read {
    /// A message.
    Message(Position, Message),
    /// Nothing durable is unread.
    Nothing,
    /// The disk no longer gives back what it had made durable: so many messages from this position on are gone.
    Lost(Position, u64, io::Error),
}

/// Stands somewhere in the buffer.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    current: Option<Current>,
    /// The last segment that was read to its end.
    done: u64,
}

struct Current {
    file: File,
    number: u64,
    id: u64,
    /// Where the next record starts.
    at: u64,
    /// Its index.
    index: u64,
    /// Bytes of the file from `chunk_at` on.
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, current: None, done: 0 }
    }

    /// Starts again at the oldest message that is still here.
    pub(crate) fn rewind(&mut self) {
        self.current = None;
        self.done = 0;
    }

    /// The next message.
    pub(crate) fn next(&mut self) -> Read {
        loop {
            let Some(segment) = self.segment() else { return Read::Nothing };
            let current = match self.current.take() {
                Some(current) => current,
                None => match File::open(segment::path(&self.shared.folder, segment.number)) {
                    Ok(file) => Current::start(file, &segment),
                    Err(error) => {
                        let from = Position { number: segment.number, id: segment.id, index: 0 };
                        return self.give_up(&segment, from, error);
                    }
                },
            };
            let current = self.current.insert(current);
            if current.at >= segment.durable_bytes {
                if !segment.sealed {
                    return Read::Nothing;
                }
                self.done = segment.number;
                self.current = None;
                continue;
            }
            let position = Position { number: current.number, id: current.id, index: current.index };
            match current.record(segment.durable_bytes) {
                Ok(message) => return Read::Message(position, message),
                Err(error) => return self.give_up(&segment, position, error),
            }
        }
    }

    /// The segment being read, as it is now, or the one after the last that was read.
    fn segment(&self) -> Option<Segment> {
        let state = self.shared.state();
        let number = self.current.as_ref().map(|current| current.number);
        state
            .segments
            .iter()
            .find(|segment| number.map_or(segment.number > self.done, |n| segment.number == n))
            .cloned()
    }

    /// Goes on behind what can't be read.
    fn give_up(&mut self, segment: &Segment, from: Position, error: io::Error) -> Read {
        match &mut self.current {
            Some(current) => (current.at, current.index) = (segment.durable_bytes, segment.records),
            None => self.done = segment.number,
        }
        Read::Lost(from, segment.records - from.index, error)
    }
}

impl Current {
    fn start(file: File, segment: &Segment) -> Self {
        Self {
            file,
            number: segment.number,
            id: segment.id,
            at: HEADER_BYTES,
            index: 0,
            chunk: Vec::new(),
            chunk_at: HEADER_BYTES,
        }
    }

    /// The record at `at`, which ends at `durable_bytes` at the latest.
    fn record(&mut self, durable_bytes: u64) -> io::Result<Message> {
        let mut wanted = 0;
        loop {
            let skip = usize::try_from(self.at - self.chunk_at).unwrap_or(usize::MAX);
            match record::decode(self.chunk.get(skip..).unwrap_or_default()) {
                Decoded::Record(message, used) => {
                    self.at += used as u64;
                    self.index += 1;
                    return Ok(message);
                }
                // Asked for already and still short: the file ends before its durable length.
                Decoded::Short(needed) if needed > wanted => {
                    wanted = needed;
                    let bytes = (needed as u64).max(CHUNK_BYTES).min(durable_bytes - self.at);
                    self.chunk.resize(usize::try_from(bytes).map_err(io::Error::other)?, 0);
                    self.chunk_at = self.at;
                    self.file.read_exact_at(&mut self.chunk, self.at)?;
                }
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a record does not match its checksum")),
            }
        }
    }
}
