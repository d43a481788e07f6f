//! The JSON Schema of a contract, generated from its table.

use serde_json::{Value, json};

use crate::{Contract, FieldKind, Requirement};

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
            let mut schema = value_schema(field.kind);
            if field.requirement == Requirement::Optional {
                let kind = schema["type"].take();
                schema["type"] = json!([kind, "null"]);
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
            "error_class": { "type": ["string", "null"] }, "latency_ms": { "type": ["number", "null"] } } } }),
        FieldKind::Candidates => json!({ "type": "array", "items": { "type": "object", "properties": {
            "model": { "type": "string" }, "score": { "type": ["number", "null"] },
            "propensity": { "type": ["number", "null"] } } } }),
    }
}
