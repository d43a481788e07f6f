//! The struct, the Arrow schema, the JSON Schema and the generated files of a contract say the same.

use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use arrow::json::{ArrayWriter, ReaderBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use weir_schemas::{
    Contract, EventTimeMs, Feedback, Field, FieldKind, GpuTelemetry, Propensity, Request, Requirement, contracts,
    json_schema, reference_page,
};

/// A value of that kind, different from field to field. Numbers are exact in 32-bit floats and within every bound.
fn sample_value(field: &Field, index: usize) -> Value {
    let number = (index + 1) as f64 / 1024.0;
    if let Some(choices) = field.choices() {
        return json!(choices[index % choices.len()]);
    }
    match field.kind {
        FieldKind::Text => json!(format!("{}-{index}", field.name)),
        FieldKind::Bool => json!(index.is_multiple_of(2)),
        FieldKind::Int32 => json!(index),
        FieldKind::Int64 => json!(1_700_000_000_000_i64 + index as i64),
        FieldKind::Float64 => json!(number),
        FieldKind::TextList => json!(["a", format!("{index}")]),
        FieldKind::Int64List => json!([i64::MAX, index]),
        FieldKind::Float32List => json!([0.25, number]),
        FieldKind::TextMap => json!({ "key": format!("{index}") }),
        FieldKind::NumberMap => json!({ "key": number }),
        FieldKind::ToolCalls => json!([
            { "name": "search", "success": false, "error_class": "timeout", "latency_ms": 12.5 },
        ]),
        FieldKind::Candidates => json!([{ "model": "m", "score": 0.5, "propensity": 0.25 }]),
    }
}

fn full_sample(contract: &Contract) -> Value {
    let fields = contract.fields.iter().enumerate();
    Value::Object(fields.map(|(index, field)| (field.name.to_owned(), sample_value(field, index))).collect())
}

fn decode(contract: &Contract, message: &Value) -> RecordBatch {
    let line = serde_json::to_vec(message).unwrap();
    let mut reader = ReaderBuilder::new(contract.arrow_schema()).build(line.as_slice()).unwrap();
    reader.next().expect("one batch").unwrap()
}

fn encode(batch: &RecordBatch) -> Value {
    let mut writer = ArrayWriter::new(Vec::new());
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    let rows: Value = serde_json::from_slice(&writer.into_inner()).unwrap();
    rows[0].clone()
}

fn struct_and_arrow_agree<T: Serialize + DeserializeOwned>(contract: &Contract) {
    let message = full_sample(contract);
    let typed: T = serde_json::from_value(message.clone()).unwrap();
    assert_eq!(serde_json::to_value(&typed).unwrap(), message, "{}: the struct lost a field", contract.name);
    let batch = decode(contract, &serde_json::to_value(&typed).unwrap());
    assert_eq!(encode(&batch), message, "{}: Arrow lost a value", contract.name);
}

#[test]
fn every_field_survives_struct_json_and_arrow() {
    struct_and_arrow_agree::<Request>(Request::contract());
    struct_and_arrow_agree::<Feedback>(Feedback::contract());
    struct_and_arrow_agree::<GpuTelemetry>(GpuTelemetry::contract());
}

#[test]
fn unset_fields_stay_null_in_arrow() {
    let request = Request {
        request_id: "r".to_owned(),
        arrival_ms: EventTimeMs(-5),
        propensity: Some(Propensity::new(0.125).unwrap()),
        ..Request::default()
    };
    let batch = decode(Request::contract(), &serde_json::to_value(&request).unwrap());
    for (field, column) in Request::contract().fields.iter().zip(batch.columns()) {
        let set = ["request_id", "arrival_ms", "propensity"].contains(&field.name);
        assert_eq!(column.is_null(0), !set, "{}", field.name);
    }
    assert_eq!(batch.column_by_name("arrival_ms").unwrap().as_primitive::<Int64Type>().value(0), -5);
    assert_eq!(batch.column_by_name("propensity").unwrap().as_primitive::<Float64Type>().value(0), 0.125);
}

#[test]
fn every_field_has_a_unit_and_a_meaning_and_roles_name_real_fields() {
    for contract in contracts() {
        assert!(!contract.doc.trim().is_empty(), "{}", contract.name);
        for field in contract.fields {
            assert!(!field.unit.trim().is_empty(), "{}.{} has no unit", contract.name, field.name);
            assert!(field.doc.ends_with('.'), "{}.{} has no sentence", contract.name, field.name);
        }
        let roles = contract.pseudonymised.iter().chain(contract.text_columns).chain([&contract.time_column]);
        for name in roles {
            assert!(contract.field(name).is_some(), "{}.{name} is not a field", contract.name);
        }
        let mut names: Vec<&str> = contract.fields.iter().map(|field| field.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), contract.fields.len(), "{} names a field twice", contract.name);
    }
}

