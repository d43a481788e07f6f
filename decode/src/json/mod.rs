//! JSON text to columns in one pass, without a tree in between.
//!
//! **In:** rows, each the bytes of one JSON object. **Out:** one record batch of the rows that are good, and the reason
//! of each that is not. A row is read straight into the columns; if it turns out to be bad, what it left behind is cut
//! off again, so that bad rows cost as much as good ones and neighbours never notice.
//!
//! **Means what arrow-json means**: the same values and the same refusals for the same bytes, which tests hold against it
//! (`oracle`). On purpose there are three differences. Integers are whole numbers: 12.7 is refused
//! where arrow-json cuts it to 12. A refusal says what is wrong with the row, in our words. And a column can have a policy
//! for values of another type ([`OnConflict`]).

mod column;
mod cursor;
mod number;
mod object;
#[cfg(any(test, feature = "oracle"))]
pub mod oracle;
#[cfg(test)]
mod tests;
mod unknown;
mod validity;

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};

pub use column::JSON_TEXT;
pub use object::OnConflict;

use self::column::{NotTaken, Scratch};
use self::cursor::{Broken, Cursor};
use self::object::{Conflict, Object};
use crate::{Piece, Reason, Row, RowDecoder, RowsDecoded};

/// Rows in a batch.
const BATCH_ROWS: usize = 8_192;
/// Bytes in a batch, unless one row alone has more: offsets are 32 bits wide.
const BATCH_BYTES: usize = 64 << 20;
/// Values behind the first one that are looked at for their grammar, as arrow-json does.
const VALUES_MAX: usize = 4_097;

/// Decodes JSON objects into a given schema.
#[derive(Debug)]
pub struct JsonDecoder {
    schema: SchemaRef,
    object: Object,
    /// By column; empty when every conflict is a dead letter.
    policies: Vec<OnConflict>,
    scratch: Scratch,
    /// Columns that became null in the row at hand.
    nulled: Vec<u16>,
}

/// The schema has a column that no JSON value is read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedSchema;

impl JsonDecoder {
    /// A decoder of objects with these fields: text, booleans, numbers, and lists, structs and maps of them. A text
    /// field that is marked with [`JSON_TEXT`] takes any value as its JSON text. Members that the schema lacks are passed
    /// over. All fields are read as nullable.
    ///
    /// # Errors
    /// [`UnsupportedSchema`].
    pub fn new(schema: &Schema) -> Result<Self, UnsupportedSchema> {
        let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let object = Object::new(schema.fields(), false).ok_or(UnsupportedSchema)?;
        Ok(Self { schema, object, policies: Vec::new(), scratch: Scratch::default(), nulled: Vec::new() })
    }

    /// What to do with values of another type, by column; columns that are not named keep [`OnConflict::DeadLetter`].
    ///
    /// [`OnConflict::Widen`] keeps any value of a text column as its JSON text, and a single element of a list column
    /// as a list of one.
    #[must_use]
    pub fn with_policies(mut self, policy_of: impl Fn(&str) -> OnConflict) -> Self {
        self.policies = self.schema.fields().iter().map(|field| policy_of(field.name())).collect();
        if self.policies.iter().all(|policy| *policy == OnConflict::DeadLetter) {
            self.policies.clear();
        }
        self
    }

