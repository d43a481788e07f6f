//! Held against Confluent's own serializers (`golden/make.py`), and against bytes that nobody made.

use std::collections::BTreeMap;
use std::sync::Mutex;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{JsonDecoder, RowDecoder};

const AVRO: &str = include_str!("golden/avro.json");
const PROTOBUF: &str = include_str!("golden/protobuf.json");

/// Schemas of a registry, by id.
#[derive(Debug, Default)]
struct Registered(BTreeMap<u32, RegisteredSchema>);

impl SchemaSource for Registered {
    fn schema(&self, id: SchemaId) -> Result<SchemaAnswer, SchemaTrouble> {
        let found = match id {
            SchemaId::Number(number) => self.0.get(&number),
            // The GUIDs of the golden files' registry.
            SchemaId::Guid(_) => self.0.values().next(),
        };
        Ok(found.cloned().map_or(SchemaAnswer::Unknown, |schema| SchemaAnswer::Schema(Arc::new(schema))))
    }
}

/// Answers in turn, each once.
#[derive(Debug)]
struct InTurn(Mutex<Vec<Result<SchemaAnswer, SchemaTrouble>>>);

impl SchemaSource for InTurn {
    fn schema(&self, _id: SchemaId) -> Result<SchemaAnswer, SchemaTrouble> {
        self.0.lock().unwrap().remove(0)
    }
}

fn one(language: SchemaLanguage, text: &str) -> Registered {
    let schema = RegisteredSchema { language, text: text.to_owned(), references: Vec::new() };
    Registered([(1, schema)].into())
}

/// A golden file: its schemas, and messages with the rows that they stand for.
fn golden(text: &str, language: SchemaLanguage) -> (Registered, Vec<(Vec<u8>, Value)>) {
    let file: Value = serde_json::from_str(text).unwrap();
    let schemas = file["schemas"].as_object().unwrap().iter().map(|(id, schema)| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let references = schema["references"].as_array().unwrap();
        let references = references.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
        (id.parse().unwrap(), RegisteredSchema { language, text: text(&schema["text"]), references })
    });
    let messages = file["messages"].as_array().unwrap().iter().map(|message| {
        let digits = message["hex"].as_str().unwrap();
        let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        (bytes.collect(), message["row"].clone())
    });
    (Registered(schemas.collect()), messages.collect())
}

/// Row or reason of each message.
fn read(wire: &mut Wire, messages: &[Vec<u8>]) -> Vec<Result<Value, Reason>> {
    let rows: Vec<_> = messages.iter().enumerate().map(|(message, bytes)| Row { message, bytes }).collect();
    let mut made = Vec::new();
    let mut results: Vec<Option<Result<Value, Reason>>> = vec![None; messages.len()];
    let mut rejected = Vec::new();
    let read = wire.rows(&rows, &mut made, |message, reason| rejected.push((message, reason))).unwrap();
    for row in read {
        let value = serde_json::from_slice(row.bytes).unwrap();
        assert!(results[row.message].replace(Ok(value)).is_none());
    }
    for (message, reason) in rejected {
        assert!(results[message].replace(Err(reason)).is_none());
    }
    results.into_iter().map(Option::unwrap).collect()
}

fn same_rows(encoding: Encoding, language: SchemaLanguage, text: &str) {
    let (schemas, golden) = golden(text, language);
    let (messages, rows): (Vec<_>, Vec<_>) = golden.into_iter().unzip();
    let read = read(&mut Wire::new(encoding, Some(Arc::new(schemas))), &messages);
    assert_eq!(read, rows.into_iter().map(Ok).collect::<Vec<_>>());
}

#[test]
fn avro_of_confluents_serializer_holds_what_was_sent() {
    same_rows(Encoding::Avro, SchemaLanguage::Avro, AVRO);
}

#[test]
fn protobuf_of_confluents_serializer_holds_what_was_sent() {
    same_rows(Encoding::Protobuf, SchemaLanguage::Protobuf, PROTOBUF);
}

#[test]
fn fields_meet_columns_by_name_absent_ones_are_null_and_numbers_widen() {
    let columns = vec![
        Field::new("request_id", DataType::Utf8, false),
        Field::new("arrival_ms", DataType::Int64, false),
        Field::new("prompt_tokens", DataType::Int32, true),
        Field::new("cost_usd", DataType::Float64, true),
        Field::new("nobody_sends_it", DataType::Utf8, true),
    ];
    for (encoding, language, text, costs) in [
        (Encoding::Avro, SchemaLanguage::Avro, AVRO, [Some(0.012_345), None]),
        (Encoding::Protobuf, SchemaLanguage::Protobuf, PROTOBUF, [Some(0.5), None]),
    ] {
        let (schemas, golden) = golden(text, language);
        let mut wire = Wire::new(encoding, Some(Arc::new(schemas)));
        let rows: Vec<_> =
            golden.iter().take(2).enumerate().map(|(message, (bytes, _))| Row { message, bytes }).collect();
        let mut made = Vec::new();
        let rows = wire.rows(&rows, &mut made, |_, reason| panic!("{reason}")).unwrap();
        let decoded = JsonDecoder::new(&Schema::new(columns.clone())).unwrap().decode(&rows);
        assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
        let batch = &decoded.pieces[0].batch;
        assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(0), 1_700_000_000_123);
        assert_eq!(
            batch.column(2).as_primitive::<Int32Type>().null_count(),
            usize::from(language != SchemaLanguage::Avro)
        );
        assert_eq!(batch.column(3).as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), costs);
        assert_eq!(batch.column(4).null_count(), 2);
    }
}

