//! What messages are on the wire, made into JSON objects: whatever reads rows then has one kind of row to read.
//!
//! **In:** messages. **Out:** the bytes of one JSON object per row, in message order, or the [`Reason`] why a message has
//! none. A message is good or bad as a whole.
//!
//! Avro and Protobuf come in the framing of Confluent's serializers: a zero byte, the four bytes of the schema's id, for
//! Protobuf the path to the message's type in its file, then the value. Or it begins with a one, and the schema's GUID
//! stands for its id. It is read by the schema that it was written with; how its fields meet the contract's columns, by name, is what the JSON decoder does anyway: absent ones are
//! null, unknown ones are passed over, numbers are numbers, and a value of another type is a conflict.
//!
//! Where no schema can be had because the registry is out of reach, no message is judged: it may be good
//! ([`SchemaTrouble`]). That the registry has none of that id is an answer, and the message a dead letter: any bytes that
//! begin with a zero look as if they named a schema, and must not hold up those behind them.

mod avro;
mod json_out;
mod protobuf;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "oracle"))]
pub(crate) use protobuf::Oracle as ProtobufOracle;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::{Reason, Row};

/// What the bytes of a message are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// What the format says: one JSON object, or one page.
    #[default]
    Json,
    /// JSON objects, one a line. Blank lines are passed over; one bad line makes the message bad.
    JsonLines,
    /// One Avro record, framed with the id of its schema.
    Avro,
    /// One Protobuf message, framed with the id of its schema and the path to its type.
    Protobuf,
}

impl Encoding {
    /// Does reading it take a schema registry?
    #[must_use]
    pub fn needs_schemas(self) -> bool {
        matches!(self, Self::Avro | Self::Protobuf)
    }
}

/// What a registry knows a schema by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaId {
    /// Its number there.
    Number(u32),
    /// The same in every registry that has it.
    Guid([u8; 16]),
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match self {
            Self::Number(number) => return number.fmt(f),
            Self::Guid(bytes) => bytes,
        };
        for (place, byte) in bytes.iter().enumerate() {
            let hyphen = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

/// The language of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaLanguage {
    /// Avro's JSON.
    Avro,
    /// A `.proto` file.
    Protobuf,
    /// Anything else.
    Other,
}

/// A schema as it was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// What it is written in.
    pub language: SchemaLanguage,
    /// Its text.
    pub text: String,
    /// Names and texts of the schemas that it refers to, directly or not; each after those that it refers to itself.
    pub references: Vec<(String, String)>,
}

/// Why a schema cannot be had now: nobody answers, or access is refused. Never the fault of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaTrouble(pub String);

impl fmt::Display for SchemaTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SchemaTrouble {}

/// What a source of schemas answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaAnswer {
    /// This is it; for ever.
    Schema(Arc<RegisteredSchema>),
    /// There is none by that id. It may be registered yet.
    Unknown,
    /// There is one, and nobody can read with it.
    Unusable(&'static str),
}

/// Where schemas come from. What an id stands for never changes.
pub trait SchemaSource: fmt::Debug + Send + Sync {
    /// The schema that goes by that; may block. It is asked again whenever an id that was unknown comes again, so it has to
    /// remember that for a while.
    ///
    /// # Errors
    /// [`SchemaTrouble`], when there is no answer now.
    fn schema(&self, id: SchemaId) -> Result<SchemaAnswer, SchemaTrouble>;
}

/// Makes JSON objects of messages of one encoding.
#[derive(Debug)]
pub struct Wire {
    encoding: Encoding,
    schemas: Option<Arc<dyn SchemaSource>>,
    /// By id; an id whose schema is of no use to us is known too. Never one that is unknown: it may be registered yet.
    compiled: HashMap<SchemaId, Result<Arc<Compiled>, Reason>>,
    scratch: protobuf::Scratch,
}

/// A schema in the form that values are read with.
#[derive(Debug)]
enum Compiled {
    Avro(avro::AvroSchema),
    Protobuf(protobuf::ProtobufSchema),
}

impl Wire {
    /// For messages of that encoding.
    #[must_use]
    pub fn new(encoding: Encoding, schemas: Option<Arc<dyn SchemaSource>>) -> Self {
        Self { encoding, schemas, compiled: HashMap::new(), scratch: protobuf::Scratch::default() }
    }

