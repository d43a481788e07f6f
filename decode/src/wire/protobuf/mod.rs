//! Protobuf messages, written as JSON by the `.proto` text that they were written with.
//!
//! Members have the names of the file. A field that tells whether it was set (`optional`, messages, `oneof`) and was not is
//! left out; one that does not tell has the value that Protobuf says it has: zero, or empty. Enumerations are their
//! names, bytes base64, `Timestamp` milliseconds since the Unix epoch, `Duration` milliseconds, the wrapper types their
//! value, `Struct`, `Value` and `ListValue` the JSON that they stand for, `confluent.type.Decimal` a number.
//!
//! A message lies behind the path to its type: a count of steps and the steps; a zero alone is the file's first type.

mod compile;
#[cfg(any(test, feature = "oracle"))]
mod oracle;
mod read;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "oracle"))]
pub(crate) use oracle::Oracle;
pub(super) use read::Scratch;

use read::Reader;

use super::json_out;
use crate::Reason;

const MISFIT: Reason = Reason::NotOfItsSchema;
/// Steps of a path: types lie no deeper in each other.
const PATH_MAX: u64 = 32;

/// A compiled file.
#[derive(Debug)]
pub(super) struct ProtobufSchema {
    messages: Vec<MessageType>,
    enums: Vec<EnumType>,
    /// The file's types that lie in no other.
    roots: Vec<Place>,
}

/// A type, and those that lie in it.
#[derive(Debug)]
struct Place {
    /// Which message; none, when it is the entry of a map, which is no type of the file's text.
    message: Option<usize>,
    inner: Vec<Place>,
}

#[derive(Debug)]
struct MessageType {
    shape: Shape,
    /// In the file's order.
    fields: Vec<Field>,
    /// Number and place of each field, by number.
    numbers: Vec<(u32, u32)>,
    /// How many `oneof`s it has, of at least two fields.
    oneofs: usize,
}

/// What a message becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Object,
    /// What its only field becomes.
    Only,
    /// What the field that is set becomes, or null.
    AnyOf,
    /// Milliseconds since the Unix epoch.
    Timestamp,
    /// Milliseconds.
    Duration,
    /// Digits in two's complement, and how many of them lie behind the point.
    Decimal,
}

#[derive(Debug)]
struct Field {
    /// Its name as it begins a member in JSON.
    member: Vec<u8>,
    form: Form,
    /// Which of the message's `oneof`s it belongs to.
    oneof: Option<usize>,
    /// The JSON of a field that is not there; none, when it is left out.
    absent: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    One(Kind),
    List(Kind),
    /// By the type of its entries, whose fields are key and value.
    Map(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    /// `int32`, of which longer numbers are cut, as Protobuf cuts them.
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Float,
    Double,
    Text,
    Bytes,
    Enum(usize),
    /// The enumeration of JSON's null.
    Null,
    Message(usize),
    /// A message between two marks, as proto2 has it.
    Group(usize),
}

/// Symbols as JSON.
#[derive(Debug)]
struct EnumType {
    /// By number.
    symbols: Vec<(i32, Vec<u8>)>,
    /// The one that counts where none is set.
    first: Vec<u8>,
}

impl ProtobufSchema {
    /// Names of the fields of each type that a message can be: the file's, each before those that lie in it.
    pub(super) fn message_fields(&self) -> Vec<Vec<String>> {
        let mut types = Vec::new();
        let mut places: Vec<&Place> = self.roots.iter().rev().collect();
        while let Some(place) = places.pop() {
            if let Some(message) = place.message {
                let fields = &self.messages[message].fields;
                types.push(fields.iter().map(|field| json_out::name(&field.member)).collect());
            }
            places.extend(place.inner.iter().rev());
        }
        types
    }

    /// Writes the message behind the path to its type.
    pub(super) fn write_json(&self, bytes: &[u8], scratch: &mut Scratch, out: &mut Vec<u8>) -> Result<(), Reason> {
        let (message, start) = self.type_of(bytes).ok_or(MISFIT)?;
        Reader::new(self, bytes, scratch).whole(message, start, out)
    }

    /// The type at the path that the bytes begin with, and where the message begins.
    fn type_of(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let mut at = 0;
        let mut number = || {
            let zigzag = read::varint(bytes, &mut at)?;
            // Steps and counts are not negative.
            (zigzag & 1 == 0).then_some(zigzag >> 1)
        };
        let steps = number()?;
        if steps > PATH_MAX {
            return None;
        }
        let mut place = step(&self.roots, if steps == 0 { 0 } else { number()? })?;
        for _ in 1..steps {
            place = step(&place.inner, number()?)?;
        }
        Some((place.message?, at))
    }
}

/// Serializers disagree about whether the entries of maps count among the types inside a message. Protobuf itself, and
/// with it those for C++, C#, Go and Python, counts them; the one for Java does not. A step that leads to no message when they are
/// counted was made by the latter.
fn step(places: &[Place], number: u64) -> Option<&Place> {
    let number = usize::try_from(number).ok()?;
    let counted = places.get(number).filter(|place| place.message.is_some());
    counted.or_else(|| places.iter().filter(|place| place.message.is_some()).nth(number))
}
