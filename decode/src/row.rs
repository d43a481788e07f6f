//! What goes into a decoder and what comes out.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::{Headers, Reason};

/// One Kafka message, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Partition that it came from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its Kafka timestamp, ms since the Unix epoch, if it has one.
    pub timestamp_ms: Option<i64>,
    /// Its value; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// Those of its headers that its topic's list names.
    pub headers: Headers<'a>,
}

/// One row to decode, and the message that it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Index into the messages given.
    pub message: usize,
    /// One record.
    pub bytes: &'a [u8],
}

/// Rows that decoded together.
#[derive(Debug)]
pub struct Piece<'a> {
    /// Their values.
    pub batch: RecordBatch,
    /// As many as the batch has rows.
    pub rows: Vec<Row<'a>>,
}

/// What rows became: each is in a piece or was rejected.
#[derive(Debug, Default)]
pub struct RowsDecoded<'a> {
    /// Good rows, in their order.
    pub pieces: Vec<Piece<'a>>,
    /// The message and the reason of each bad row, in their order.
    pub rejected: Vec<(usize, Reason)>,
    /// Values that became null because of their type, by column, where its policy says so.
    pub nulled: BTreeMap<String, u64>,
    /// Fields of good rows that nothing reads, where they are counted.
    pub unknown_fields: u64,
    /// The first names of such fields, each once and cut to a length.
    pub unknown_names: Vec<String>,
}

impl RowsDecoded<'_> {
    pub(crate) fn count_nulled<'n>(&mut self, columns: &[u16], name: impl Fn(u16) -> &'n String) {
        for column in columns {
            let name = name(*column);
            match self.nulled.get_mut(name) {
                Some(count) => *count += 1,
                None => drop(self.nulled.insert(name.clone(), 1)),
            }
        }
    }
}

/// Decodes one encoding into one schema.
pub trait RowDecoder: std::fmt::Debug + Send {
    /// The schema of every piece's batch; all fields are nullable.
    fn schema(&self) -> SchemaRef;

    /// Decodes rows, each on its own merits.
    fn decode<'a>(&mut self, rows: &[Row<'a>]) -> RowsDecoded<'a>;
}
