//! Messages to record batches: many at once, with each bad message set apart and its neighbours untouched.

mod door;
mod stage;

use std::collections::{BTreeMap, HashSet};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema};
use serde::Serialize;
use weir_decode::{Incoming, JsonDecoder, Piece, Reason, Row, RowDecoder, check};
use weir_schemas::Contract;
use weir_schemas::adapters::vllm_sr;
use weir_store::Keyring;

pub(crate) use stage::{DecodedChunk, Decoders, OfTopic, Stage, Staged};

use crate::decode::door::{Door, EXTRA};
use crate::{Format, IngestError, Result};

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
/// clock or on its neighbours: read again, it is judged the same.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    tables: Vec<TableDecoder>,
}

/// One contract's part: bytes of one record per row.
#[derive(Debug)]
struct TableDecoder {
    contract: &'static Contract,
    rows: Box<dyn RowDecoder>,
    door: Door,
}

impl Decoder {
    /// A decoder for a topic's format. `allowed_unknown` names the unknown fields to keep in `extra`; of an adapted
    /// format the adapter's own keys are kept there, and no others.
    #[must_use]
    pub fn new(topic: &str, format: Format, keyring: Keyring, keep_text: bool, allowed_unknown: &[String]) -> Self {
        let adapted = format == Format::VllmSemanticRouter;
        let allowed_unknown = if adapted { &[] } else { allowed_unknown };
        let tables = format.contracts().into_iter().map(|contract| TableDecoder {
            contract,
            rows: json_rows(contract, keep_text, adapted),
            door: Door::new(contract, topic, keyring.clone(), keep_text, allowed_unknown),
        });
        Self { format, tables: tables.collect() }
    }

    /// Decodes a run of messages.
    ///
    /// # Errors
    /// [`IngestError::Store`] when a tenant's key cannot be made; never for what messages hold.
    pub fn decode(&mut self, messages: &[Incoming<'_>]) -> Result<Decoded> {
        let mut decoded = Decoded::default();
        let mut reasons = BTreeMap::new();
        let present = messages.iter().enumerate().filter_map(|(message, incoming)| {
            let Some(bytes) = incoming.payload else {
                decoded.tombstones += 1;
                return None;
            };
            Some(Row { message, bytes })
        });
        let present: Vec<Row<'_>> = present.collect();
        let adapted;
        let rows_by_table: Vec<Vec<Row<'_>>> = if self.format == Format::VllmSemanticRouter {
            adapted = adapt(&present, &mut reasons);
            adapted
                .iter()
                .map(|rows| rows.iter().map(|(message, bytes)| Row { message: *message, bytes }).collect())
                .collect()
        } else {
            vec![present]
        };

        let mut pieces_by_table = Vec::with_capacity(self.tables.len());
        for (table, rows) in self.tables.iter_mut().zip(&rows_by_table) {
            let mut read = table.rows.decode(rows);
            reasons.extend(read.rejected);
            for piece in &mut read.pieces {
                check(table.contract, piece, messages, &mut reasons);
            }
            pieces_by_table.push(read.pieces);
        }
        // A message is the unit: when one of its rows is bad, all of them are held back.
        let bad: HashSet<usize> = reasons.keys().copied().collect();
        for (table, pieces) in self.tables.iter_mut().zip(pieces_by_table) {
            for piece in pieces {
                if let Some(piece) = without(piece, &bad).map_err(|why| batch_error(table.contract, why))? {
                    decoded.batches.push((table.contract, table.door.admit(&piece, messages)?));
                }
            }
        }
        decoded.rejected = reasons.into_iter().map(|(message, reason)| Rejected { message, reason }).collect();
        Ok(decoded)
    }
}

/// A decoder of JSON objects of a contract. Columns that the door would drop are not even read. `keep_extra` is for rows
/// that an adapter wrote: there `extra` is the adapter's, not the sender's.
fn json_rows(contract: &'static Contract, keep_text: bool, keep_extra: bool) -> Box<dyn RowDecoder> {
    let dropped = |field: &Field| {
        let name = field.name().as_str();
        (name == EXTRA && !keep_extra) || (!keep_text && contract.text_columns.contains(&name))
    };
    let contract_schema = contract.arrow_schema();
    let read: Vec<_> = contract_schema.fields().iter().filter(|field| !dropped(field)).cloned().collect();
    let decoder = JsonDecoder::new(&Schema::new(read)).expect("a contract's fields all have a JSON form");
    Box::new(decoder)
}

/// JSON objects per table, in the order of [`Format::contracts`], each with the message that it came from.
type AdaptedRows = [Vec<(usize, Vec<u8>)>; 2];

fn adapt(messages: &[Row<'_>], reasons: &mut BTreeMap<usize, Reason>) -> AdaptedRows {
    let mut rows = AdaptedRows::default();
    for Row { message, bytes } in messages {
        let adapted = match vllm_sr::adapt(bytes) {
            Ok(adapted) => adapted,
            Err(error) => {
                reasons.insert(*message, Reason::Adapter(error.to_string()));
                continue;
            }
        };
        let encoded = encode(&adapted.requests).and_then(|requests| Ok([requests, encode(&adapted.feedback)?]));
        match encoded {
            Ok(encoded) => {
                for (table, objects) in rows.iter_mut().zip(encoded) {
                    table.extend(objects.into_iter().map(|object| (*message, object)));
                }
            }
            Err(_) => {
                reasons.insert(*message, Reason::Adapter("the adapted record has no JSON form".to_owned()));
            }
        }
    }
    rows
}

fn encode<T: Serialize>(records: &[T]) -> serde_json::Result<Vec<Vec<u8>>> {
    records.iter().map(serde_json::to_vec).collect()
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
