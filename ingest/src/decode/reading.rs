//! From a topic's messages to rows of contracts, by the topic's format.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use serde::Serialize;
use weir_adapters::{Adapter, Input, Projection, prometheus};
use weir_decode::{Incoming, JsonDecoder, Piece, Reason, Row, RowDecoder};
use weir_schemas::adapters::vllm_sr;
use weir_schemas::{Contract, Feedback, Request};

use super::batch_error;
use super::door::EXTRA;
use crate::{Format, IngestError, Result, TypeConflicts};

/// Rows of contracts, each with the message that it came from, not yet held against the contract.
type Pieces<'a> = Vec<(&'static Contract, Piece<'a>)>;

/// Why messages cannot be read, by index; the first reason counts.
pub(super) type Reasons = BTreeMap<usize, Reason>;

/// How the messages of a topic are read.
#[derive(Debug)]
pub(super) enum Reading {
    /// Each is a record of the contract.
    Contract { contract: &'static Contract, rows: Box<dyn RowDecoder> },
    /// Each is a replay record of vLLM Semantic Router, from which an adapter makes JSON of both contracts.
    Replay([(&'static Contract, Box<dyn RowDecoder>); 2]),
    /// Each is a JSON object, projected by an adapter.
    Adapter { adapter: Arc<Adapter>, rows: Box<dyn RowDecoder> },
    /// Each is a page in the Prometheus text format, projected by an adapter.
    Pages(Arc<Adapter>),
}

impl Reading {
    pub(super) fn new(format: &Format, keep_text: bool, conflicts: &TypeConflicts) -> Self {
        match format {
            Format::VllmSemanticRouter => {
                let rows = |contract| (contract, json_rows(contract, keep_text, true, &TypeConflicts::default()));
                Self::Replay([rows(Request::contract()), rows(Feedback::contract())])
            }
            Format::Adapter(adapter) => match adapter.input() {
                Input::Json => {
                    let rows =
                        JsonDecoder::new(&adapter.input_schema()).expect("its column types all have a JSON form");
                    Self::Adapter { adapter: adapter.clone(), rows: Box::new(rows) }
                }
                Input::Prometheus { .. } => Self::Pages(adapter.clone()),
            },
            native @ (Format::Requests | Format::Feedback | Format::GpuTelemetry) => {
                let contract = native.contracts()[0];
                Self::Contract { contract, rows: json_rows(contract, keep_text, false, conflicts) }
            }
        }
    }

    /// Does the sender write columns of the contract, so that its unknown fields mean anything?
    pub(super) fn is_native(&self) -> bool {
        matches!(self, Self::Contract { .. })
    }

    /// Reads rows; what became null because of its type is counted by `table.column`.
    pub(super) fn read<'a>(
        &mut self,
        present: &[Row<'a>],
        messages: &[Incoming<'_>],
        reasons: &mut Reasons,
    ) -> Result<(Pieces<'a>, BTreeMap<String, u64>)> {
        let mut pieces = Vec::new();
        let mut nulled = BTreeMap::new();
        match self {
            Self::Contract { contract, rows } => {
                let read = rows.decode(present);
                reject(read.rejected, reasons);
                nulled.extend(
                    read.nulled.into_iter().map(|(column, count)| (format!("{}.{column}", contract.name), count)),
                );
                pieces.extend(read.pieces.into_iter().map(|piece| (*contract, piece)));
            }
            Self::Replay(tables) => {
                for ((contract, rows), objects) in tables.iter_mut().zip(adapt(present, reasons)) {
                    let objects: Vec<_> =
                        objects.iter().map(|(message, bytes)| Row { message: *message, bytes }).collect();
                    let read = rows.decode(&objects);
                    reject(read.rejected, reasons);
                    for piece in read.pieces {
                        pieces.push((*contract, without_bytes(piece)));
                    }
                }
            }
            Self::Adapter { adapter, rows } => {
                let read = rows.decode(present);
                reject(read.rejected, reasons);
                for piece in read.pieces {
                    let projection = adapter.project(&piece.batch).map_err(|error| bad(adapter, error))?;
                    let message_of = |row: u32| piece.rows[row as usize].message;
                    take_projection(projection, message_of, reasons, &mut pieces);
                }
            }
            Self::Pages(adapter) => {
                let page = |row: &Row<'a>| prometheus::Page {
                    text: row.bytes,
                    scraped_ms: messages[row.message].timestamp_ms,
                    key: None,
                };
                let given: Vec<_> = present.iter().map(page).collect();
                let read = adapter.read_pages(&given).map_err(|error| bad(adapter, error))?;
                for failed in read.failed {
                    reasons.insert(present[failed.row as usize].message, Reason::Adapter(failed.reason));
                }
                let projection = adapter.project(&read.batch).map_err(|error| bad(adapter, error))?;
                let message_of = |row: u32| present[read.pages[row as usize] as usize].message;
                take_projection(projection, message_of, reasons, &mut pieces);
            }
        }
        Ok((pieces, nulled))
    }
}

/// The first reason of a message counts: of several rows the first bad one.
fn reject(rejected: Vec<(usize, Reason)>, reasons: &mut Reasons) {
    for (message, reason) in rejected {
        reasons.entry(message).or_insert(reason);
    }
}

fn take_projection(
    projection: Projection,
    message_of: impl Fn(u32) -> usize,
    reasons: &mut Reasons,
    pieces: &mut Pieces<'_>,
) {
    for failed in projection.failed {
        reasons.entry(message_of(failed.row)).or_insert(Reason::Adapter(failed.reason));
    }
    for output in projection.outputs {
        let rows = output.rows.iter().map(|row| Row { message: message_of(*row), bytes: &[] }).collect();
        pieces.push((output.contract, Piece { batch: output.batch, rows }));
    }
}

/// What an adapter made has no unknown fields to look for in its bytes.
fn without_bytes<'a>(piece: Piece<'_>) -> Piece<'a> {
    let rows = piece.rows.iter().map(|row| Row { message: row.message, bytes: &[] }).collect();
    Piece { batch: piece.batch, rows }
}

fn bad(adapter: &Adapter, error: impl std::fmt::Display) -> IngestError {
    batch_error(adapter.outputs()[0], error)
}

/// A decoder of JSON objects of a contract. Columns that the door would drop are not even read. `keep_extra` is for rows
/// that an adapter wrote: there `extra` is the adapter's, not the sender's.
fn json_rows(
    contract: &'static Contract,
    keep_text: bool,
    keep_extra: bool,
    conflicts: &TypeConflicts,
) -> Box<dyn RowDecoder> {
    let dropped = |field: &Field| {
        let name = field.name().as_str();
        (name == EXTRA && !keep_extra) || (!keep_text && contract.text_columns.contains(&name))
    };
    let contract_schema = contract.arrow_schema();
    let read: Vec<_> = contract_schema.fields().iter().filter(|field| !dropped(field)).cloned().collect();
    let decoder = JsonDecoder::new(&Schema::new(read)).expect("a contract's fields all have a JSON form");
    Box::new(decoder.with_policies(|column| conflicts.of(contract.name, column)))
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
