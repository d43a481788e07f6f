//! What a compiled adapter does with a batch.

mod common;

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use proptest::prelude::*;
use serde_json::{Value, json};
use weir_adapters::prometheus::Page;
use weir_adapters::{Adapter, Definition, Projection};

const COLUMNS: &str =
    "id text, at bigint, n text, ratio double, body json, tags list<text>, parts list<struct<kind text, score double>>";

fn adapter(outputs: &str) -> Adapter {
    let text = format!("name = \"x\"\ncolumns = '''{COLUMNS}'''\n{outputs}");
    let definition = Definition::from_toml(&text, |_| Err("no files here".to_owned())).expect("it reads");
    Adapter::compile(&definition).unwrap_or_else(|error| panic!("{error}"))
}

fn requests(items: &str, condition: &str) -> Adapter {
    adapter(&format!(
        "[[outputs]]\ntable = \"requests\"\nsql = '''SELECT id AS request_id, at AS arrival_ms, {items} FROM message {condition}'''"
    ))
}

fn project(adapter: &Adapter, messages: &[Value]) -> Projection {
    adapter.project(&common::batch(&adapter.input_schema(), messages)).expect("it projects its own schema")
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    batch.column_by_name(column).expect("there").as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

#[test]
fn a_value_that_does_not_cast_fails_its_message_and_not_its_neighbours() {
    let adapter = requests("CAST(n AS INT) AS turn", "");
    let messages: Vec<Value> = (0..1000)
        .map(|n| json!({ "id": format!("r{n}"), "at": n, "n": if n % 97 == 5 { "my secret".to_owned() } else { n.to_string() } }))
        .collect();
    let projection = project(&adapter, &messages);
    let bad: Vec<u32> = (0..1000).filter(|n| n % 97 == 5).collect();
    assert_eq!(projection.failed.iter().map(|failed| failed.row).collect::<Vec<_>>(), bad);
    let reason = &projection.failed[0].reason;
    assert!(reason.contains("requests.turn") && reason.contains("TRY_CAST") && !reason.contains("secret"), "{reason}");
    let good = &projection.outputs[0];
    assert_eq!(good.rows, (0..1000).filter(|n| n % 97 != 5).collect::<Vec<u32>>());
    let turns = good.batch.column_by_name("turn").unwrap().as_primitive::<Int32Type>().clone();
    assert!(good.rows.iter().zip(turns.values()).all(|(row, turn)| *row as i32 == *turn));
}

#[test]
fn a_message_that_fails_in_one_output_is_in_none() {
    let adapter = adapter(
        "[[outputs]]\ntable = \"requests\"\nsql = 'SELECT id AS request_id, at AS arrival_ms FROM message'\n\
         [[outputs]]\ntable = \"feedback\"\nsql = '''SELECT id AS feedback_id, at AS event_ms, 'user' AS source, \
         'rating' AS kind, CAST(n AS DOUBLE) AS value FROM message WHERE n IS NOT NULL'''",
    );
    let names: Vec<&str> = adapter.outputs().iter().map(|contract| contract.name).collect();
    assert_eq!(names, ["requests", "feedback"]);
    let projection = project(
        &adapter,
        &[
            json!({ "id": "a", "at": 1 }),
            json!({ "id": "b", "at": 2, "n": "x" }),
            json!({ "id": "c", "at": 3, "n": "0.5" }),
        ],
    );
    assert_eq!(projection.outputs[0].rows, [0, 2]);
    assert_eq!(projection.outputs[1].rows, [2]);
    assert_eq!(projection.failed.len(), 1);
}

#[test]
fn a_condition_that_is_null_keeps_nothing() {
    let adapter = requests("n AS tenant", "WHERE ratio > 0.5");
    let projection = project(
        &adapter,
        &[
            json!({ "id": "a", "at": 1, "ratio": 0.9 }),
            json!({ "id": "b", "at": 2 }),
            json!({ "id": "c", "at": 3, "ratio": 0.1 }),
        ],
    );
    assert_eq!(projection.outputs[0].rows, [0]);
    assert_eq!(projection.failed, []);
}

#[test]
fn each_element_of_a_list_is_a_row_of_its_message() {
    let adapter = adapter(
        "[[outputs]]\ntable = \"feedback\"\neach = \"parts\"\nsql = '''SELECT id || '/' || item.kind AS feedback_id, \
         at AS event_ms, 'judge' AS source, 'rating' AS kind, item.score AS value FROM message WHERE item.score IS NOT NULL'''",
    );
    let projection = project(
        &adapter,
        &[
            json!({ "id": "a", "at": 1, "parts": [{ "kind": "x", "score": 0.1 }, { "kind": "y" }, { "kind": "z", "score": 0.3 }] }),
            json!({ "id": "b", "at": 2, "parts": [] }),
            json!({ "id": "c", "at": 3 }),
            json!({ "id": "d", "at": 4, "parts": [{ "kind": "w", "score": 1.0 }] }),
        ],
    );
    let rows = &projection.outputs[0];
    assert_eq!(rows.rows, [0, 0, 3]);
    assert_eq!(texts(&rows.batch, "feedback_id"), [text("a/x"), text("a/z"), text("d/w")]);
}

#[test]
fn whole_numbers_widen_and_too_large_ones_fail() {
    let adapter = requests("at AS turn, at AS ttft_ms", "");
    let projection = project(&adapter, &[json!({ "id": "a", "at": 7 }), json!({ "id": "b", "at": 3_000_000_000_i64 })]);
    assert_eq!(projection.outputs[0].rows, [0]);
    assert_eq!(projection.failed[0].row, 1);
    let ttft = projection.outputs[0].batch.column_by_name("ttft_ms").unwrap();
    assert_eq!(ttft.as_primitive::<Float64Type>().values(), &[7.0]);
}

#[test]
fn lists_of_structs_follow_the_contract_by_name() {
    let adapter = requests(
        "array_transform(parts, part -> named_struct('latency_ms', part['score'], 'name', part['kind'])) AS tools_called",
        "",
    );
    let projection = project(&adapter, &[json!({ "id": "a", "at": 1, "parts": [{ "kind": "search", "score": 2.5 }] })]);
    let calls = projection.outputs[0].batch.column_by_name("tools_called").unwrap().as_list::<i32>().value(0);
    let calls = calls.as_struct();
    assert_eq!(calls.column_by_name("name").unwrap().as_string::<i32>().value(0), "search");
    assert_eq!(calls.column_by_name("latency_ms").unwrap().as_primitive::<Float64Type>().value(0), 2.5);
    assert!(calls.column_by_name("success").unwrap().is_null(0));
}

#[test]
fn a_batch_of_another_schema_is_refused() {
    let adapter = requests("n AS tenant", "");
    let other = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
    assert!(adapter.project(&other).unwrap_err().to_string().contains("not of its input schema"));
    let none = RecordBatch::new_empty(adapter.input_schema());
    assert_eq!(adapter.project(&none).unwrap().outputs[0].batch.num_rows(), 0);
}

/// One function over one JSON value.
fn call(expression: &str, body: &Value) -> Option<String> {
    let adapter = requests(&format!("CAST({expression} AS VARCHAR) AS tenant"), "");
    let projection = project(&adapter, &[json!({ "id": "a", "at": 1, "body": body })]);
    assert_eq!(projection.failed, [], "{expression}");
    texts(&projection.outputs[0].batch, "tenant").remove(0)
}

#[test]
fn json_functions_read_what_the_path_says() {
    let body = json!({
        "a": { "b": [{ "c": "one two" }, { "c": "three" }, {}, { "c": null }] },
        "x.y": 1.5, "flag": true, "none": null, "obj": { "k": "v", "n": 2 },
    });
    for (expression, value) in [
        ("json_text(body, 'a.b[0].c')", Some("one two")),
        ("json_text(body, '$.flag')", Some("true")),
        ("json_text(body, 'obj')", Some(r#"{"k":"v","n":2}"#)),
        ("json_text(body, 'none')", None),
        ("json_text(body, 'a.z')", None),
        ("json_text(body, 'a.b[9].c')", None),
        ("json_number(body, '[\"x.y\"]')", Some("1.5")),
        ("json_number(body, 'flag')", None),
        ("json_length(body, 'a.b')", Some("4")),
        ("json_length(body, 'obj')", Some("2")),
        ("json_length(body, 'flag')", None),
        ("json_word(body, 'a.b[0].c')", None),
        ("json_word(body, 'a.b[1].c')", Some("three")),
        ("array_to_string(json_words(body, 'a.b[*].c'), ',')", Some("three")),
        ("array_to_string(json_texts(body, 'a.b[*].c'), ',')", Some("one two,three")),
        ("array_to_string(json_texts(body, 'a.z[*].c'), ',')", None),
        ("json_map(body, 'obj')['n']", Some("2")),
        ("epoch_ms('2026-08-24T09:12:31.482Z')", Some("1787562751482")),
        // SHA-256 of the empty text, by `sha256sum`.
        ("text_hash('')", Some("e3b0c44298fc1c149afbf4c8996fb924")),
    ] {
        assert_eq!(call(expression, &body), value.map(str::to_owned), "{expression}");
    }
}

#[test]
fn a_path_that_is_none_fails_and_does_not_stop() {
    let adapter = requests("json_text(body, n) AS tenant", "");
    let projection = project(
        &adapter,
        &[
            json!({ "id": "a", "at": 1, "n": "a[", "body": {} }),
            json!({ "id": "b", "at": 2, "n": "a", "body": { "a": "x" } }),
        ],
    );
    assert_eq!((projection.failed[0].row, projection.outputs[0].rows.as_slice()), (0, [1].as_slice()));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z \"\\\\\u{e4}\n]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[ab]", inner, 0..3).prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn json_text_agrees_with_a_tree(body in any_json(), steps in proptest::collection::vec("a|b|[01]", 0..4)) {
        let mut path = String::from("$");
        let mut found = Some(&body);
        for step in &steps {
            if let Ok(index) = step.parse::<usize>() {
                path += &format!("[{index}]");
                found = found.and_then(|value| value.as_array()?.get(index));
            } else {
                path += &format!(".{step}");
                found = found.and_then(|value| value.as_object()?.get(step.as_str()));
            }
        }
        let expected = match found {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(value) => Some(value.to_string()),
        };
        prop_assert_eq!(call(&format!("json_text(body, '{path}')"), &body), expected);
    }
}

#[test]
fn pages_become_a_row_per_group_of_labels() {
    let toml = "name = \"x\"\ninput = \"prometheus\"\ngroup_by = [\"gpu\"]\nsum_over = [\"reason\"]\n\
                columns = \"done_total double, busy double, timestamp_ms bigint, labels map<text, text>, message_key text\"\n\
                [[outputs]]\ntable = \"gpu_telemetry\"\nsql = '''SELECT timestamp_ms AS event_ms, labels['gpu'] AS gpu, \
                message_key AS instance, done_total AS \"vllm:request_success_total\", busy AS \"DCGM_FI_DEV_GPU_UTIL\" \
                FROM message'''";
    let definition = Definition::from_toml(toml, |_| Err(String::new())).expect("it reads");
    let adapter = Adapter::compile(&definition).unwrap_or_else(|error| panic!("{error}"));
    let first = b"done_total{gpu=\"0\",reason=\"stop\"} 3\ndone_total{gpu=\"0\",reason=\"length\"} 4\n\
                  busy{gpu=\"0\",pod=\"a\"} 50\nbusy{gpu=\"0\",pod=\"b\"} 50\nbusy{gpu=\"1\"} NaN 1700000000123\nother 1\n";
    let pages = [
        Page { text: first, scraped_ms: Some(1_700_000_000_000), key: Some("host:1") },
        Page { text: b"{\"a\": 1}", scraped_ms: None, key: None },
        Page { text: b"# nothing of ours\nup 1\n", scraped_ms: None, key: None },
        Page { text: b"busy 7\n", scraped_ms: Some(5), key: None },
    ];
    let rows = adapter.read_pages(&pages).expect("it reads pages");
    assert_eq!(rows.pages, [0, 0, 3]);
    assert_eq!(rows.failed.len(), 1);
    assert_eq!(rows.failed[0].row, 1);
    assert!(rows.failed[0].reason.contains("line 1 is not the Prometheus text format"), "{}", rows.failed[0].reason);
    let projection = adapter.project(&rows.batch).expect("it is of its schema");
    let batch = &projection.outputs[0].batch;
    let numbers =
        |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Float64Type>().iter().collect::<Vec<_>>();
    assert_eq!(numbers("vllm:request_success_total"), [Some(7.0), None, None]);
    assert_eq!(numbers("DCGM_FI_DEV_GPU_UTIL"), [Some(50.0), None, Some(7.0)]);
    let times = batch.column_by_name("event_ms").unwrap().as_primitive::<Int64Type>();
    assert_eq!(times.values(), &[1_700_000_000_000, 1_700_000_000_123, 5]);
    assert_eq!(texts(batch, "gpu"), [text("0"), text("1"), None]);
    assert_eq!(texts(batch, "instance"), [text("host:1"), text("host:1"), None]);
}
