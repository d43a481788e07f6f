//! What messages are on the wire, made into JSON.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::{SEPARATOR, rows, shown, split};
use crate::wire::ProtobufOracle;
use crate::{
    Encoding, Reason, RegisteredSchema, SchemaAnswer, SchemaId, SchemaLanguage, SchemaSource, SchemaTrouble, Wire,
    message_fields,
};

/// A message of several lines is the rows that its lines are alone; one without any is empty.
pub fn json_lines(input: &[u8]) {
    let mut wire = Wire::new(Encoding::JsonLines, None);
    let messages: Vec<&[u8]> = input.split(|byte| *byte == SEPARATOR).collect();
    for (message, found) in messages.iter().zip(read(&mut wire, &messages)) {
        let lines = message.split(|byte| *byte == b'\n');
        let alone: Vec<_> = lines.filter_map(|line| read(&mut wire, &[line]).remove(0).ok()).flatten().collect();
        let expected = if alone.is_empty() { Err(Reason::Empty) } else { Ok(alone) };
        assert_eq!(found, expected, "{}", shown(&messages));
    }
}

/// Avro becomes JSON of a bounded size, whatever counts a message claims, the same alone as among others. What is read ends
/// where its message ends: with a byte less or more it is refused. The schema is one of ours, or what lies before the first
/// separator.
pub fn avro(input: &[u8]) {
    let Some((ours, mut values)) = split(input, &[Some(EACH_KIND), Some(FREE), None]) else { return };
    let text = match ours {
        Some(text) => text,
        None => std::str::from_utf8(values.remove(0)).unwrap_or_default(),
    };
    let schema = RegisteredSchema { language: SchemaLanguage::Avro, text: text.to_owned(), references: Vec::new() };
    let fields = message_fields(Encoding::Avro, &schema);
    let mut wire = Wire::new(Encoding::Avro, Some(Arc::new(OneSchema(Arc::new(schema)))));
    let messages: Vec<Vec<u8>> = values.iter().map(|value| framed(value)).collect();
    // Our names are short; any name is shorter than its schema, whose characters may have to be escaped.
    let longest_name = if ours.is_some() { 16 } else { 6 * text.len() };
    for (message, found) in messages.iter().zip(read(&mut wire, &messages)) {
        assert_eq!(read(&mut wire, &[message])[0], found, "alone, {message:02x?} of {text}");
        let rows = match found {
            Ok(rows) => rows,
            Err(Reason::UnusableSchema { .. }) => {
                assert!(fields.is_err(), "{fields:?}");
                continue;
            }
            Err(reason) => {
                assert_eq!(reason, Reason::NotOfItsSchema);
                continue;
            }
        };
        drop(serde_json::from_slice::<Value>(&rows[0]).unwrap());
        let most = 6 * message.len() + (message.len() + 1_024) * (longest_name + 100);
        assert!(rows[0].len() <= most, "{} bytes of {message:02x?}", rows[0].len());
        let others = [&message[..message.len() - 1], &[message, &[0][..]].concat()];
        assert!(read(&mut wire, &others).iter().all(Result::is_err), "{message:02x?} of {text}");
    }
}

/// Protobuf means what prost-reflect reads; the message is of the schema's first type.
///
/// One difference is meant: prost-reflect takes any number for a map's length, of whatever form it is.
pub fn protobuf(input: &[u8]) {
    static SCHEMAS: LazyLock<[(Arc<RegisteredSchema>, ProtobufOracle); 2]> = LazyLock::new(|| {
        [PROTO3, PROTO2].map(|text| {
            let (language, references) = (SchemaLanguage::Protobuf, Vec::new());
            let schema = RegisteredSchema { language, text: text.to_owned(), references };
            (Arc::new(schema.clone()), ProtobufOracle::new(&schema))
        })
    });
    thread_local! {
        static WIRES: RefCell<[Wire; 2]> = RefCell::new([0, 1].map(|number| {
            Wire::new(Encoding::Protobuf, Some(Arc::new(OneSchema(SCHEMAS[number].0.clone()))))
        }));
    }
    let Some((choice, bytes)) = input.split_first() else { return };
    let number = usize::from(choice % 2);
    // The path to the file's first type is a zero.
    let message = framed(&[&[0], bytes].concat());
    let ours = match WIRES.with_borrow_mut(|wires| read(&mut wires[number], &[message]).remove(0)) {
        Ok(rows) => Some(serde_json::from_slice::<Value>(&rows[0]).unwrap()),
        Err(reason) => {
            assert_eq!(reason, Reason::NotOfItsSchema);
            None
        }
    };
    let theirs = SCHEMAS[number].1.read(bytes);
    let is_map = |tag: &[u8]| matches!(tag, [low, 1] if matches!(low >> 3 & 0xf, 3..=5) && low & 7 != 2);
    // The map of a `Struct`, which is field 27 of ours.
    let in_struct = |tag: &u8| tag >> 3 == 1 && tag & 7 != 2;
    let has_struct = bytes.windows(2).any(|tag| tag == [0xda, 0x01]);
    let has_map = bytes.windows(2).any(is_map) || (has_struct && bytes.iter().any(in_struct));
    if ours.is_none() && theirs.is_some() && has_map {
        return;
    }
    assert_eq!(ours, theirs, "{bytes:02x?}");
}

/// Behind the id of the only schema.
fn framed(value: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 1], value].concat()
}

