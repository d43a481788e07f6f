//! The same with arrow-json's tape decoder: what [`super::JsonDecoder`] is held against.
//!
//! The decoder reads a stream and knows no message borders, and one bad byte spoils it. So after each row we check
//! that exactly one record came of it and none is open, and whatever fails as a batch is halved until the offenders
//! stand alone: `k` bad rows of `n` cost about `k log n` extra decodes, and good rows never pay for each other.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;

use crate::{Piece, Reason, Row, RowsDecoded};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 4_096;

/// Up to here 64-bit floats hold every whole number: later than any event time.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Decodes rows of one schema.
pub struct Oracle {
    /// All nullable: required columns are checked afterwards, row by row; here they would fail the batch.
    schema: SchemaRef,
    /// As `schema`, with integers read as numbers: asked for integers, the reader cuts 12.7 to 12 without a word.
    wire_schema: SchemaRef,
    /// Built at first use and after every failure: a decoder that has failed is spoilt.
    decoder: Option<Decoder>,
}

impl Oracle {
    /// A decoder of objects with these fields, all read as nullable.
    #[must_use]
    pub fn new(schema: &Schema) -> Self {
        let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let on_the_wire = fields.iter().map(|field| match field.data_type() {
            DataType::Int32 | DataType::Int64 => field.clone().with_data_type(DataType::Float64),
            _ => field.clone(),
        });
        let wire_schema = Arc::new(Schema::new(on_the_wire.collect::<Vec<_>>()));
        Self { schema: Arc::new(Schema::new(fields)), wire_schema, decoder: None }
    }

    /// Pieces in row order, and the message and reason of each row that is no such object.
    pub fn decode<'a>(&mut self, rows: &[Row<'a>]) -> RowsDecoded<'a> {
        let mut decoded = RowsDecoded::default();
        for rows in rows.chunks(BATCH_ROWS) {
            self.halve(rows, &mut decoded.pieces, &mut decoded.rejected);
        }
        decoded
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
                let builder = ReaderBuilder::new(self.wire_schema.clone()).with_batch_size(BATCH_ROWS + 1);
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
            Ok(Some(batch)) if batch.num_rows() == rows.len() => self.with_integers(&batch),
            Ok(_) => Err(Reason::Unreadable),
            Err(error) => Err(self.reason_of(&error)),
        }
    }

    /// The batch with its integers as integers, or the first field with a number that is none.
    fn with_integers(&self, batch: &RecordBatch) -> Result<RecordBatch, Reason> {
        let columns = self.schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
            let integers = match field.data_type() {
                DataType::Int32 => {
                    whole::<Int32Type>(column, f64::from(i32::MIN), f64::from(i32::MAX), |number| number as i32)
                }
                DataType::Int64 => whole::<Int64Type>(column, -WHOLE_MAX, WHOLE_MAX, |number| number as i64),
                _ => return Ok(column.clone()),
            };
            integers.ok_or_else(|| Reason::WrongType { field: field.name().clone().into() })
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|_| Reason::Unreadable)
    }

    /// Keeps the field's name of a conversion error and nothing else: the rest quotes the value.
    fn reason_of(&self, error: &ArrowError) -> Reason {
        let words = error.to_string();
        let named = words.split_once("whilst decoding field '").and_then(|(_, rest)| rest.split_once('\''));
        let field = named.and_then(|(name, _)| self.schema.field_with_name(name).ok());
        match field {
            Some(field) => Reason::WrongType { field: field.name().clone().into() },
            None if words.contains("expected {") => Reason::NotAnObject,
            None => Reason::Unreadable,
        }
    }
}

/// A column of numbers as integers; `None` when one has a fraction or lies outside `low..=high`.
fn whole<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    low: f64,
    high: f64,
    convert: impl Fn(f64) -> T::Native,
) -> Option<ArrayRef> {
    let numbers = column.as_primitive::<Float64Type>();
    let fits = |number: f64| number.trunc() == number && low <= number && number <= high;
    // Empty slots hold zeros, which fit.
    let plain = numbers.values().iter().all(|number| fits(*number));
    (plain || numbers.iter().flatten().all(fits)).then(|| Arc::new(numbers.unary::<_, T>(convert)) as ArrayRef)
}

impl std::fmt::Debug for Oracle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oracle").field("schema", &self.schema).finish_non_exhaustive()
    }
}
