//! What must hold of any bytes: one function a fuzz target, which panics where its law is broken. The tests replay the
//! targets' seeds, and every input that ever broke one.
//!
//! An input's first byte chooses the schema; the messages follow, with [`SEPARATOR`] between them. Of Protobuf it is one.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use serde_json::Value;
use weir_schemas::{Contract, Feedback, GpuTelemetry, Request};

use crate::oracle::Oracle;
use crate::wire::ProtobufOracle;
use crate::{
    Encoding, Headers, Incoming, JSON_TEXT, JsonDecoder, OnConflict, Reason, RegisteredSchema, Row, RowDecoder,
    RowsDecoded, SchemaId, SchemaLanguage, SchemaSource, SchemaTrouble, Wire, check,
};

/// Between messages: RS, as in RFC 7464. No JSON text holds it as it is.
pub const SEPARATOR: u8 = 0x1e;

/// When the messages of an input were sent, ms since the Unix epoch: 2026-09-14.
const SENT_MS: i64 = 1_789_344_000_000;

/// The JSON decoder means what arrow-json means.
pub fn json(input: &[u8]) {
    static SCHEMAS: LazyLock<Vec<Schema>> = LazyLock::new(|| {
        let contracts = CONTRACTS.iter().map(|contract| contract().arrow_schema().as_ref().clone());
        std::iter::once(mixed_schema()).chain(contracts).collect()
    });
    let Some((schema, messages)) = split(input, &SCHEMAS) else { return };
    hold_against_oracle(schema, &mut JsonDecoder::new(schema).unwrap(), &messages);
}

/// A policy for values of another type changes those values and nothing else: what was good stays as it was, what is no
/// JSON object stays refused, and neighbours do not matter.
pub fn json_policies(input: &[u8]) {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
        let mark = HashMap::from([(JSON_TEXT.to_owned(), "true".to_owned())]);
        let any = Field::new("any", DataType::Utf8, true).with_metadata(mark);
        Schema::new(mixed_schema().fields().iter().cloned().chain([Arc::new(any)]).collect::<Vec<_>>())
    });
    const POLICIES: [OnConflict; 3] = [OnConflict::Null, OnConflict::Widen, OnConflict::DeadLetter];
    // The columns' policies are those three in turn, from another one on by the first byte.
    let Some((first, messages)) = split(input, &[0, 1, 2]) else { return };
    let policy = |name: &str| POLICIES[(SCHEMA.index_of(name).unwrap() + first) % 3];
    let mut decoder = JsonDecoder::new(&SCHEMA).unwrap().with_policies(policy);
    let rows = rows(&messages);
    let plain = by_message(&JsonDecoder::new(&SCHEMA).unwrap().decode(&rows));
    let decoded = decoder.decode(&rows);
    let together = by_message(&decoded);
    let mut nulled = BTreeMap::new();
    for row in &rows {
        let found = &together[&row.message];
        let decoded = decoder.decode(&[*row]);
        assert_eq!(&by_message(&decoded)[&row.message], found, "alone, {}", shown(&messages));
        for (column, count) in decoded.nulled {
            *nulled.entry(column).or_insert(0) += count;
        }
        match (&plain[&row.message], found) {
            (Err(Reason::WrongType { .. }), Ok(_) | Err(Reason::WrongType { .. })) => {}
            (before, after) => assert_eq!(before, after, "without a policy and with one, {}", shown(&messages)),
        }
    }
    assert_eq!(decoded.nulled, nulled, "values that became null");
}

/// A message is judged by its contract alone as it is among others.
pub fn json_contract(input: &[u8]) {
    let Some((contract, messages)) = split(input, &CONTRACTS) else { return };
    let contract = contract();
    let mut decoder = JsonDecoder::new(&contract.arrow_schema()).unwrap();
    let together = judge(contract, &mut decoder, &messages);
    assert_eq!(together.len(), messages.len(), "each message is judged");
    for (message, found) in &together {
        let alone = judge(contract, &mut decoder, &messages[*message..=*message]);
        assert_eq!(&alone[&0], found, "message {message}, {}", shown(&messages));
    }
}

