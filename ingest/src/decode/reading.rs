//! From a topic's messages to rows of contracts, by the topic's format.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
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

/// What a run of rows became.
#[derive(Default)]
pub(super) struct Read<'a> {
    pub(super) pieces: Pieces<'a>,
    /// What became null because of its type, by `table.column`.
    pub(super) nulled: BTreeMap<String, u64>,
    /// Fields of good rows that their contract lacks and nobody keeps.
    pub(super) unknown_fields: u64,
    /// The first names of these.
    pub(super) unknown_names: Vec<String>,
}

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
    pub(super) fn new(format: &Format, keep_text: bool, allowed_unknown: &[String], conflicts: &TypeConflicts) -> Self {
        match format {
            Format::VllmSemanticRouter => {
                let rows = |contract| (contract, boxed(adapted_rows(contract, keep_text)));
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
                Self::Contract { contract, rows: boxed(native_rows(contract, keep_text, allowed_unknown, conflicts)) }
            }
        }
    }

    /// Does the sender write columns of the contract, so that its unknown fields mean anything?
    pub(super) fn is_native(&self) -> bool {
        matches!(self, Self::Contract { .. })
    }

    /// Reads rows.
    pub(super) fn read<'a>(
        &mut self,
        present: &[Row<'a>],
        messages: &[Incoming<'_>],
        reasons: &mut Reasons,
    ) -> Result<Read<'a>> {
        let mut all = Read::default();
        let pieces = &mut all.pieces;
        match self {
            Self::Contract { contract, rows } => {
                let read = rows.decode(present);
                reject(read.rejected, reasons);
                all.nulled.extend(
                    read.nulled.into_iter().map(|(column, count)| (format!("{}.{column}", contract.name), count)),
                );
                (all.unknown_fields, all.unknown_names) = (read.unknown_fields, read.unknown_names);
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
                    take_projection(projection, message_of, reasons, pieces);
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
                take_projection(projection, message_of, reasons, pieces);
            }
        }
        Ok(all)
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

/// A decoder of JSON objects that an adapter wrote: `extra` is the adapter's, not the sender's.
fn adapted_rows(contract: &'static Contract, keep_text: bool) -> JsonDecoder {
    json_rows(contract, |name| !keep_text && contract.text_columns.contains(&name))
}

/// A decoder of JSON objects of a contract.
fn native_rows(
    contract: &'static Contract,
    keep_text: bool,
    allowed_unknown: &[String],
    conflicts: &TypeConflicts,
) -> JsonDecoder {
    let dropped = move |name: &str| name == EXTRA || (!keep_text && contract.text_columns.contains(&name));
    // Columns that are dropped on purpose, and fields that the door keeps, are not unknown.
    let columns = contract.fields.iter().map(|field| field.name).filter(|name| dropped(name));
    json_rows(contract, dropped)
        .with_policies(|column| conflicts.of(contract.name, column))
        .counting_unknown(columns.chain(allowed_unknown.iter().map(String::as_str)))
}

/// Columns that the door would drop are not even read.
fn json_rows(contract: &'static Contract, dropped: impl Fn(&str) -> bool) -> JsonDecoder {
    let contract_schema = contract.arrow_schema();
    let read: Vec<_> = contract_schema.fields().iter().filter(|field| !dropped(field.name())).cloned().collect();
    JsonDecoder::new(&Schema::new(read)).expect("a contract's fields all have a JSON form")
}

fn boxed(decoder: JsonDecoder) -> Box<dyn RowDecoder> {
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
