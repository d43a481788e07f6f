//! The reference page of the contracts, generated from their tables.

use crate::{Bounds, FieldKind, Requirement, contracts};

/// Units with a range, as the contracts spell them.
const UNITS: [&str; 14] =
    ["(0, 1]", "0..1", "%", "ms", "tokens", "count", "requests", "USD", "J", "mJ", "W", "MiB", "MHz", "degC"];

/// `docs/reference/events.md`: every field of every contract with type, unit and meaning, as Markdown.
#[must_use]
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Events\n\n\
         One JSON object per Kafka message. This page is generated from the contract tables in `schemas/src`; \
         `WEIR_BLESS=1 cargo test -p weir-schemas` rewrites it. The same tables give the JSON Schema files in \
         `schemas/generated`.\n\n\
         Optional fields may be absent or null, and null is never imputed. Unknown fields are dropped at the door \
         unless the operator allows their names.\n\n\
         A message is refused, and becomes a dead letter, when a required field is missing, a type is wrong, a number \
         lies outside the range of its unit, a vocabulary that reads \"one of\" has another word, or event time lies \
         before 2000, after 2100 or more than a day after the message was sent. Integers must be whole: 12.7 tokens \
         are refused (inside arrays a fraction is cut off). In one respect the door is more lenient than the JSON \
         Schema: it also takes numbers that are written as strings.\n\n\
         | unit | range |\n| --- | --- |\n",
    );
    for unit in UNITS {
        page += &format!("| {unit} | {} |\n", Bounds::of_unit(unit).map_or("any", |bounds| bounds.words));
    }
    page.push_str(
        "\nOf candidates, each propensity is within 0..1, all together are at most 1, and the intended model's is the \
         request's `propensity`.\n",
    );
    for contract in contracts() {
        let doc: Vec<&str> = contract.doc.trim().lines().map(str::trim).collect();
        page += &format!("\n## `{}`\n\n{}\n\n", contract.name, doc.join(" "));
        page += &format!("- Event time: `{}`\n", contract.time_column);
        for (what, columns) in [
            ("Replaced by keyed pseudonyms at the door", contract.pseudonymised),
            ("Dropped at the door unless text is kept", contract.text_columns),
        ] {
            if !columns.is_empty() {
                page += &format!("- {what}: `{}`\n", columns.join("`, `"));
            }
        }
        page.push_str(
            "\n| field | type | required | unit or vocabulary | meaning |\n| --- | --- | --- | --- | --- |\n",
        );
        for field in contract.fields {
            let required = if field.requirement == Requirement::Required { "yes" } else { "" };
            let kind = type_name(field.kind);
            page += &format!("| `{}` | {kind} | {required} | {} | {} |\n", field.name, field.unit, field.doc);
        }
    }
    page
}

fn type_name(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Text => "string",
        FieldKind::Bool => "boolean",
        FieldKind::Int32 => "integer, 32 bits",
        FieldKind::Int64 => "integer, 64 bits",
        FieldKind::Float64 => "number",
        FieldKind::TextList => "array of strings",
        FieldKind::Int64List => "array of 64-bit integers",
        FieldKind::Float32List => "array of 32-bit numbers",
        FieldKind::TextMap => "object of strings",
        FieldKind::NumberMap => "object of numbers",
        FieldKind::ToolCalls => "array of {name, success, error_class, latency_ms}",
        FieldKind::Candidates => "array of {model, score, propensity}",
    }
}
