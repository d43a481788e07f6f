//! Against arrow-json: the same values and the same refusals for the same bytes.

use std::collections::HashMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use proptest::prelude::*;
use serde_json::json;
use weir_schemas::{Feedback, GpuTelemetry, Request};

use super::*;
use crate::fuzzing::{hold_against_oracle, mixed_schema, rows, whole};

/// A value that fits some column, or nearly.
fn value() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i32>().prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        "-?[0-9]{1,20}",
        "-?[0-9]{1,6}\\.0{1,3}",
        prop::sample::select(vec!["1e999", "-", "1.", "01", "1-2", "9007199254740993", "-0", "1e2"])
            .prop_map(Into::into),
    ];
    let text = prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        "\"[a-z]{0,20}\"",
        prop::sample::select(vec![
            r#""12""#,
            r#""12.7""#,
            r#""NaN""#,
            r#""inf""#,
            r#""\u00e9\ud83d\ude00\n""#,
            r#""\ud800""#
        ])
        .prop_map(Into::into),
    ];
    let literal = prop::sample::select(vec!["null", "true", "false", "nul", "truex"]).prop_map(String::from);
    let leaf = prop_oneof![4 => number, 4 => text, 2 => literal];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(","))),
            prop::collection::vec((name(), inner), 0..4).prop_map(|members| {
                let members: Vec<_> = members.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// A value of the type of the column of that name.
fn fitting(name: &str) -> BoxedStrategy<String> {
    let text = || any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap());
    let float = || (-1e9..1e9).prop_map(|number: f64| number.to_string());
    let call = || {
        (text(), any::<bool>(), float()).prop_map(|(name, ok, ms)| {
            format!(r#"{{"name":{name},"ok":{ok},"other":[1,{{}}],"ms":{ms},"deep":[{{"a":"b"}},null,{{}}]}}"#)
        })
    };
    let many = |element: BoxedStrategy<String>| {
        prop::collection::vec(element, 0..4).prop_map(|elements| format!("[{}]", elements.join(" , ")))
    };
    match name {
        "text" => text().boxed(),
        "flag" => any::<bool>().prop_map(|flag| flag.to_string()).boxed(),
        "int" => any::<i32>().prop_map(|int| int.to_string()).boxed(),
        "long" => (-(1_i64 << 53)..(1 << 53)).prop_map(|long| long.to_string()).boxed(),
        "float" => float().boxed(),
        "texts" => many(text().boxed()).boxed(),
        "longs" => many(any::<i64>().prop_map(|long| long.to_string()).boxed()).boxed(),
        "vector" => many(any::<f32>().prop_map(|float| json!(float).to_string()).boxed()).boxed(),
        "words" => (text(), text()).prop_map(|(key, value)| format!("{{{key}:{value}}}")).boxed(),
        "numbers" => (text(), float()).prop_map(|(key, value)| format!("{{{key}:{value},\"b\":null}}")).boxed(),
        "calls" => many(call().boxed()).boxed(),
        _ => call().boxed(),
    }
}

fn name() -> impl Strategy<Value = String> {
    let names: Vec<String> = mixed_schema().fields().iter().map(|field| format!("{:?}", field.name())).collect();
    prop_oneof![
        8 => prop::sample::select(names),
        1 => "\"[a-z]{0,6}\"",
        1 => Just(r#""te\u0078t""#.to_owned()),
        1 => prop::sample::select(vec![r#""name""#, r#""ok""#, r#""ms""#, r#""deep""#]).prop_map(Into::into),
    ]
}

fn member() -> impl Strategy<Value = String> {
    let fitting = name().prop_flat_map(|name| {
        let fitting = fitting(name.trim_matches('"'));
        fitting.prop_map(move |value| format!("{name}: {value}"))
    });
    let any = (name(), value()).prop_map(|(name, value)| format!("{name}:{value}"));
    prop_oneof![5 => fitting, 2 => any]
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let object = || prop::collection::vec(member(), 0..8).prop_map(|members| format!("{{{}}}", members.join(",")));
    let mutated = (object(), any::<prop::sample::Index>(), any::<u8>(), 0..3_u8).prop_map(|(text, at, byte, how)| {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        match how {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, byte),
            _ => bytes.truncate(at),
        }
        bytes
    });
    prop_oneof![
        4 => object().prop_map(String::into_bytes),
        2 => mutated,
        1 => value().prop_map(|value| format!(" {value} ").into_bytes()),
        1 => (object(), value()).prop_map(|(one, other)| format!("{one}{other}").into_bytes()),
        1 => "[\\[\\]{}:,\"a0-9tfnul \\\\.-]{0,24}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn means_what_arrow_json_means(messages in prop::collection::vec(message(), 1..12)) {
        // One decoder for all rows, so that what a bad one leaves behind would be seen in the next.
        let schema = mixed_schema();
        hold_against_oracle(&schema, &mut JsonDecoder::new(&schema).unwrap(), &messages);
    }

    #[test]
    fn lists_of_integers_mean_the_same_unless_one_has_a_fraction(
        longs in prop::collection::vec(any::<i64>(), 0..6),
        wrong in prop::sample::select(vec!["", ",\"7\"", ",null", ",true", ",\"x\"", ",[1]"]),
    ) {
        let numbers: Vec<_> = longs.iter().map(i64::to_string).collect();
        let message = format!("{{\"longs\":[{}{wrong}]}}", numbers.join(","));
        let schema = mixed_schema();
        hold_against_oracle(&schema, &mut JsonDecoder::new(&schema).unwrap(), &[message.into_bytes()]);
    }

    #[test]
    fn the_order_of_members_and_what_came_before_do_not_matter(
        members in prop::collection::vec(member(), 1..8),
        before in prop::collection::vec(message(), 0..4),
    ) {
        let object = |members: &[String]| format!("{{{}}}", members.join(",")).into_bytes();
        let schema = mixed_schema();
        let alone = |message: Vec<u8>, before: &[Vec<u8>]| {
            let mut decoder = JsonDecoder::new(&schema).unwrap();
            decoder.decode(&rows(before));
            let messages = [message];
            let decoded = decoder.decode(&rows(&messages));
            (whole(&decoder.schema, &decoded), decoded.rejected)
        };
        let first = alone(object(&members), &[]);
        prop_assert_eq!(&alone(object(&members), &before), &first);
    }
}

#[test]
fn every_contract_can_be_decoded() {
    for contract in [Request::contract(), Feedback::contract(), GpuTelemetry::contract()] {
        JsonDecoder::new(&contract.arrow_schema()).unwrap();
    }
    let schema = Schema::new(vec![Field::new("when", DataType::Date32, true)]);
    assert_eq!(JsonDecoder::new(&schema).unwrap_err(), UnsupportedSchema);
}

#[test]
fn a_fraction_in_a_list_of_integers_is_refused_and_not_cut() {
    let messages = [br#"{"longs": [1, 12.0]}"#.to_vec(), br#"{"longs": [1, 12.7]}"#.to_vec()];
    let mut decoder = JsonDecoder::new(&mixed_schema()).unwrap();
    let decoded = decoder.decode(&rows(&messages));
    assert_eq!(decoded.rejected, [(1, Reason::WrongType { field: "longs".into() })]);
    let longs = decoded.pieces[0].batch.column_by_name("longs").unwrap().as_list::<i32>().value(0);
    assert_eq!(longs.as_primitive::<Int64Type>().values(), &[1, 12]);
}

#[test]
fn a_column_marked_so_takes_any_value_as_its_text() {
    let mark = HashMap::from([(JSON_TEXT.to_owned(), "true".to_owned())]);
    let schema = Schema::new(vec![Field::new("any", DataType::Utf8, true).with_metadata(mark)]);
    let texts = [r#"{"a": [1, 2]}"#, r#""x\n""#, "12.50", "null", "[ ]"];
    let messages: Vec<_> = texts.iter().map(|text| format!(r#"{{"any": {text} }}"#).into_bytes()).collect();
    let mut decoder = JsonDecoder::new(&schema).unwrap();
    let decoded = decoder.decode(&rows(&messages));
    let found: Vec<_> = decoded.pieces[0].batch.column(0).as_string::<i32>().iter().collect();
    assert_eq!(found, [Some(texts[0]), Some(texts[1]), Some(texts[2]), None, Some(texts[4])]);
}

#[test]
fn a_conflict_of_types_ends_as_its_columns_policy_says() {
    let policy = |name: &str| match name {
        "text" | "texts" => OnConflict::Widen,
        "int" | "float" => OnConflict::Null,
        _ => OnConflict::DeadLetter,
    };
    let messages: Vec<Vec<u8>> = [
        r#"{"text": {"a": 1}, "texts": "one", "int": "x", "float": [1]}"#,
        r#"{"text": 7, "texts": ["a", "b"], "int": 3, "float": 0.5}"#,
        r#"{"texts": 5}"#,
        r#"{"flag": 1}"#,
        r#"{"int": 2.5}"#,
        r#"{"int": {"broken}"#,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    let mut decoder = JsonDecoder::new(&mixed_schema()).unwrap().with_policies(policy);
    let decoded = decoder.decode(&rows(&messages));
    let wrong = |field: &'static str| Reason::WrongType { field: field.into() };
    assert_eq!(decoded.rejected, [(2, wrong("texts")), (3, wrong("flag")), (5, Reason::Truncated)]);
    let batch = &decoded.pieces[0].batch;
    let text: Vec<_> = batch.column_by_name("text").unwrap().as_string::<i32>().iter().collect();
    assert_eq!(text, [Some(r#"{"a": 1}"#), Some("7"), None]);
    let texts = batch.column_by_name("texts").unwrap().as_list::<i32>();
    assert_eq!(texts.value(0).as_string::<i32>().value(0), "one");
    assert_eq!((texts.value_length(0), texts.value_length(1)), (1, 2));
    let ints = batch.column_by_name("int").unwrap();
    assert_eq!((ints.is_null(0), ints.is_null(1), ints.is_null(2)), (true, false, true));
    let nulled: Vec<_> = decoded.nulled.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(nulled, [("float", 1), ("int", 2)]);
}

#[test]
fn fields_that_nothing_reads_are_counted_in_good_rows_and_the_first_of_them_named() {
    let messages: Vec<Vec<u8>> = [
        r#"{"int": 1, "renamed": 2, "kept": {"renamed": 3}, "struct": {"a": 1}}"#,
        r#"{"renamed": 4, "na\u006ded": 5, "int": "a bad row", "gone": 6}"#,
        r#"{"n\u0061med": 7, "renamed": {"x": 1}, "flag": true}"#,
        "7",
        r#"{"kept": 8}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    let mut plain = JsonDecoder::new(&mixed_schema()).unwrap();
    let mut counting = JsonDecoder::new(&mixed_schema()).unwrap().counting_unknown(["kept", "struct"]);
    let (plain, decoded) = (plain.decode(&rows(&messages)), counting.decode(&rows(&messages)));
    assert_eq!(decoded.rejected, plain.rejected);
    assert_eq!(decoded.pieces[0].batch, plain.pieces[0].batch);
    assert_eq!((decoded.unknown_fields, plain.unknown_fields), (3, 0));
    assert_eq!(decoded.unknown_names, ["renamed", "named"]);
    assert_eq!(counting.decode(&rows(&messages[4..])).unknown_fields, 0, "counted anew each time");

    let many: String = (0..20).map(|name| format!(r#""{name}{}": 0,"#, "\u{e9}".repeat(40))).collect();
    let many = [format!("{{{many}}}").into_bytes()];
    let decoded = counting.decode(&rows(&many));
    assert_eq!((decoded.unknown_fields, decoded.unknown_names.len()), (20, 8));
    assert_eq!(decoded.unknown_names[0], format!("0{}", "\u{e9}".repeat(31)), "cut between two characters");
}
