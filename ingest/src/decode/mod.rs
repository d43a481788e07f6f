//! Messages to record batches: many at once, with each bad message set apart and its neighbours untouched.

mod door;
mod reading;
mod stage;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use weir_decode::{Encoding, Incoming, Piece, Reason, Row, SchemaSource, Wire, check};
use weir_schemas::Contract;
use weir_store::Keyring;

pub(crate) use door::EXTRA;
pub(crate) use stage::{DecodedChunk, Decoders, OfTopic, Stage, Staged};

use crate::decode::door::Door;
use crate::decode::reading::{Read, Reading, Reasons};
use crate::{Format, IngestError, Result, TypeConflicts};

/// A message that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Index into the messages given.
    pub message: usize,
    /// Why; never quotes the message.
    pub reason: Reason,
}

/// What a run of messages became. Every message is in `batches`, in `rejected`, or a tombstone.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Rows for the raw table of each contract, in message order, with the schema of `raw_table_spec`.
    pub batches: Vec<(&'static Contract, RecordBatch)>,
    /// Dead letters, in message order.
    pub rejected: Vec<Rejected>,
    /// Messages without a value: counted, nothing to store.
    pub tombstones: u64,
    /// Values that became null because of their type, by `table.column`, where its policy says so.
    pub nulled: BTreeMap<String, u64>,
    /// Headers of the topic's list whose values are no UTF-8.
    pub headers_left_out: u64,
    /// Fields that the contract lacks and nobody keeps; of an adapted format none are counted, since an adapter reads what
    /// it needs of another system's records.
    pub unknown_fields: u64,
    /// The first names of such fields.
    pub unknown_names: Vec<String>,
}

impl Decoded {
    /// Rows over all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.batches.iter().map(|(_, batch)| batch.num_rows() as u64).sum()
    }
}

/// Decodes the messages of one topic. Knows no Kafka client: a benchmark or a file reader can drive it.
///
/// A message is good or bad as a whole, and which one depends on its bytes and its Kafka timestamp only, never on the
/// clock or on its neighbours. Read again, it is judged the same, unless the configuration, the version or the registry
/// has changed in between.
#[derive(Debug)]
pub struct Decoder {
    wire: Wire,
    /// JSON that was made of messages.
    made: Vec<u8>,
    reading: Reading,
    doors: Vec<Door>,
    headers: Vec<String>,
}

impl Decoder {
    /// A decoder for a topic's format. `allowed_unknown` names the unknown fields to keep in `extra`; of an adapted
    /// format the adapter's own keys are kept there, and no others.
    #[must_use]
    pub fn new(topic: &str, format: Format, keyring: Keyring, keep_text: bool, allowed_unknown: &[String]) -> Self {
        Self::with_type_conflicts(topic, format, keyring, keep_text, allowed_unknown, &TypeConflicts::default())
    }

    /// The same with policies for values of another type.
    #[must_use]
    pub fn with_type_conflicts(
        topic: &str,
        format: Format,
        keyring: Keyring,
        keep_text: bool,
        allowed_unknown: &[String],
        type_conflicts: &TypeConflicts,
    ) -> Self {
        let reading = Reading::new(&format, keep_text, allowed_unknown, type_conflicts);
        let allowed_unknown = if reading.is_native() { allowed_unknown } else { &[] };
        let door = |contract| Door::new(contract, topic, keyring.clone(), keep_text, allowed_unknown);
        let doors = format.contracts().into_iter().map(door).collect();
        Self { wire: Wire::new(Encoding::Json, None), made: Vec::new(), reading, doors, headers: Vec::new() }
    }

    /// The same for messages of that encoding, with their schemas from there.
    #[must_use]
    pub fn with_encoding(mut self, encoding: Encoding, schemas: Option<Arc<dyn SchemaSource>>) -> Self {
        self.wire = Wire::new(encoding, schemas);
        self
    }

    /// The same with the headers of that list kept in `extra`.
    #[must_use]
    pub fn with_headers(mut self, headers: &[String]) -> Self {
        self.headers = headers.to_vec();
        for door in &mut self.doors {
            door.keep_headers(headers);
        }
        self
    }

    /// Decodes a run of messages.
    ///
    /// # Errors
    /// [`IngestError::Store`] when a tenant's key cannot be made, [`IngestError::Schema`] when a schema cannot be had; never
    /// for what messages hold.
    pub fn decode(&mut self, messages: &[Incoming<'_>]) -> Result<Decoded> {
        let mut decoded = Decoded::default();
        let present = messages.iter().enumerate().filter_map(|(message, incoming)| {
            let Some(bytes) = incoming.payload else {
                decoded.tombstones += 1;
                return None;
            };
            Some(Row { message, bytes })
        });
        let present: Vec<Row<'_>> = present.collect();
        decoded.headers_left_out = self.headers_left_out(messages);
        let mut reasons = Reasons::new();
        let rows = self.wire.rows(&present, &mut self.made, |message, reason| drop(reasons.insert(message, reason)))?;
        let Read { mut pieces, nulled, unknown_fields, unknown_names } =
            self.reading.read(&rows, messages, &mut reasons)?;
        (decoded.nulled, decoded.unknown_fields, decoded.unknown_names) = (nulled, unknown_fields, unknown_names);
        for (contract, piece) in &mut pieces {
            check(contract, piece, messages, &mut reasons);
        }
        // A message is the unit: when one of its rows is bad, all of them are held back.
        let bad: HashSet<usize> = reasons.keys().copied().collect();
        for (contract, piece) in pieces {
            let Some(door) = self.doors.iter().find(|door| door.is_of(contract)) else { continue };
            if let Some(piece) = without(piece, &bad).map_err(|why| batch_error(contract, why))? {
                decoded.batches.push((contract, door.admit(&piece, messages)?));
            }
        }
        decoded.rejected = reasons.into_iter().map(|(message, reason)| Rejected { message, reason }).collect();
        Ok(decoded)
    }
}

impl Decoder {
    fn headers_left_out(&self, messages: &[Incoming<'_>]) -> u64 {
        if self.headers.is_empty() {
            return 0;
        }
        let all = messages.iter().flat_map(|message| message.headers.iter());
        let ours = all.filter(|(name, _)| self.headers.iter().any(|listed| listed == name));
        ours.filter(|(_, value)| std::str::from_utf8(value).is_err()).count() as u64
    }
}

/// The piece without rows of bad messages; `None` when nothing is left.
fn without<'a>(piece: Piece<'a>, bad: &HashSet<usize>) -> Result<Option<Piece<'a>>, arrow::error::ArrowError> {
    if piece.rows.iter().all(|row| !bad.contains(&row.message)) {
        return Ok((!piece.rows.is_empty()).then_some(piece));
    }
    let keep: BooleanArray = piece.rows.iter().map(|row| Some(!bad.contains(&row.message))).collect();
    let batch = filter_record_batch(&piece.batch, &keep)?;
    let rows: Vec<_> = piece.rows.into_iter().filter(|row| !bad.contains(&row.message)).collect();
    Ok((!rows.is_empty()).then_some(Piece { batch, rows }))
}

pub(crate) fn batch_error(contract: &Contract, why: impl std::fmt::Display) -> IngestError {
    IngestError::Batch { table: contract.name, why: why.to_string() }
}

#[cfg(test)]
mod tests;