/// The keywords of draft 2020-12 that our schemas use, checked by hand.
fn complaint(schema: &Value, value: &Value, path: &str) -> Option<String> {
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return Some(format!("{path}: schema without type")),
    };
    let fits = |name: &&str| match *name {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    if !types.iter().any(fits) {
        return Some(format!("{path}: expected {types:?}"));
    }
    if let Some(number) = value.as_f64() {
        let below = schema["minimum"].as_f64().is_some_and(|least| number < least)
            || schema["exclusiveMinimum"].as_f64().is_some_and(|limit| number <= limit);
        if below || schema["maximum"].as_f64().is_some_and(|most| number > most) {
            return Some(format!("{path}: out of range"));
        }
    }
    if schema["enum"].as_array().is_some_and(|choices| !choices.contains(value)) {
        return Some(format!("{path}: not in the vocabulary"));
    }
    if let Value::Array(items) = value {
        return items.iter().find_map(|item| complaint(&schema["items"], item, &format!("{path}[]")));
    }
    let Value::Object(fields) = value else { return None };
    let empty = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let missing = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(name) = missing.into_iter().find(|name| !fields.contains_key(*name)) {
        return Some(format!("{path}: {name} is missing"));
    }
    fields.iter().find_map(|(name, field)| match properties.get(name) {
        Some(schema) => complaint(schema, field, &format!("{path}.{name}")),
        None if schema["additionalProperties"].is_object() => {
            complaint(&schema["additionalProperties"], field, &format!("{path}.{name}"))
        }
        None => None,
    })
}

#[test]
fn json_schema_accepts_what_producers_write_and_refuses_wrong_types() {
    for contract in contracts() {
        let schema = json_schema(contract);
        let sample = full_sample(contract);
        assert_eq!(complaint(&schema, &sample, contract.name), None);
        for field in contract.fields {
            let mut nulled = sample.clone();
            nulled[field.name] = Value::Null;
            let required = field.requirement == Requirement::Required;
            assert_eq!(complaint(&schema, &nulled, contract.name).is_some(), required, "{} null", field.name);

            let mut wrong = sample.clone();
            wrong[field.name] = if field.kind == FieldKind::Bool { json!("yes") } else { json!(true) };
            assert!(complaint(&schema, &wrong, contract.name).is_some(), "{} took a wrong type", field.name);
        }
    }
}

#[test]
fn json_schema_refuses_the_numbers_and_words_that_the_door_refuses() {
    let complaint_about = |contract: &Contract, field: &str, value: Value| {
        let mut message = full_sample(contract);
        message[field] = value;
        complaint(&json_schema(contract), &message, contract.name)
    };
    let (requests, feedback, gpus) = (Request::contract(), Feedback::contract(), GpuTelemetry::contract());
    for (contract, field, value) in [
        (requests, "propensity", json!(0)),
        (requests, "propensity", json!(1.5)),
        (requests, "prompt_tokens", json!(-1)),
        (requests, "prompt_tokens", json!(3_000_000_000_u32)),
        (requests, "ttft_ms", json!(1e17)),
        (requests, "cost_usd", json!(-0.01)),
        (requests, "hazard_scores", json!({ "violence": 7 })),
        (requests, "candidates", json!([{ "model": "m", "propensity": 2 }])),
        (requests, "tools_called", json!([{ "name": "t", "latency_ms": -1 }])),
        (feedback, "value", json!(7)),
        (feedback, "source", json!("me")),
        (feedback, "kind", json!("whim")),
        (gpus, "DCGM_FI_DEV_GPU_UTIL", json!(101)),
        (gpus, "DCGM_FI_DEV_POWER_USAGE", json!(9_223_372_036_854_775_794_u64)),
    ] {
        assert!(complaint_about(contract, field, value.clone()).is_some(), "{field} took {value}");
    }
    for (contract, field, value) in [
        (requests, "propensity", json!(1)),
        (requests, "prompt_tokens", json!(0)),
        (requests, "candidates", json!([{ "model": "m", "propensity": 0 }])),
        (gpus, "DCGM_FI_DEV_GPU_TEMP", json!(-5)),
    ] {
        assert_eq!(complaint_about(contract, field, value.clone()), None, "{field} refused {value}");
    }
}

#[test]
fn the_reference_page_gives_the_range_of_every_bounded_unit() {
    let page = reference_page();
    for contract in contracts() {
        for (field, bounds) in contract.fields.iter().filter_map(|field| Some((field, field.bounds()?))) {
            assert!(page.contains(&format!(" | {} |", bounds.words)), "{}: {}", field.name, bounds.words);
        }
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_path_buf()
}

#[test]
fn generated_files_are_up_to_date() {
    let mut files = vec![(repository().join("docs/reference/events.md"), reference_page())];
    for contract in contracts() {
        let name = format!("schemas/generated/{}.schema.json", contract.name);
        let text = serde_json::to_string_pretty(&json_schema(contract)).unwrap() + "\n";
        files.push((repository().join(name), text));
    }
    for (path, expected) in files {
        if std::env::var_os("WEIR_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        assert!(found == expected, "{name} is stale: run `WEIR_BLESS=1 cargo test -p weir-schemas` and commit it");
    }
}