#[test]
fn what_does_not_follow_its_schema_is_set_apart_and_neighbours_survive() {
    for (encoding, language, text) in
        [(Encoding::Avro, SchemaLanguage::Avro, AVRO), (Encoding::Protobuf, SchemaLanguage::Protobuf, PROTOBUF)]
    {
        let (schemas, golden) = golden(text, language);
        let (good, row) = golden[0].clone();
        let cut = good[..good.len() - 1].to_vec();
        let framed = |rest: &[u8]| [&good[..5], rest].concat();
        let messages = vec![
            Vec::new(),
            b"{\"request_id\": \"a\"}".to_vec(),
            good.clone(),
            cut,
            framed(&[]),
            framed(&[0xff; 12]),
            good[..4].to_vec(),
            good.clone(),
        ];
        let read = read(&mut Wire::new(encoding, Some(Arc::new(schemas))), &messages);
        let misfit = || Err(Reason::NotOfItsSchema);
        let expected = vec![
            Err(Reason::Empty),
            Err(Reason::NotFramed),
            Ok(row.clone()),
            misfit(),
            misfit(),
            misfit(),
            Err(Reason::NotFramed),
            Ok(row),
        ];
        assert_eq!(read, expected, "{encoding:?}");
    }
}

#[test]
fn a_schema_that_is_unknown_is_a_reason_until_it_is_registered_and_an_outage_is_trouble() {
    let (schemas, golden) = golden(AVRO, SchemaLanguage::Avro);
    let (good, row) = &golden[0];
    let schema = SchemaAnswer::Schema(Arc::new(schemas.0.into_values().next().unwrap()));
    let outage = Err(SchemaTrouble("nobody answers".to_owned()));
    let answers = vec![Ok(SchemaAnswer::Unknown), Ok(SchemaAnswer::Unknown), outage, Ok(schema)];
    let mut wire = Wire::new(Encoding::Avro, Some(Arc::new(InTurn(Mutex::new(answers)))));
    let messages = [good.clone(), good.clone()];
    assert_eq!(read(&mut wire, &messages), [Err(Reason::UnknownSchema), Err(Reason::UnknownSchema)]);
    let rows = [Row { message: 0, bytes: good }];
    let trouble = wire.rows(&rows, &mut Vec::new(), |_, reason| panic!("{reason}")).unwrap_err();
    assert_eq!(trouble.to_string(), "nobody answers");
    // The source has no more answers: what is known is not asked for again.
    assert_eq!(read(&mut wire, &messages), [Ok(row.clone()), Ok(row.clone())]);
}

#[test]
fn a_schema_that_cannot_be_used_is_a_reason() {
    let message = vec![0, 0, 0, 0, 1, 2];
    for (encoding, language, text) in [
        (Encoding::Avro, SchemaLanguage::Protobuf, "\"long\""),
        (Encoding::Protobuf, SchemaLanguage::Other, "{}"),
        (Encoding::Avro, SchemaLanguage::Avro, "{\"type\": \"record\", \"name\": \"R\"}"),
        (Encoding::Avro, SchemaLanguage::Avro, "\"elsewhere.Defined\""),
        (Encoding::Avro, SchemaLanguage::Avro, "{"),
        (Encoding::Protobuf, SchemaLanguage::Protobuf, "message"),
        (Encoding::Protobuf, SchemaLanguage::Protobuf, "syntax = \"proto3\"; import \"nowhere.proto\";"),
    ] {
        let mut wire = Wire::new(encoding, Some(Arc::new(one(language, text))));
        let read = read(&mut wire, std::slice::from_ref(&message));
        assert!(matches!(read[..], [Err(Reason::UnusableSchema { id: SchemaId::Number(1), .. })]), "{text}: {read:?}");
    }
}

#[test]
fn types_may_hold_themselves_but_not_without_end() {
    let list = r#"{"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}"#;
    let mut wire = Wire::new(Encoding::Avro, Some(Arc::new(one(SchemaLanguage::Avro, list))));
    let nested = |depth| [vec![0, 0, 0, 0, 1], vec![2; depth], vec![0]].concat();
    let read = read(&mut wire, &[nested(1), nested(10_000)]);
    assert_eq!(read, [Ok(json!({ "next": { "next": null } })), Err(Reason::NotOfItsSchema)]);
}