    /// Counts members that the schema lacks, except those of these names: in good rows, and not inside structs. It costs
    /// nothing to have none, and the excepted names are found as fast as columns.
    #[must_use]
    pub fn counting_unknown<'n>(mut self, except: impl IntoIterator<Item = &'n str>) -> Self {
        self.object.count_unknown(except);
        self
    }

    /// Reads one row as number `row` of the batch, or says why not and leaves nothing behind.
    fn take(&mut self, row: usize, bytes: &[u8]) -> Result<(), Reason> {
        let is_utf8 = std::str::from_utf8(bytes).is_ok();
        if let Some(unknown) = self.object.unknown() {
            unknown.begin_row();
        }
        let read = self.read(row, bytes);
        let refused = match read {
            Ok(()) if is_utf8 => return Ok(()),
            // arrow-json looks at the encoding when it is done with the grammar, and before it looks at types.
            Err(Reason::NotAnObject | Reason::WrongType { .. }) | Ok(()) if !is_utf8 => Reason::Unreadable,
            Ok(()) => return Ok(()),
            Err(reason) => reason,
        };
        self.object.truncate(row);
        if let Some(unknown) = self.object.unknown() {
            unknown.forget_row();
        }
        Err(refused)
    }

    fn read(&mut self, row: usize, bytes: &[u8]) -> Result<(), Reason> {
        let mut cursor = Cursor::new(bytes);
        let first = cursor.peek().ok_or(Reason::Empty)?;
        let is_object = first == b'{';
        let one = if is_object {
            self.read_object(row, &mut cursor)
        } else {
            cursor.skip_value(&mut self.scratch.text, &mut self.scratch.nesting)
        };
        one.map_err(|broken| match broken {
            Broken::NotJson => Reason::NotJson,
            Broken::Truncated => Reason::Truncated,
        })?;
        self.nothing_behind(&mut cursor)?;
        if !is_object {
            return Err(Reason::NotAnObject);
        }
        match first_conflict(self.object.conflicts()) {
            None => Ok(()),
            Some(Conflict { column, .. }) => {
                let field = self.schema.field(usize::from(column)).name().clone();
                Err(Reason::WrongType { field: Cow::Owned(field) })
            }
        }
    }

    fn read_object(&mut self, row: usize, cursor: &mut Cursor<'_>) -> Result<(), Broken> {
        self.nulled.clear();
        let (policies, nulled) = (&self.policies, &mut self.nulled);
        self.object.read(row, cursor, &mut self.scratch, |column, number, cursor, scratch| {
            match policies.get(usize::from(number)).copied().unwrap_or_default() {
                OnConflict::DeadLetter => false,
                OnConflict::Null => {
                    let skipped = cursor.skip_value(&mut scratch.text, &mut scratch.nesting).is_ok();
                    if skipped {
                        column.push_nulls(1);
                        nulled.push(number);
                    }
                    skipped
                }
                OnConflict::Widen => column.push_widened(cursor, scratch).is_ok(),
            }
        })
    }

    /// A message is one value: whatever follows it is one too many, or no JSON.
    fn nothing_behind(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Reason> {
        let mut several = false;
        for _ in 1..VALUES_MAX {
            if cursor.peek().is_none() {
                break;
            }
            several = true;
            match cursor.skip_value(&mut self.scratch.text, &mut self.scratch.nesting) {
                Ok(()) => {}
                Err(Broken::NotJson) => return Err(Reason::NotJson),
                Err(Broken::Truncated) => break,
            }
        }
        if several { Err(Reason::SeveralValues) } else { Ok(()) }
    }

    fn decode_batch<'a>(&mut self, rows: &[Row<'a>], decoded: &mut RowsDecoded<'a>) {
        let mut good = Vec::with_capacity(rows.len());
        for row in rows {
            match self.take(good.len(), row.bytes) {
                Ok(()) => {
                    good.push(*row);
                    decoded.count_nulled(&self.nulled, |column| self.schema.field(usize::from(column)).name());
                }
                Err(reason) => decoded.rejected.push((row.message, reason)),
            }
        }
        let columns = self.object.finish(self.schema.fields(), good.len());
        if good.is_empty() {
            return;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(good.len()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .expect("columns of the schema's types, all of one length");
        decoded.pieces.push(Piece { batch, rows: good });
    }
}

impl RowDecoder for JsonDecoder {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn decode<'a>(&mut self, rows: &[Row<'a>]) -> RowsDecoded<'a> {
        let mut decoded = RowsDecoded::default();
        let mut rest = rows;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(BATCH_ROWS).take_while(|row| {
                bytes += row.bytes.len();
                bytes <= BATCH_BYTES
            });
            let (batch, later) = rest.split_at(fits.count().max(1));
            self.decode_batch(batch, &mut decoded);
            rest = later;
        }
        if let Some(unknown) = self.object.unknown() {
            (decoded.unknown_fields, decoded.unknown_names) = unknown.take();
        }
        decoded
    }
}

/// The one that arrow-json would name: values that are no number at all come before numbers that are not whole, and the
/// order is the schema's.
fn first_conflict(conflicts: &[Conflict]) -> Option<Conflict> {
    conflicts.iter().copied().min_by_key(|conflict| (conflict.why == NotTaken::NotWhole, conflict.column))
}