/// The rows of each message, or why it has none.
fn read<T: AsRef<[u8]>>(wire: &mut Wire, messages: &[T]) -> Vec<Result<Vec<Vec<u8>>, Reason>> {
    let mut found: Vec<Option<Result<Vec<Vec<u8>>, Reason>>> = vec![None; messages.len()];
    let (mut made, mut rejected) = (Vec::new(), Vec::new());
    let messages = rows(messages);
    for row in wire.rows(&messages, &mut made, |message, reason| rejected.push((message, reason))).unwrap() {
        let of_message = found[row.message].get_or_insert_with(|| Ok(Vec::new()));
        of_message.as_mut().unwrap().push(row.bytes.to_vec());
    }
    for (message, reason) in rejected {
        assert!(found[message].replace(Err(reason)).is_none(), "message {message} is judged twice");
    }
    found.into_iter().map(|found| found.expect("each message is judged")).collect()
}

/// Any text is compiled or refused, and what it then makes of messages is JSON. They lie behind the text, each with the path to
/// its type.
pub fn protobuf_schema(input: &[u8]) {
    let mut parts = input.split(|byte| *byte == SEPARATOR);
    let Ok(text) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let schema = RegisteredSchema { language: SchemaLanguage::Protobuf, text: text.to_owned(), references: Vec::new() };
    let fields = message_fields(Encoding::Protobuf, &schema);
    let mut wire = Wire::new(Encoding::Protobuf, Some(Arc::new(OneSchema(Arc::new(schema)))));
    let messages: Vec<Vec<u8>> = parts.map(framed).collect();
    for found in read(&mut wire, &messages) {
        match found {
            Ok(rows) => drop(serde_json::from_slice::<Value>(&rows[0]).unwrap()),
            Err(Reason::UnusableSchema { .. }) => assert!(fields.is_err(), "{fields:?}"),
            Err(reason) => assert_eq!(reason, Reason::NotOfItsSchema),
        }
    }
}

#[derive(Debug)]
struct OneSchema(Arc<RegisteredSchema>);

impl SchemaSource for OneSchema {
    fn schema(&self, _id: SchemaId) -> Result<SchemaAnswer, SchemaTrouble> {
        Ok(SchemaAnswer::Schema(self.0.clone()))
    }
}

/// A field of each kind, and well-known types.
const PROTO3: &str = r#"syntax = "proto3";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
message Mixed {
  enum Word { NONE = 0; ONE = 1; LEAST = -1; }
  bool flag = 1;
  int32 int = 2;
  optional int64 long = 3;
  uint32 natural = 4;
  uint64 largest = 5;
  sint32 zig = 6;
  sint64 zag = 7;
  fixed32 four = 8;
  sfixed64 eight = 9;
  float narrow = 10;
  double wide = 11;
  string text = 12;
  bytes raw = 13;
  Word word = 14;
  Mixed inner = 15;
  repeated int32 ints = 16;
  repeated string texts = 17;
  repeated Mixed inners = 18;
  map<string, double> numbers = 19;
  map<sint32, Mixed> by_number = 20;
  map<bool, Word> by_flag = 21;
  oneof one { string first = 22; Mixed second = 23; int32 third = 24; }
  google.protobuf.Timestamp at = 25;
  google.protobuf.Duration span = 26;
  google.protobuf.Struct beside = 27;
  google.protobuf.Int64Value wrapped = 28;
  repeated Word words = 29;
}"#;

/// What proto3 no longer has: groups, and lists whose numbers lie apart.
const PROTO2: &str = r#"syntax = "proto2";
message Old {
  optional int32 int = 1 [default = 7];
  repeated fixed32 apart = 2;
  repeated sint64 together = 3 [packed = true];
  optional group Inside = 4 { optional Old old = 1; repeated bool flags = 2; }
  repeated group Many = 5 { optional string text = 1; }
  required string text = 6;
  enum Word { FIVE = 5; NONE = 0; }
  map<fixed64, bytes> map = 19;
  map<string, Word> words = 20;
  oneof one { group Route = 8 { optional string model = 1; } float share = 9; }
}"#;

/// Each kind of type, some inside others.
const EACH_KIND: &str = r#"{"type": "record", "name": "Mixed", "namespace": "weir", "fields": [
  {"name": "flag", "type": "boolean"},
  {"name": "int", "type": "int"},
  {"name": "narrow", "type": "float"},
  {"name": "wide", "type": "double"},
  {"name": "text", "type": "string"},
  {"name": "raw", "type": "bytes"},
  {"name": "id", "type": {"type": "fixed", "name": "Id", "size": 4}},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
  {"name": "exactly", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
  {"name": "span", "type": {"type": "long", "logicalType": "time-micros"}},
  {"name": "cost", "type": {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 6}},
  {"name": "sum", "type": {"type": "fixed", "name": "Sum", "size": 16, "logicalType": "decimal", "scale": 38}},
  {"name": "word", "type": {"type": "enum", "name": "Word", "symbols": ["NONE", "ONE"]}},
  {"name": "inner", "type": ["null", "Mixed", "long"]},
  {"name": "words", "type": {"type": "array", "items": ["Word", "string"]}},
  {"name": "numbers", "type": {"type": "map", "values": "double"}}
]}"#;

/// Values that take no bytes, as many as a message says.
const FREE: &str = r#"["null", {"type": "record", "name": "Free", "fields": [
  {"name": "nothing", "type": "null"},
  {"name": "nulls", "type": {"type": "array", "items": "null"}},
  {"name": "empty", "type": {"type": "array", "items": {"type": "record", "name": "Empty", "fields": []}}},
  {"name": "inner", "type": {"type": "array", "items": "Free"}}
]}]"#;
