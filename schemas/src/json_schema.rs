//! The JSON Schema of a contract, generated from its table.

use serde_json::{Value, json};

use crate::{Bounds, Contract, Field, FieldKind, Requirement};

/// The JSON Schema (draft 2020-12) of one message of `contract`.
///
/// Null is accepted for every optional field. Unknown fields are allowed: ingest drops them unless their names are on
/// the operator's list.
#[must_use]
pub fn json_schema(contract: &Contract) -> Value {
    let properties: serde_json::Map<String, Value> = contract
        .fields
        .iter()
        .map(|field| {
            let mut schema = field_schema(field);
            if field.requirement == Requirement::Optional {
                let kind = schema["type"].take();
                schema["type"] = json!([kind, "null"]);
                if let Some(choices) = schema["enum"].as_array_mut() {
                    choices.push(Value::Null);
                }
            }
            schema["description"] = json!(field.doc);
            schema["x-unit"] = json!(field.unit);
            (field.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<&str> = contract
        .fields
        .iter()
        .filter(|field| field.requirement == Requirement::Required)
        .map(|field| field.name)
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": contract.name,
        "description": contract.doc.trim().lines().map(str::trim).collect::<Vec<_>>().join(" "),
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": true,
    })
}

fn field_schema(field: &Field) -> Value {
    let mut schema = value_schema(field.kind);
    if let Some(bounds) = field.bounds() {
        let numbers = match field.kind {
            FieldKind::NumberMap => &mut schema["additionalProperties"],
            _ => &mut schema,
        };
        bound(numbers, bounds);
    }
    if let Some(choices) = field.choices() {
        schema["enum"] = json!(choices);
    }
    schema
}

fn value_schema(kind: FieldKind) -> Value {
    match kind {
        FieldKind::Text => json!({ "type": "string" }),
        FieldKind::Bool => json!({ "type": "boolean" }),
        FieldKind::Int32 => json!({ "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX }),
        FieldKind::Int64 => json!({ "type": "integer" }),
        FieldKind::Float64 => json!({ "type": "number" }),
        FieldKind::TextList => json!({ "type": "array", "items": { "type": "string" } }),
        FieldKind::Int64List => json!({ "type": "array", "items": { "type": "integer" } }),
        FieldKind::Float32List => json!({ "type": "array", "items": { "type": "number" } }),
        FieldKind::TextMap => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        FieldKind::NumberMap => json!({ "type": "object", "additionalProperties": { "type": "number" } }),
        FieldKind::ToolCalls => json!({ "type": "array", "items": { "type": "object", "properties": {
            "name": { "type": "string" }, "success": { "type": ["boolean", "null"] },
            "error_class": { "type": ["string", "null"] }, "latency_ms": nullable_number("ms") } } }),
        FieldKind::Candidates => json!({ "type": "array", "items": { "type": "object", "properties": {
            "model": { "type": "string" }, "score": { "type": ["number", "null"] },
            "propensity": nullable_number("0..1") } } }),
    }
}

fn nullable_number(unit: &str) -> Value {
    let mut schema = json!({ "type": ["number", "null"] });
    if let Some(bounds) = Bounds::of_unit(unit) {
        bound(&mut schema, bounds);
    }
    schema
}

/// Narrows a number's range; what the type itself rules out stays ruled out.
fn bound(schema: &mut Value, bounds: Bounds) {
    let low = if bounds.low_excluded { "exclusiveMinimum" } else { "minimum" };
    for (keyword, limit) in [(low, bounds.low), ("maximum", bounds.high)] {
        let narrower = schema[keyword].as_f64().is_none_or(|of_type| match keyword {
            "maximum" => limit < of_type,
            _ => limit > of_type,
        });
        if narrower {
            // Whole limits are written as integers, as people would.
            let whole = limit.fract() == 0.0;
            schema[keyword] = if whole { json!(limit as i64) } else { json!(limit) };
        }
    }
}
