//! One JSON object per row to one record batch, with arrow-json's tape decoder.
//!
//! The decoder reads a stream and knows no message borders, and one bad byte spoils it. So after each row we check
//! that exactly one record came of it and none is open, and whatever fails as a batch is halved until the offenders
//! stand alone: `k` bad rows of `n` cost about `k log n` extra decodes, and good rows never pay for each other.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use weir_schemas::Contract;

use super::door::EXTRA;
use super::{Piece, Reason, Row};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 4_096;

/// Decodes rows of one contract; columns that the door would drop are not even read.
pub(super) struct JsonDecoder {
    contract: &'static Contract,
    schema: SchemaRef,
    /// Built at first use and after every failure: a decoder that has failed is spoilt.
    decoder: Option<Decoder>,
}

impl JsonDecoder {
    pub(super) fn new(contract: &'static Contract, keep_text: bool) -> Self {
        let dropped = |name: &str| name == EXTRA || (!keep_text && contract.text_columns.contains(&name));
        let contract_schema = contract.arrow_schema();
        let fields = contract_schema.fields().iter().filter(|field| !dropped(field.name())).map(|field| {
            // Required columns are checked afterwards, row by row; here they would fail the batch.
            Arc::new(field.as_ref().clone().with_nullable(true))
        });
        let fields: Vec<_> = fields.collect();
        Self { contract, schema: Arc::new(Schema::new(fields)), decoder: None }
    }

    /// Pieces in row order, and the message and reason of each row that is no such object.
    pub(super) fn decode<'a>(&mut self, rows: &[Row<'a>]) -> (Vec<Piece<'a>>, Vec<(usize, Reason)>) {
        let (mut pieces, mut rejected) = (Vec::new(), Vec::new());
        for rows in rows.chunks(BATCH_ROWS) {
            self.halve(rows, &mut pieces, &mut rejected);
        }
        (pieces, rejected)
    }

    fn halve<'a>(&mut self, rows: &[Row<'a>], pieces: &mut Vec<Piece<'a>>, rejected: &mut Vec<(usize, Reason)>) {
        match self.decode_together(rows) {
            Ok(batch) => pieces.push(Piece { batch, rows: rows.to_vec() }),
            Err(reason) => {
                self.decoder = None;
                if let [row] = rows {
                    rejected.push((row.message, reason));
                    return;
                }
                let (left, right) = rows.split_at(rows.len() / 2);
                self.halve(left, pieces, rejected);
                self.halve(right, pieces, rejected);
            }
        }
    }

    /// All rows in one batch, or why that failed; the reason is exact when there is only one row.
    fn decode_together(&mut self, rows: &[Row<'_>]) -> Result<RecordBatch, Reason> {
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            empty => {
                // One more than we feed: at its batch size the decoder would stop in the middle of a row.
                let builder = ReaderBuilder::new(self.schema.clone()).with_batch_size(BATCH_ROWS + 1);
                empty.insert(builder.build_decoder().map_err(|_| Reason::Unreadable)?)
            }
        };
        for (fed, row) in rows.iter().enumerate() {
            let read = decoder.decode(row.bytes).map_err(|_| Reason::NotJson)?;
            let records = decoder.len() - fed;
            if decoder.has_partial_record() {
                // The open record counts already.
                return Err(if records > 1 { Reason::SeveralValues } else { Reason::Truncated });
            }
            match records {
                0 => return Err(Reason::Empty),
                1 if read == row.bytes.len() => {}
                _ => return Err(Reason::SeveralValues),
            }
        }
        match decoder.flush() {
            Ok(Some(batch)) if batch.num_rows() == rows.len() => Ok(batch),
            Ok(_) => Err(Reason::Unreadable),
            Err(error) => Err(self.reason_of(&error)),
        }
    }

    /// Keeps the field's name of a conversion error and nothing else: the rest quotes the value.
    fn reason_of(&self, error: &ArrowError) -> Reason {
        let words = error.to_string();
        let named = words.split_once("whilst decoding field '").and_then(|(_, rest)| rest.split_once('\''));
        let field = named.and_then(|(name, _)| self.contract.field(name));
        match field {
            Some(field) => Reason::WrongType { field: field.name },
            None if words.contains("expected {") => Reason::NotAnObject,
            None => Reason::Unreadable,
        }
    }
}

impl std::fmt::Debug for JsonDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JsonDecoder").field("contract", &self.contract.name).finish_non_exhaustive()
    }
}