#[test]
fn nulls_that_take_no_bytes_cannot_fill_the_memory() {
    let nulls = r#"{"type": "array", "items": "null"}"#;
    let mut wire = Wire::new(Encoding::Avro, Some(Arc::new(one(SchemaLanguage::Avro, nulls))));
    // Half of i64::MAX items.
    let many = [vec![0, 0, 0, 0, 1], vec![0xff; 8], vec![0x7f, 0]].concat();
    assert_eq!(read(&mut wire, &[many]), [Err(Reason::NotOfItsSchema)]);
}

/// The other direction, by the text of the specification ("Binary Encoding").
fn long(value: i64, out: &mut Vec<u8>) {
    let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while zigzag >= 0x80 {
        out.push((zigzag & 0x7f) as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_a_row_or_a_reason(mut messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..20), id in 0..3_u8) {
        for message in &mut messages {
            message.splice(0..0, [0, 0, 0, 0, id]);
        }
        for (encoding, language, text) in
            [(Encoding::Avro, SchemaLanguage::Avro, AVRO), (Encoding::Protobuf, SchemaLanguage::Protobuf, PROTOBUF)]
        {
            let (mut schemas, golden) = golden(text, language);
            let known = schemas.0.values().next().unwrap().clone();
            schemas.0 = (0..3).map(|id| (id, known.clone())).collect();
            let mut all = messages.clone();
            all.push(golden[0].0.clone());
            all.last_mut().unwrap()[4] = id;
            let read = read(&mut Wire::new(encoding, Some(Arc::new(schemas))), &all);
            prop_assert_eq!(read.last().unwrap(), &Ok(golden[0].1.clone()));
        }
    }

    #[test]
    fn a_good_message_with_one_byte_changed_never_panics(at in 5_usize..200, to in any::<u8>()) {
        for (encoding, language, text) in
            [(Encoding::Avro, SchemaLanguage::Avro, AVRO), (Encoding::Protobuf, SchemaLanguage::Protobuf, PROTOBUF)]
        {
            let (schemas, golden) = golden(text, language);
            let mut message = golden[0].0.clone();
            let at = 5 + at % (message.len() - 5);
            message[at] = to;
            read(&mut Wire::new(encoding, Some(Arc::new(schemas))), &[message]);
        }
    }

    #[test]
    fn what_avro_encodes_is_read_again(number in any::<i64>(), real in any::<f64>(), word in ".*", list in proptest::collection::vec(any::<i64>(), 0..20), blocks in 1..4_usize) {
        let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"},
            {"name": "d", "type": "double"}, {"name": "t", "type": "string"},
            {"name": "l", "type": {"type": "array", "items": "long"}}]}"#;
        let mut message = vec![0, 0, 0, 0, 1];
        long(number, &mut message);
        message.extend(real.to_le_bytes());
        long(i64::try_from(word.len()).unwrap(), &mut message);
        message.extend(word.as_bytes());
        for block in list.chunks(list.len().div_ceil(blocks).max(1)) {
            let mut items = Vec::new();
            block.iter().for_each(|item| long(*item, &mut items));
            // The form with the block's size, which may be left out.
            long(-i64::try_from(block.len()).unwrap(), &mut message);
            long(i64::try_from(items.len()).unwrap(), &mut message);
            message.extend(items);
        }
        message.push(0);
        let read = read(&mut Wire::new(Encoding::Avro, Some(Arc::new(one(SchemaLanguage::Avro, schema)))), &[message]);
        let real = if real.is_finite() { json!(real) } else { json!(real.to_string()) };
        prop_assert_eq!(read, vec![Ok(json!({ "n": number, "d": real, "t": word, "l": list }))]);
    }
}

#[test]
fn the_fields_of_messages_are_known_before_any_is_read() {
    for (text, encoding, language) in
        [(AVRO, Encoding::Avro, SchemaLanguage::Avro), (PROTOBUF, Encoding::Protobuf, SchemaLanguage::Protobuf)]
    {
        let (schemas, messages) = golden(text, language);
        let rows: Vec<_> = messages.iter().filter_map(|(_, row)| row.as_object()).collect();
        assert!(!rows.is_empty());
        let types = schemas.0.values().map(|schema| message_fields(encoding, schema).unwrap());
        let types: Vec<Vec<String>> = types.flatten().collect();
        for row in rows {
            let fits = |fields: &Vec<String>| row.keys().all(|name| fields.contains(name));
            assert!(types.iter().any(fits), "{row:?} is of none of {types:?}");
        }
    }
    let empty = one(SchemaLanguage::Protobuf, "syntax = \"proto3\";");
    assert!(message_fields(Encoding::Protobuf, &empty.0[&1]).is_err());
}
