//! Each built-in adapter over its golden input. `WEIR_BLESS=1` writes what it gives; a person then reads the difference.
//!
//! `golden/NAME/input.jsonl` holds messages as the other system writes them, `golden/NAME/*.prom` pages as they were
//! scraped. Where they come from stands in `golden/README.md`.

mod common;

use std::path::{Path, PathBuf};

use arrow::json::ArrayWriter;
use serde_json::{Value, json};
use weir_adapters::prometheus::Page;
use weir_adapters::{Adapter, Definition, Input, Projection};
use weir_schemas::Requirement;

/// When the pages were scraped, for the tests: 2023-11-14 22:13:20 UTC.
const SCRAPED_MS: i64 = 1_700_000_000_000;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn compiled(name: &str) -> Adapter {
    let definition = Definition::built_in(name).expect("it is listed");
    Adapter::compile(&definition).unwrap_or_else(|error| panic!("{error}"))
}

/// The projection of the golden input, with per row of the batch the message that it came from.
fn project(name: &str) -> (Projection, Vec<u32>) {
    let adapter = compiled(name);
    let (batch, messages) = match adapter.input() {
        Input::Json => {
            let text = std::fs::read_to_string(folder(name).join("input.jsonl")).expect("there is a golden input");
            let messages: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).expect("a line is a message")).collect();
            let batch = common::batch(&adapter.input_schema(), &messages);
            (batch, (0..messages.len() as u32).collect())
        }
        Input::Prometheus { .. } => {
            let mut files: Vec<PathBuf> = std::fs::read_dir(folder(name))
                .expect("there is a golden folder")
                .map(|entry| entry.expect("it is readable").path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "prom"))
                .collect();
            files.sort();
            let texts: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).expect("it is readable")).collect();
            let pages: Vec<Page<'_>> = texts
                .iter()
                .map(|text| Page { text, scraped_ms: Some(SCRAPED_MS), key: Some("10.0.0.7:8000") })
                .collect();
            let rows = adapter.read_pages(&pages).expect("it reads pages");
            assert_eq!(rows.failed, []);
            (rows.batch, rows.pages)
        }
    };
    (adapter.project(&batch).expect("it projects its own schema"), messages)
}

fn as_json(projection: &Projection, messages: &[u32]) -> Value {
    let outputs = projection.outputs.iter().map(|output| {
        let mut writer = ArrayWriter::new(Vec::new());
        writer.write(&output.batch).and_then(|()| writer.finish()).expect("rows have a JSON form");
        let rows: Vec<Value> = serde_json::from_slice(&writer.into_inner()).unwrap_or_default();
        let rows = rows
            .into_iter()
            .zip(&output.rows)
            .map(|(row, from)| json!({ "message": messages[*from as usize], "row": row }));
        json!({ "table": output.contract.name, "rows": rows.collect::<Vec<_>>() })
    });
    Value::Array(outputs.collect())
}

#[test]
fn every_built_in_adapter_gives_its_golden_rows() {
    for name in Definition::built_in_names() {
        let (projection, messages) = project(name);
        assert_eq!(projection.failed, [], "{name}");
        let found = serde_json::to_string_pretty(&as_json(&projection, &messages)).expect("it has a JSON form") + "\n";
        let path = folder(name).join("expected.json");
        if std::env::var_os("WEIR_BLESS").is_some() {
            std::fs::write(&path, &found).expect("the golden folder is writable");
        }
        let expected = std::fs::read_to_string(&path).expect("WEIR_BLESS=1 writes it");
        assert!(found == expected, "{name} gives other rows than {}:\n{found}", path.display());
    }
}

#[test]
fn golden_rows_have_what_the_door_requires() {
    for name in Definition::built_in_names() {
        let (projection, _) = project(name);
        let mut rows = 0;
        for output in &projection.outputs {
            rows += output.batch.num_rows();
            for field in output.contract.fields.iter().filter(|field| field.requirement == Requirement::Required) {
                let column = output.batch.column_by_name(field.name).expect("every column is there");
                assert_eq!(column.null_count(), 0, "{name}: {}.{}", output.contract.name, field.name);
            }
        }
        assert!(rows > 0, "{name} yields no row of its golden input");
    }
}

/// Strings of three words and more in a value, and in the JSON that a string of it holds.
fn sentences(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(inner @ (Value::Array(_) | Value::Object(_))) => sentences(&inner, found),
            _ if text.split_whitespace().count() > 2 => found.push(text.clone()),
            _ => {}
        },
        Value::Array(values) => values.iter().for_each(|value| sentences(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| sentences(value, found)),
        _ => {}
    }
}

#[test]
fn what_messages_say_reaches_text_columns_only() {
    let mut looked_for = 0;
    for name in Definition::built_in_names() {
        let Ok(text) = std::fs::read_to_string(folder(name).join("input.jsonl")) else { continue };
        let mut said = Vec::new();
        for line in text.lines() {
            sentences(&serde_json::from_str(line).expect("a line is a message"), &mut said);
        }
        looked_for += said.len();
        let (projection, messages) = project(name);
        let text_columns: Vec<&str> =
            projection.outputs.iter().flat_map(|output| output.contract.text_columns).copied().collect();
        let golden = as_json(&projection, &messages);
        for output in golden.as_array().into_iter().flatten() {
            for row in output["rows"].as_array().into_iter().flatten() {
                let columns = row["row"].as_object().expect("rows are objects");
                for (column, value) in columns.iter().filter(|(column, _)| !text_columns.contains(&column.as_str())) {
                    let value = value.to_string();
                    let leak = said.iter().find(|text| value.contains(text.as_str()));
                    assert_eq!(leak, None, "{name}: {column} holds what a message says");
                }
            }
        }
    }
    assert!(looked_for > 10, "the golden inputs hold no text to look for");
}

#[test]
fn the_reference_page_is_that_of_these_definitions() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/adapters.md");
    let page = weir_adapters::reference_page();
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, &page).expect("the docs folder is writable");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(page == stored, "docs/reference/adapters.md is old: WEIR_BLESS=1 rewrites it");
}