    /// The rows of the messages. Those that had to be made lie in `made`, the others in the messages themselves.
    ///
    /// # Errors
    /// [`SchemaTrouble`]: no message was judged.
    pub fn rows<'a>(
        &mut self,
        messages: &[Row<'a>],
        made: &'a mut Vec<u8>,
        mut reject: impl FnMut(usize, Reason),
    ) -> Result<Vec<Row<'a>>, SchemaTrouble> {
        match self.encoding {
            Encoding::Json => Ok(messages.to_vec()),
            Encoding::JsonLines => Ok(lines(messages, reject)),
            Encoding::Avro | Encoding::Protobuf => {
                made.clear();
                let mut ranges: Vec<(usize, Range<usize>)> = Vec::with_capacity(messages.len());
                for Row { message, bytes } in messages {
                    let start = made.len();
                    match self.make(bytes, made)? {
                        Ok(()) => ranges.push((*message, start..made.len())),
                        Err(reason) => {
                            made.truncate(start);
                            reject(*message, reason);
                        }
                    }
                }
                let made: &'a [u8] = made;
                Ok(ranges.into_iter().map(|(message, range)| Row { message, bytes: &made[range] }).collect())
            }
        }
    }

    /// Writes the JSON of one framed message, or as much of it as could be read.
    fn make(&mut self, bytes: &[u8], made: &mut Vec<u8>) -> Result<Result<(), Reason>, SchemaTrouble> {
        let (id, value) = match framed(bytes) {
            Ok(framed) => framed,
            Err(reason) => return Ok(Err(reason)),
        };
        let compiled = match self.compiled.get(&id) {
            Some(compiled) => compiled.clone(),
            None => {
                let compiled = self.compile(id)?;
                if !matches!(compiled, Err(Reason::UnknownSchema)) {
                    self.compiled.insert(id, compiled.clone());
                }
                compiled
            }
        };
        Ok(compiled.and_then(|compiled| match compiled.as_ref() {
            Compiled::Avro(schema) => schema.write_json(value, made),
            Compiled::Protobuf(schema) => schema.write_json(value, &mut self.scratch, made),
        }))
    }

    fn compile(&self, id: SchemaId) -> Result<Result<Arc<Compiled>, Reason>, SchemaTrouble> {
        let schemas =
            self.schemas.as_ref().ok_or_else(|| SchemaTrouble("no schema registry is configured".to_owned()))?;
        let compiled = match schemas.schema(id)? {
            SchemaAnswer::Schema(registered) => Compiled::new(self.encoding, &registered),
            SchemaAnswer::Unknown => return Ok(Err(Reason::UnknownSchema)),
            SchemaAnswer::Unusable(why) => Err(why),
        };
        Ok(compiled.map(Arc::new).map_err(|why| Reason::UnusableSchema { id, why }))
    }
}

impl Compiled {
    fn new(encoding: Encoding, registered: &RegisteredSchema) -> Result<Self, &'static str> {
        match (encoding, registered.language) {
            (Encoding::Avro, SchemaLanguage::Avro) => avro::AvroSchema::parse(registered).map(Self::Avro),
            (Encoding::Protobuf, SchemaLanguage::Protobuf) => {
                protobuf::ProtobufSchema::compile(registered).map(Self::Protobuf)
            }
            _ => Err("it is of another language than its topic's encoding"),
        }
    }
}

/// Names of the fields of each type that messages of a schema can be, in the schema's order; never empty.
///
/// # Errors
/// Why no message of the schema could become a row.
pub fn message_fields(encoding: Encoding, registered: &RegisteredSchema) -> Result<Vec<Vec<String>>, &'static str> {
    let types = match Compiled::new(encoding, registered)? {
        Compiled::Avro(schema) => schema.message_fields(),
        Compiled::Protobuf(schema) => schema.message_fields(),
    };
    if types.is_empty() { Err("it has no record, so its messages are no rows") } else { Ok(types) }
}

/// A message as one row a line.
fn lines<'a>(messages: &[Row<'a>], mut reject: impl FnMut(usize, Reason)) -> Vec<Row<'a>> {
    let mut rows = Vec::with_capacity(messages.len());
    for Row { message, bytes } in messages {
        let before = rows.len();
        let filled = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        rows.extend(filled.map(|bytes| Row { message: *message, bytes }));
        if rows.len() == before {
            reject(*message, Reason::Empty);
        }
    }
    rows
}

/// Does it begin with the id or the GUID of a schema, as a framed message does, or the header that stands for that?
#[must_use]
pub fn begins_with_schema(bytes: &[u8]) -> bool {
    framed(bytes).is_ok()
}

/// The schema's id, and what is behind it.
fn framed(bytes: &[u8]) -> Result<(SchemaId, &[u8]), Reason> {
    let framed = match bytes {
        [] => return Err(Reason::Empty),
        [0, rest @ ..] => {
            rest.split_first_chunk().map(|(id, value)| (SchemaId::Number(u32::from_be_bytes(*id)), value))
        }
        [1, rest @ ..] => rest.split_first_chunk().map(|(id, value)| (SchemaId::Guid(*id), value)),
        _ => None,
    };
    framed.ok_or(Reason::NotFramed)
}