const CONTRACTS: [fn() -> &'static Contract; 3] = [Request::contract, Feedback::contract, GpuTelemetry::contract];

fn judge(
    contract: &Contract,
    decoder: &mut JsonDecoder,
    messages: &[&[u8]],
) -> BTreeMap<usize, Result<RecordBatch, Reason>> {
    let incoming: Vec<_> = messages
        .iter()
        .map(|bytes| Incoming {
            partition: 0,
            offset: 0,
            timestamp_ms: Some(SENT_MS),
            payload: Some(bytes),
            headers: Headers::default(),
        })
        .collect();
    let rows = rows(messages);
    let mut decoded = decoder.decode(&rows);
    let mut reasons = BTreeMap::new();
    for piece in &mut decoded.pieces {
        check(contract, piece, &incoming, &mut reasons);
    }
    let mut judged = by_message(&decoded);
    judged.extend(reasons.into_iter().map(|(message, reason)| (message, Err(reason))));
    judged
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
    let message = [&[0, 0, 0, 0, 1, 0], bytes].concat();
    let rows = [Row { message: 0, bytes: &message }];
    let (mut made, mut reason) = (Vec::new(), None);
    let ours: Vec<Value> = WIRES.with_borrow_mut(|wires| {
        let rows = wires[number].rows(&rows, &mut made, |_, why| reason = Some(why)).unwrap();
        rows.iter().map(|row| serde_json::from_slice(row.bytes).unwrap()).collect()
    });
    assert!(ours.is_empty() == (reason == Some(Reason::NotOfItsSchema)), "{reason:?}");
    let theirs = SCHEMAS[number].1.read(bytes);
    let is_map = |tag: &[u8]| matches!(tag, [low, 1] if matches!(low >> 3 & 0xf, 3..=5) && low & 7 != 2);
    if ours.is_empty() && theirs.is_some() && bytes.windows(2).any(is_map) {
        return;
    }
    assert_eq!(ours.first(), theirs.as_ref(), "{bytes:02x?}");
}

#[derive(Debug)]
struct OneSchema(Arc<RegisteredSchema>);

impl SchemaSource for OneSchema {
    fn schema(&self, _id: SchemaId) -> Result<Arc<RegisteredSchema>, SchemaTrouble> {
        Ok(self.0.clone())
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

fn split<'i, T>(input: &'i [u8], choices: &'i [T]) -> Option<(&'i T, Vec<&'i [u8]>)> {
    let (choice, messages) = input.split_first()?;
    Some((&choices[usize::from(*choice) % choices.len()], messages.split(|byte| *byte == SEPARATOR).collect()))
}

fn shown(messages: &[impl AsRef<[u8]>]) -> String {
    let texts: Vec<_> = messages.iter().map(|bytes| String::from_utf8_lossy(bytes.as_ref())).collect();
    format!("{texts:#?}")
}

/// Each message as one row.
pub(crate) fn rows<T: AsRef<[u8]>>(messages: &[T]) -> Vec<Row<'_>> {
    messages.iter().enumerate().map(|(message, bytes)| Row { message, bytes: bytes.as_ref() }).collect()
}

/// All pieces as one list of columns, so that it does not matter how rows were grouped.
pub(crate) fn whole(schema: &SchemaRef, decoded: &RowsDecoded<'_>) -> RecordBatch {
    let batches = decoded.pieces.iter().map(|piece| &piece.batch);
    arrow::compute::concat_batches(schema, batches).unwrap()
}

fn by_message(decoded: &RowsDecoded<'_>) -> BTreeMap<usize, Result<RecordBatch, Reason>> {
    let good = decoded.pieces.iter().flat_map(|piece| {
        let rows = piece.rows.iter().enumerate();
        rows.map(|(at, row)| (row.message, Ok(piece.batch.slice(at, 1))))
    });
    good.chain(decoded.rejected.iter().map(|(message, reason)| (*message, Err(reason.clone())))).collect()
}

/// The same rows with the same values, and the same others refused for the same reasons.
///
/// The one difference meant is left out: a list of integers with a fraction in it, which arrow-json cuts.
pub(crate) fn hold_against_oracle<T: AsRef<[u8]>>(schema: &Schema, decoder: &mut JsonDecoder, messages: &[T]) {
    let messages: Vec<&[u8]> = messages.iter().map(AsRef::as_ref).collect();
    let refused: BTreeMap<_, _> = decoder.decode(&rows(&messages)).rejected.into_iter().collect();
    let kept = messages.iter().enumerate().filter(|(message, bytes)| match refused.get(message) {
        Some(Reason::WrongType { field }) => {
            let has_fraction = bytes.iter().any(|byte| b".eE".contains(byte));
            !(has_fraction && is_list_of_integers(schema.field_with_name(field).unwrap()))
        }
        _ => true,
    });
    let messages: Vec<&[u8]> = kept.map(|(_, bytes)| *bytes).collect();

    let rows = rows(&messages);
    let ours = decoder.decode(&rows);
    let theirs = Oracle::new(schema).decode(&rows);
    assert_eq!(ours.rejected, theirs.rejected, "{}", shown(&messages));
    let numbers = |decoded: &RowsDecoded<'_>| -> Vec<usize> {
        decoded.pieces.iter().flat_map(|piece| piece.rows.iter().map(|row| row.message)).collect()
    };
    assert_eq!(numbers(&ours), numbers(&theirs));
    let (ours, theirs) = (whole(&decoder.schema(), &ours), whole(&decoder.schema(), &theirs));
    for (ours, theirs) in ours.columns().iter().zip(theirs.columns()) {
        ours.to_data().validate_full().unwrap();
        assert_eq!(ours, theirs, "{}", shown(&messages));
    }
}

