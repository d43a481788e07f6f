//! Messages on their way from the poll thread to the decoders: copied out of the client, many at a time.

use std::ops::Range;

use rdkafka::Message;
use weir_decode::{Headers, Incoming, begins_with_schema};

use super::PartitionKey;
use crate::TopicConfig;

/// The header in which serializers of schema registries can name the schema of the value.
const SCHEMA_HEADER: &str = "__value_schema_id";
/// What stands before a value whose header names no schema: nothing that begins so is taken for framed.
const UNFRAMED: &[u8] = &[0xff];
/// Messages in a chunk, or fewer when less is flushed at a time.
pub(super) const CHUNK_MESSAGES: usize = 8_192;
/// Payload bytes in a chunk: some thousand events, over which the fixed costs of a batch are spread.
const CHUNK_BYTES: usize = 4 << 20;

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

    /// Its memory, to be filled again; none when one large message has made it too large to be kept for ever.
    pub(super) fn emptied(mut self) -> Option<Self> {
        self.bytes.clear();
        self.entries.clear();
        Some(self).filter(|chunk| chunk.bytes.capacity() <= 2 * CHUNK_BYTES)
    }

    #[inline]
    pub(super) fn is_full(&self, flush_rows: usize) -> bool {
        self.entries.len() >= CHUNK_MESSAGES.min(flush_rows) || self.bytes.len() >= CHUNK_BYTES
    }
}

/// Of a header that comes several times the last counts, as for Kafka's own clients.
fn last_value<'h>(headers: &'h impl rdkafka::message::Headers, name: &str) -> Option<&'h [u8]> {
    let last = (0..headers.count()).rev().map(|place| headers.get(place)).find(|header| header.key == name);
    last.and_then(|header| header.value)
}
