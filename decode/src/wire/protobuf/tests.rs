//! Held against prost-reflect, and what serializers do not write.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fuzzing;
use crate::wire::{RegisteredSchema, SchemaLanguage};

fn registered(text: &str) -> RegisteredSchema {
    RegisteredSchema { language: SchemaLanguage::Protobuf, text: text.to_owned(), references: Vec::new() }
}

fn read(schema: &ProtobufSchema, bytes: &[u8]) -> Option<Value> {
    let mut out = Vec::new();
    schema.write_json(bytes, &mut Scratch::default(), &mut out).ok()?;
    Some(serde_json::from_slice(&out).unwrap())
}

fn compiled(text: &str) -> ProtobufSchema {
    ProtobufSchema::compile(&registered(text)).unwrap()
}

#[test]
fn the_path_to_a_type_counts_entries_of_maps_or_does_not() {
    let schema = compiled(
        r#"syntax = "proto3";
        message A { string a = 1; }
        message B {
          map<string, string> labels = 1;
          message C { string c = 1; message D { string d = 1; } }
          message E { string e = 1; }
        }"#,
    );
    let path = |path: &[u8]| read(&schema, path);
    assert_eq!(path(&[0]), Some(json!({ "a": "" })));
    assert_eq!(path(&[2, 0]), Some(json!({ "a": "" })));
    assert_eq!(path(&[2, 2]), Some(json!({ "labels": {} })));
    // The first step into B is the entry of its map; Java's serializer means C by it.
    assert_eq!(path(&[4, 2, 0]), Some(json!({ "c": "" })));
    assert_eq!(path(&[4, 2, 2]), Some(json!({ "c": "" })));
    assert_eq!(path(&[4, 2, 4]), Some(json!({ "e": "" })));
    assert_eq!(path(&[6, 2, 2, 0]), Some(json!({ "d": "" })));
    for none in [&[2, 4][..], &[4, 2, 6], &[4, 2, 1], &[1, 0], &[4, 2], &[80, 2], &[], &[0xff; 11]] {
        assert_eq!(path(none), None, "{none:?}");
    }
}

#[test]
fn confluents_own_files_are_there_and_its_decimals_are_numbers() {
    let schema = compiled(
        r#"syntax = "proto3";
        import "confluent/meta.proto";
        import "confluent/type/decimal.proto";
        message Sum {
          option (confluent.message_meta) = { doc: "of money" };
          confluent.type.Decimal cost_usd = 1 [(confluent.field_meta).params = { key: "precision", value: "8" }];
        }"#,
    );
    // 12_345 with six digits behind the point.
    assert_eq!(read(&schema, &[0, 0x0a, 6, 0x0a, 2, 0x30, 0x39, 0x18, 6]), Some(json!({ "cost_usd": 0.012_345 })));
    assert_eq!(read(&schema, &[0, 0x0a, 3, 0x0a, 1, 0xff]), Some(json!({ "cost_usd": -1 })));
    // No digits, more than can be, and digits before the point.
    for bad in [&[0x18, 6][..], &[0x0a, 1, 1, 0x18, 39], &[0x0a, 1, 1, 0x18, 0xff, 0xff, 0xff, 0xff, 0x0f]] {
        let length = u8::try_from(bad.len()).unwrap();
        assert_eq!(read(&schema, &[&[0, 0x0a, length], bad].concat()), None);
    }
}

#[test]
fn a_file_that_cannot_be_used_is_refused_with_what_is_missing() {
    for (text, why) in [
        ("syntax = \"proto3\"; import \"nowhere.proto\";", "not among its references"),
        ("message", "does not compile"),
        ("edition = \"2023\"; message A {}", "proto2 or proto3"),
        ("syntax = \"proto3\"; message A { B b = 1; }", "does not compile"),
        ("AAAA", "does not compile"),
    ] {
        let said = ProtobufSchema::compile(&registered(text)).unwrap_err();
        assert!(said.contains(why), "{text}: {said}");
    }
}

#[test]
fn messages_without_bytes_cannot_fill_the_memory_and_types_may_hold_themselves() {
    let names: Vec<String> =
        (2..200).map(|number| format!("string a_field_without_a_value_{number} = {number};")).collect();
    let schema = compiled(&format!("syntax = \"proto3\"; message A {{ repeated A a = 1; {} }}", names.concat()));
    assert!(read(&schema, &[&[0][..], &[0x0a, 0].repeat(300)].concat()).is_some());
    assert_eq!(read(&schema, &[&[0][..], &[0x0a, 0].repeat(100_000)].concat()), None);

    let schema = compiled("syntax = \"proto2\"; message A { optional group G = 1 { optional A a = 2; } }");
    // Groups may be left open or nested without end, known or unknown.
    for open in [&[0x0b][..], &[0x13]] {
        assert_eq!(read(&schema, &[&[0][..], &open.repeat(100_000)].concat()), None);
    }
    assert_eq!(read(&schema, &[0, 0x0b, 0x0c]), Some(json!({ "g": {} })));
}

/// Fields of the fuzz targets' first schema as they are on the wire, in forms that fit it and others.
fn field() -> impl Strategy<Value = Vec<u8>> {
    let varint = |number: u64| {
        let (mut number, mut bytes) = (number, Vec::new());
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    };
    let leaf = (1..30_u64, 0..6_u64, any::<u64>(), prop::collection::vec(any::<u8>(), 0..12)).prop_map(
        move |(number, form, value, bytes)| {
            let tagged = |wire: u64| varint(number << 3 | wire);
            match form {
                0 => [tagged(0), varint(value)].concat(),
                1 => [tagged(1), value.to_le_bytes().to_vec()].concat(),
                2 => [tagged(5), (value as u32).to_le_bytes().to_vec()].concat(),
                3 => [tagged(2), varint(bytes.len() as u64), bytes].concat(),
                // Small numbers are what enumerations, flags and lengths are.
                _ => [tagged(0), varint(value % 4)].concat(),
            }
        },
    );
    leaf.prop_recursive(4, 40, 6, move |inner| {
        (1..30_u64, any::<bool>(), prop::collection::vec(inner, 0..6)).prop_map(move |(number, group, fields)| {
            let inside = fields.concat();
            match group {
                true => [varint(number << 3 | 3), inside, varint(number << 3 | 4)].concat(),
                false => [varint(number << 3 | 2), varint(inside.len() as u64), inside].concat(),
            }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn what_looks_like_fields_means_what_prost_reflect_reads(choice in 0..2_u8, fields in prop::collection::vec(field(), 0..8)) {
        fuzzing::protobuf(&[vec![choice], fields.concat()].concat());
    }
}