fn is_list_of_integers(field: &Field) -> bool {
    matches!(field.data_type(), DataType::List(element) if element.data_type().is_integer())
}

fn list(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", element, true)))
}

fn map(value: DataType) -> DataType {
    let entries = vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)];
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries.into()), false)), false)
}

/// One column of each kind, and some inside others.
pub(crate) fn mixed_schema() -> Schema {
    let inner: Fields = vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("ok", DataType::Boolean, true),
        Field::new("ms", DataType::Float64, true),
        Field::new("deep", list(map(DataType::Utf8)), true),
    ]
    .into();
    Schema::new(vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("int", DataType::Int32, true),
        Field::new("long", DataType::Int64, true),
        Field::new("float", DataType::Float64, true),
        Field::new("texts", list(DataType::Utf8), true),
        Field::new("longs", list(DataType::Int64), true),
        Field::new("vector", list(DataType::Float32), true),
        Field::new("words", map(DataType::Utf8), true),
        Field::new("numbers", map(DataType::Float64), true),
        Field::new("calls", list(DataType::Struct(inner.clone())), true),
        Field::new("one", DataType::Struct(inner), true),
    ])
}

#[cfg(test)]
#[path = "../../fuzz/inputs.rs"]
mod inputs;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_of_json_mean_what_arrow_json_means() {
        inputs::replay("json", json);
    }

    #[test]
    fn inputs_of_json_policies_change_nothing_but_values_of_another_type() {
        inputs::replay("json_policies", json_policies);
    }

    #[test]
    fn inputs_of_protobuf_mean_what_prost_reflect_reads() {
        inputs::replay("protobuf", protobuf);
    }

    #[test]
    fn inputs_of_json_contract_are_judged_alone_as_among_others() {
        inputs::replay("json_contract", json_contract);
    }
}
