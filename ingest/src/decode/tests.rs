//! Decoding, from bytes to rows and reasons.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;
use weir_adapters::{Adapter, Definition};
use weir_decode::Headers;
use weir_schemas::Request;

use super::*;
use crate::{OnConflict, raw_table_spec};

/// 2023-11-14T22:13:20Z.
const AT_MS: i64 = 1_700_000_000_000;

struct Bench {
    _folder: TempDir,
    keyring: Keyring,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::open(folder.path()).unwrap();
        Self { _folder: folder, keyring }
    }

    fn decoder(&self, format: Format, keep_text: bool, allowed: &[&str]) -> Decoder {
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        Decoder::new("llm", format, self.keyring.clone(), keep_text, &allowed)
    }

    fn requests(&self, messages: &[&[u8]]) -> Decoded {
        decode(&mut self.decoder(Format::Requests, false, &[]), messages)
    }
}

/// Message `n` has offset `n`.
fn decode(decoder: &mut Decoder, messages: &[&[u8]]) -> Decoded {
    let incoming = messages.iter().zip(0..).map(|(bytes, offset)| Incoming {
        partition: 3,
        offset,
        timestamp_ms: Some(AT_MS),
        payload: Some(bytes),
        headers: Headers::default(),
    });
    decoder.decode(&incoming.collect::<Vec<_>>()).unwrap()
}

fn request(id: &str) -> Vec<u8> {
    json!({ "request_id": id, "arrival_ms": AT_MS }).to_string().into_bytes()
}

/// Request id by offset, over all batches; asserts that no offset comes twice.
fn ids(decoded: &Decoded) -> BTreeMap<i64, String> {
    let mut ids = BTreeMap::new();
    for (contract, batch) in &decoded.batches {
        assert_eq!(batch.schema(), raw_table_spec(contract).schema);
        let offsets = batch.column_by_name("source_offset").unwrap().as_primitive::<Int64Type>();
        let names = batch.column_by_name("request_id").unwrap().as_string::<i32>();
        for (offset, id) in offsets.values().iter().zip(names) {
            assert_eq!(ids.insert(*offset, id.unwrap().to_owned()), None, "offset {offset} twice");
        }
    }
    ids
}

fn reasons(decoded: &Decoded) -> Vec<(usize, &'static str)> {
    decoded.rejected.iter().map(|rejected| (rejected.message, rejected.reason.class())).collect()
}

fn text<'a>(batch: &'a RecordBatch, column: &str, row: usize) -> Option<&'a str> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column.is_valid(row).then(|| column.value(row))
}

#[test]
fn each_kind_of_bad_message_has_its_reason_and_neighbours_survive() {
    let bench = Bench::new();
    let cases: [(&[u8], &str); 20] = [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"no json", "not_json"),
        (b"{\"request_id\": \"x\"", "truncated"),
        (b"{\"request_id\": \"x", "truncated"),
        (b"{} {}", "several_values"),
        (b"{\"request_id\":\"a\",\"arrival_ms\":1700000000000}{", "several_values"),
        (b"[]", "not_an_object"),
        (b"\"text\"", "not_an_object"),
        (br#"{"request_id": 7, "arrival_ms": 1700000000000}"#, "wrong_type"),
        (br#"{"request_id": "x", "arrival_ms": 1700000000000, "prompt_tokens": {}}"#, "wrong_type"),
        (br#"{"request_id": "x", "arrival_ms": 1700000000000, "prompt_tokens": 3000000000}"#, "wrong_type"),
        (br#"{"request_id": "x", "arrival_ms": 1700000000000, "prompt_tokens": 12.7}"#, "wrong_type"),
        (br#"{"request_id": "x", "arrival_ms": 1700000000000, "prompt_tokens": "12.7"}"#, "wrong_type"),
        (br#"{"request_id": "x", "arrival_ms": 1700000000000.5}"#, "wrong_type"),
        (br#"{"request_id": "x", "arrival_ms": 1e300}"#, "wrong_type"),
        (br#"{"arrival_ms": 1700000000000}"#, "missing_field"),
        (br#"{"request_id": "x", "arrival_ms": 1700000000}"#, "implausible_time"),
        (br#"{"request_id": "x", "arrival_ms": 1700000000000000}"#, "implausible_time"),
        (br#"{"request_id": "x", "arrival_ms": 1700000000000, "propensity": 0}"#, "propensity"),
    ];
    // Each bad message between two good ones, all in one run.
    let goods: Vec<Vec<u8>> = (0..=cases.len()).map(|n| request(&format!("good-{n}"))).collect();
    let mut messages: Vec<&[u8]> = vec![&goods[0]];
    for ((bad, _), good) in cases.iter().zip(&goods[1..]) {
        messages.extend([*bad, good.as_slice()]);
    }
    let decoded = bench.requests(&messages);
    let expected: Vec<_> = cases.iter().enumerate().map(|(n, (_, class))| (2 * n + 1, *class)).collect();
    assert_eq!(reasons(&decoded), expected);
    let survivors: Vec<String> = ids(&decoded).into_values().collect();
    assert_eq!(survivors, (0..=cases.len()).map(|n| format!("good-{n}")).collect::<Vec<_>>());
}

#[test]
fn quantities_that_cannot_be_are_rejected_with_the_name_of_their_field() {
    let bench = Bench::new();
    let cases = [
        ("prompt_tokens", "-5", false),
        ("prompt_tokens", "0", true),
        ("turn", "-1", false),
        ("ttft_ms", "-0.001", false),
        ("end_to_end_ms", "1e9", true),
        ("end_to_end_ms", "1e17", false),
        ("end_to_end_ms", "1e300", false),
        ("cost_usd", "1e7", false),
        ("ttft_ms", "0", true),
        ("tpot_ms", "1e999", false),
        ("cost_usd", "-0.01", false),
        ("cost_usd", "\"NaN\"", false),
        ("cost_usd", "1e-9", true),
        ("energy_joules", "-1", false),
        ("safety_score", "1.2", false),
        ("semantic_cache_similarity", "1.0000001", true),
        ("semantic_cache_similarity", "null", true),
        ("tools_called", r#"[{"name": "a", "latency_ms": 3}, {"name": "b", "latency_ms": -3}]"#, false),
        ("tools_called", r#"[{"name": "a", "latency_ms": 3}, {"name": "b"}]"#, true),
        ("embedding", "[-1.0, 0.5]", true),
        ("prefix_block_hashes", "[-7]", true),
        ("hazard_scores", r#"{"a": 0, "b": 1}"#, true),
        ("hazard_scores", r#"{"a": 0.5, "b": -1}"#, false),
        ("hazard_scores", r#"{"a": "NaN"}"#, false),
    ];
    // All in one run, so that each bad one has neighbours.
    let with = |(field, value, _): &(&str, &str, bool)| {
        format!(r#"{{"request_id": "x", "arrival_ms": {AT_MS}, "{field}": {value}}}"#).into_bytes()
    };
    let messages: Vec<Vec<u8>> = cases.iter().map(with).collect();
    let decoded = bench.requests(&messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let bad: Vec<_> = cases.iter().enumerate().filter(|(_, case)| !case.2).collect();
    assert_eq!(
        decoded.rejected.iter().map(|one| one.message).collect::<Vec<_>>(),
        bad.iter().map(|one| one.0).collect::<Vec<_>>()
    );
    for (rejected, (_, (field, value, _))) in decoded.rejected.iter().zip(bad) {
        assert!(rejected.reason.to_string().contains(field), "{field} {value}: {}", rejected.reason);
        assert!(["out_of_range", "wrong_type"].contains(&rejected.reason.class()), "{}", rejected.reason.class());
    }
    assert_eq!(ids(&decoded).len(), cases.iter().filter(|case| case.2).count());
}

#[test]
fn propensities_outside_zero_to_one_are_rejected_and_one_is_not() {
    let bench = Bench::new();
    let with = |propensity: &str| {
        format!(r#"{{"request_id": "x", "arrival_ms": {AT_MS}, "propensity": {propensity}}}"#).into_bytes()
    };
    for (propensity, good) in
        [("1", true), ("1e-9", true), ("null", true), ("1.01", false), ("-0.5", false), ("\"NaN\"", false)]
    {
        let decoded = bench.requests(&[&with(propensity)]);
        assert_eq!(decoded.rejected.is_empty(), good, "{propensity}: {:?}", decoded.rejected);
    }
}

#[test]
fn candidates_that_contradict_themselves_or_the_propensity_are_rejected() {
    let bench = Bench::new();
    let with = |(candidates, rest, _): &(&str, &str, bool)| {
        format!(r#"{{"request_id": "x", "arrival_ms": {AT_MS}, "candidates": [{candidates}]{rest}}}"#).into_bytes()
    };
    let cases = [
        (r#"{"model": "a"}, {"model": "b", "score": 7}"#, "", true),
        (r#"{"model": "a", "propensity": 1.5}"#, "", false),
        (r#"{"model": "a", "propensity": -0.1}"#, "", false),
        (r#"{"model": "a", "propensity": "NaN"}"#, "", false),
        (r#"{"model": "a", "propensity": 0.7}, {"model": "b", "propensity": 0.7}"#, "", false),
        (r#"{"model": "a", "propensity": 0.7}, {"model": "b", "propensity": 0.3000001}"#, "", true),
        // It could not have been chosen, which is worth saying.
        (r#"{"model": "a", "propensity": 1}, {"model": "b", "propensity": 0}"#, "", true),
        (r#"{"model": "a", "propensity": 0.75}"#, r#", "intended_model": "a", "propensity": 0.75"#, true),
        (r#"{"model": "a", "propensity": 0.75}"#, r#", "intended_model": "a", "propensity": 0.25"#, false),
        (r#"{"model": "a", "propensity": 0.75}"#, r#", "intended_model": "b", "propensity": 0.25"#, true),
        (r#"{"model": "a", "propensity": 0.75}"#, r#", "intended_model": "a""#, true),
    ];
    let messages: Vec<Vec<u8>> = cases.iter().map(with).collect();
    let decoded = bench.requests(&messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let bad = cases.iter().enumerate().filter(|(_, case)| !case.2).map(|(n, _)| (n, "propensity"));
    assert_eq!(reasons(&decoded), bad.collect::<Vec<_>>());
}

#[test]
fn sources_and_kinds_outside_the_vocabulary_are_rejected_with_the_vocabulary() {
    let bench = Bench::new();
    let opinion = |source: &str, kind: &str| {
        json!({ "feedback_id": "f", "event_ms": AT_MS, "source": source, "kind": kind }).to_string()
    };
    let messages = [opinion("user", "thumb"), opinion("me", "thumb"), opinion("operator", "whim")];
    let bytes: Vec<&[u8]> = messages.iter().map(String::as_bytes).collect();
    let decoded = decode(&mut bench.decoder(Format::Feedback, false, &[]), &bytes);
    assert_eq!(reasons(&decoded), [(1, "unknown_word"), (2, "unknown_word")]);
    let words = decoded.rejected[1].reason.to_string();
    assert!(words.starts_with("field kind is not one of: thumb, "), "{words}");
}

#[test]
fn a_blank_of_dcgm_is_null_and_any_other_impossible_reading_is_rejected() {
    let bench = Bench::new();
    let sample = |field: &str, value: &str| format!(r#"{{"event_ms": {AT_MS}, "{field}": {value}}}"#);
    let energy = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION";
    let messages = [
        sample("DCGM_FI_DEV_POWER_USAGE", "140737488355330"),
        sample("DCGM_FI_DEV_FB_USED", "9223372036854775794"),
        sample("DCGM_FI_DEV_GPU_UTIL", "2147483634"),
        sample(energy, "9223372036854775794"),
        sample(energy, "2147483634"),
        sample("DCGM_FI_DEV_GPU_UTIL", "101"),
        sample("DCGM_FI_DEV_POWER_USAGE", "1e6"),
        sample("vllm:num_requests_running", "9223372036854775794"),
    ];
    let bytes: Vec<&[u8]> = messages.iter().map(String::as_bytes).collect();
    let decoded = decode(&mut bench.decoder(Format::GpuTelemetry, false, &[]), &bytes);
    assert_eq!(reasons(&decoded), [(5, "out_of_range"), (6, "out_of_range"), (7, "out_of_range")]);
    let batch = &decoded.batches[0].1;
    let given = |row: usize, field: &str| batch.column_by_name(field).unwrap().is_valid(row);
    assert!(!given(0, "DCGM_FI_DEV_POWER_USAGE") && !given(1, "DCGM_FI_DEV_FB_USED"));
    assert!(!given(2, "DCGM_FI_DEV_GPU_UTIL") && !given(3, energy));
    assert!(given(4, energy), "an energy counter passes through the 32-bit blanks");
}

#[test]
fn the_adapters_own_extra_is_kept_and_nobody_elses() {
    let bench = Bench::new();
    let record = json!({
        "id": "a", "timestamp": "2023-11-14T22:13:20Z", "recipe": "support", "streaming": true,
        "extra": { "vllm_sr.recipe": "secret" }, "shard": "secret",
    });
    let extra = |format, message: &serde_json::Value| {
        let message = message.to_string();
        let decoded = decode(&mut bench.decoder(format, false, &[]), &[message.as_bytes()]);
        let column = decoded.batches[0].1.column_by_name("extra").unwrap().clone();
        column.is_valid(0).then(|| {
            let extra = column.as_map().value(0);
            let (keys, values) = (extra.column(0).as_string::<i32>(), extra.column(1).as_string::<i32>());
            keys.iter().flatten().zip(values.iter().flatten()).map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()
        })
    };
    let kept = extra(Format::VllmSemanticRouter, &record);
    assert_eq!(kept, Some(vec![r#"vllm_sr.recipe="support""#.to_owned(), "vllm_sr.streaming=true".to_owned()]));
    let native = json!({ "request_id": "a", "arrival_ms": AT_MS, "extra": { "vllm_sr.recipe": "secret" } });
    assert_eq!(extra(Format::Requests, &native), None);
}

/// `extra` of each row.
fn extras(batch: &RecordBatch) -> Vec<Option<Vec<String>>> {
    let column = batch.column_by_name("extra").unwrap().as_map();
    let extra = |row| {
        let extra = column.value(row);
        let (keys, values) = (extra.column(0).as_string::<i32>(), extra.column(1).as_string::<i32>());
        keys.iter().flatten().zip(values.iter().flatten()).map(|(key, value)| format!("{key}={value}")).collect()
    };
    (0..batch.num_rows()).map(|row| column.is_valid(row).then(|| extra(row))).collect()
}

#[test]
fn listed_headers_stand_in_extra_of_each_row_whatever_the_format_and_no_others_do() {
    let bench = Bench::new();
    let native = json!({
        "request_id": "a", "arrival_ms": AT_MS, "region": "eu", "header.traceparent": "forged", "extra": { "header.x": "forged" },
    });
    let replay = json!({ "id": "a", "timestamp": "2023-11-14T22:13:20Z", "extra": { "header.x": "forged" } });
    let lines = format!("{native}\n{native}");
    let adapted = json!({
        "id": "a", "call_type": "acompletion", "model": "m", "startTime": 1_700_000_000, "endTime": 1_700_000_001,
        "status": "success",
    });
    let mut headers = Vec::new();
    for (name, value) in
        [("traceparent", &b"00-\xc3\xa9"[..]), ("x", b""), ("binary", b"\xff"), ("unlisted", b"secret")]
    {
        Headers::pack(name, value, &mut headers);
    }
    let names = ["traceparent", "x", "binary", "absent"].map(str::to_owned);
    let allowed = ["region", "header.traceparent"];
    let kept = ["header.traceparent=00-é", "header.x="];
    let cases = [
        (Format::Requests, Encoding::Json, native.to_string(), &["region=\"eu\""][..], 1),
        (Format::Requests, Encoding::JsonLines, lines, &["region=\"eu\""], 2),
        (Format::VllmSemanticRouter, Encoding::Json, replay.to_string(), &[], 1),
        (
            adapter("litellm"),
            Encoding::Json,
            adapted.to_string(),
            &["litellm_model=m", "litellm_call_type=acompletion"],
            1,
        ),
    ];
    for (format, encoding, message, own, rows) in cases {
        let message = |headers| Incoming {
            partition: 0,
            offset: 0,
            timestamp_ms: Some(AT_MS),
            payload: Some(message.as_bytes()),
            headers: Headers::of(headers),
        };
        let messages = [message(&headers[..]), message(&[])];
        let decoder = bench.decoder(format.clone(), false, &allowed).with_encoding(encoding, None);
        let decoded = decoder.with_headers(&names).decode(&messages).unwrap();
        assert_eq!((&decoded.rejected[..], decoded.headers_left_out), (&[][..], 1), "{format:?}");
        let found = extras(&decoded.batches[0].1);
        let own: Vec<String> = own.iter().map(|own| (*own).to_owned()).collect();
        let with: Vec<String> = own.iter().cloned().chain(kept.map(str::to_owned)).collect();
        let without = (!own.is_empty()).then_some(own);
        assert_eq!(found, [vec![Some(with); rows], vec![without; rows]].concat(), "{format:?}");

        let mut closed = bench.decoder(format, false, &allowed).with_encoding(encoding, None);
        let decoded = closed.decode(&messages).unwrap();
        assert_eq!(decoded.headers_left_out, 0);
        assert!(!format!("{:?}", extras(&decoded.batches[0].1)).contains("00-"), "nothing is kept that is not listed");
    }
}

#[test]
fn reasons_never_quote_the_message() {
    let bench = Bench::new();
    let secret = "hunter2";
    let messages = [
        format!("{{\"request_id\": {secret}"),
        format!(r#"{{"request_id": "x", "arrival_ms": "{secret}"}}"#),
        format!(r#"{{"request_id": "x", "arrival_ms": {AT_MS}, "scopes": [{{"{secret}": 1}}]}}"#),
        format!(r#"["{secret}"]"#),
        format!(r#"{{"{secret}": 1}}"#),
    ];
    for format in [Format::Requests, Format::VllmSemanticRouter] {
        let bytes: Vec<&[u8]> = messages.iter().map(String::as_bytes).collect();
        let decoded = decode(&mut bench.decoder(format, true, &[]), &bytes);
        assert_eq!(decoded.rejected.len(), messages.len());
        for rejected in &decoded.rejected {
            assert!(!rejected.reason.to_string().contains(secret), "{}", rejected.reason);
        }
    }
}

#[test]
fn tombstones_are_counted_and_nothing_else() {
    let bench = Bench::new();
    let good = request("a");
    let message =
        |offset, payload| Incoming { partition: 0, offset, timestamp_ms: None, payload, headers: Headers::default() };
    let messages = [message(0, None), message(1, Some(good.as_slice())), message(2, None)];
    let decoded = bench.decoder(Format::Requests, false, &[]).decode(&messages).unwrap();
    assert_eq!((decoded.tombstones, decoded.rows(), decoded.rejected.len()), (2, 1, 0));
    assert_eq!(ids(&decoded).into_keys().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_message_is_judged_by_its_own_timestamp_not_by_the_clock() {
    let bench = Bench::new();
    let good = request("a");
    let judged = |timestamp_ms| {
        let incoming =
            Incoming { partition: 0, offset: 0, timestamp_ms, payload: Some(&good), headers: Headers::default() };
        bench.decoder(Format::Requests, false, &[]).decode(&[incoming]).unwrap().rejected.is_empty()
    };
    assert!(judged(Some(AT_MS - 86_399_999)), "a day of skew is allowed");
    assert!(!judged(Some(AT_MS - 86_400_000)));
    assert!(judged(None));
}

#[test]
fn sessions_callers_and_chains_become_pseudonyms_of_their_tenant() {
    let bench = Bench::new();
    let message = |tenant: serde_json::Value| {
        json!({
            "request_id": "x", "arrival_ms": AT_MS, "session_id": "s", "caller": "ann", "chain_id": "resp_1",
            "tenant": tenant,
        })
        .to_string()
    };
    let messages = [message("acme".into()), message(serde_json::Value::Null), message("acme".into())];
    let bytes: Vec<&[u8]> = messages.iter().map(String::as_bytes).collect();
    let decoded = bench.requests(&bytes);
    let batch = &decoded.batches[0].1;
    let key = |tenant| bench.keyring.tenant_key(tenant).unwrap();
    for (row, tenant) in ["acme", "default", "acme"].into_iter().enumerate() {
        assert_eq!(text(batch, "session_id", row), Some(key(tenant).pseudonym("session_id", "s").as_str()));
        assert_eq!(text(batch, "caller", row), Some(key(tenant).pseudonym("caller", "ann").as_str()));
        assert_eq!(text(batch, "chain_id", row), Some(key(tenant).pseudonym("chain_id", "resp_1").as_str()));
    }
    assert_eq!(text(batch, "event_date", 0), Some("2023-11-14"));
    assert_eq!(batch.column_by_name("source_partition").unwrap().as_primitive::<Int32Type>().value(0), 3);
}

#[test]
fn text_and_unknown_fields_stay_outside_unless_allowed() {
    let bench = Bench::new();
    let message = json!({
        "request_id": "x", "arrival_ms": AT_MS, "prompt_text": "secret", "shard": 7, "other": "secret",
        "extra": { "shard": "9", "region": "eu", "hidden": "secret" },
    });
    let message = message.to_string();
    let batch = |keep_text, allowed: &[&str]| {
        let mut decoded = decode(&mut bench.decoder(Format::Requests, keep_text, allowed), &[message.as_bytes()]);
        decoded.batches.remove(0).1
    };
    let closed = batch(false, &[]);
    assert_eq!(text(&closed, "prompt_text", 0), None);
    assert!(closed.column_by_name("extra").unwrap().is_null(0));

    let open = batch(true, &["shard", "region", "absent"]);
    assert_eq!(text(&open, "prompt_text", 0), Some("secret"));
    let extra = open.column_by_name("extra").unwrap().as_map().value(0);
    let pairs: Vec<_> = extra.column(0).as_string::<i32>().iter().zip(extra.column(1).as_string::<i32>()).collect();
    assert_eq!(pairs, [(Some("shard"), Some("7")), (Some("region"), Some("eu"))]);
}

#[test]
fn a_full_record_keeps_every_field_of_its_contract() {
    let bench = Bench::new();
    let full = json!({
        "request_id": "x", "arrival_ms": AT_MS, "revision": 2, "terminal": true, "scopes": ["a", "b"],
        "gateway_tags": { "team": "red" }, "hazard_scores": { "violence": 0.25 }, "embedding": [0.5, -1.0],
        "tools_called": [{ "name": "search", "success": true, "latency_ms": 12.5 }],
        "candidates": [{ "model": "m", "score": 0.5, "propensity": 1.0 }], "propensity": 0.5,
        "prefix_block_hashes": [1, -2], "cost_usd": 0.001,
    });
    let sent: Request = serde_json::from_value(full.clone()).unwrap();
    let decoded = bench.requests(&[full.to_string().as_bytes()]);
    assert_eq!(decoded.rejected, []);
    let mut written = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut written);
    writer.write(&decoded.batches[0].1).unwrap();
    writer.finish().unwrap();
    let read: Request = serde_json::from_slice(&written).unwrap();
    assert_eq!(read, sent);
}

#[test]
fn more_messages_than_a_batch_keep_their_order_and_their_offsets() {
    let bench = Bench::new();
    let messages: Vec<Vec<u8>> =
        (0..10_000).map(|n| if n % 1_000 == 999 { b"broken".to_vec() } else { request(&n.to_string()) }).collect();
    let bytes: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let decoded = bench.requests(&bytes);
    assert_eq!(decoded.rejected.len(), 10);
    let ids = ids(&decoded);
    assert_eq!(ids.len(), 9_990);
    assert!(ids.iter().all(|(offset, id)| *id == offset.to_string()));
}

#[test]
fn a_replay_record_that_is_bad_in_one_table_is_held_back_from_both() {
    let bench = Bench::new();
    let record = |id: &str, timestamp: &str| {
        json!({
            "id": id, "request_id": id, "timestamp": timestamp, "decision": "math", "original_model": "auto",
            "selected_model": "m", "response_status": 200, "hallucination_enabled": true,
            "hallucination_detected": true, "hallucination_confidence": 0.5,
        })
        .to_string()
    };
    let messages =
        [record("a", "2023-11-14T22:13:20Z"), record("b", "1971-01-01T00:00:00Z"), record("c", "2023-11-14T22:13:20Z")];
    let bytes: Vec<&[u8]> = messages.iter().map(String::as_bytes).collect();
    let decoded = decode(&mut bench.decoder(Format::VllmSemanticRouter, false, &[]), &bytes);
    assert_eq!(reasons(&decoded), [(1, "implausible_time")]);
    for table in ["requests", "feedback"] {
        let batches = decoded.batches.iter().filter(|(contract, _)| contract.name == table);
        let offsets: Vec<i64> = batches
            .flat_map(|(_, batch)| {
                batch.column_by_name("source_offset").unwrap().as_primitive::<Int64Type>().values().to_vec()
            })
            .collect();
        assert_eq!(offsets, [0, 2], "{table}");
    }
}

/// Bytes that look like JSON more often than random ones do.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let scraps = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "\\u12",
        "\\ud800",
        "null",
        "true",
        "fals",
        "-",
        "1",
        "1e999",
        "0.5",
        " ",
        "\"request_id\"",
        "\"arrival_ms\"",
        "1700000000000",
        "\"extra\"",
        "\"embedding\"",
        "\"candidates\"",
        "\u{0}",
        "é",
    ]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(scraps, 0..24).prop_map(|scraps| scraps.concat().into_bytes()),
        Just(vec![b'['; 5_000]),
        Just("{\"a\":".repeat(2_000).into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn garbage_never_panics_and_never_touches_its_neighbours(
        messages in prop::collection::vec(prop_oneof![2 => garbage().prop_map(Some), 1 => Just(None)], 1..24),
    ) {
        let bench = Bench::new();
        let bytes: Vec<Vec<u8>> =
            messages.iter().enumerate().map(|(n, garbage)| garbage.clone().unwrap_or_else(|| request(&n.to_string()))).collect();
        let slices: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        for format in [Format::Requests, Format::Feedback, Format::GpuTelemetry, Format::VllmSemanticRouter] {
            let decoded = decode(&mut bench.decoder(format.clone(), true, &["a", "request_id"]), &slices);
            if format == Format::Requests {
                let ids = ids(&decoded);
                for (n, garbage) in messages.iter().enumerate().filter(|(_, garbage)| garbage.is_none()) {
                    prop_assert_eq!(ids.get(&(n as i64)), Some(&n.to_string()), "{:?}", garbage);
                }
                // Every message has exactly one fate, and it is the fate it has alone.
                prop_assert_eq!(ids.len() + decoded.rejected.len(), messages.len());
                for (n, message) in slices.iter().enumerate() {
                    let alone = bench.requests(&[message]);
                    let together = decoded.rejected.iter().find(|rejected| rejected.message == n);
                    prop_assert_eq!(alone.rejected.is_empty(), together.is_none());
                }
            }
        }
    }
}

/// An adapter that comes with Weir.
fn adapter(name: &str) -> Format {
    let definition = Definition::built_in(name).expect("it comes with Weir");
    Format::Adapter(Arc::new(Adapter::compile(&definition).unwrap()))
}

#[test]
fn what_an_adapter_makes_passes_the_door_like_anything_else() {
    let bench = Bench::new();
    let golden = include_bytes!("../../../adapters/golden/litellm/input.jsonl");
    let messages: Vec<&[u8]> = golden.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let later = |messages: &[&[u8]]| {
        // The payloads were captured after the moment that other messages here are sent at.
        let incoming = messages.iter().zip(0..).map(|(bytes, offset)| Incoming {
            partition: 3,
            offset,
            timestamp_ms: None,
            payload: Some(bytes),
            headers: Headers::default(),
        });
        bench.decoder(adapter("litellm"), false, &[]).decode(&incoming.collect::<Vec<_>>()).unwrap()
    };
    let decoded = later(&messages);
    assert_eq!(decoded.rejected, []);
    let expected: serde_json::Value =
        serde_json::from_slice(include_bytes!("../../../adapters/golden/litellm/expected.json")).unwrap();
    let rows = expected.as_array().unwrap().iter().map(|table| table["rows"].as_array().unwrap().len());
    assert_eq!(decoded.rows(), rows.sum::<usize>() as u64, "what the adapter's own tests expect");
    for (contract, batch) in &decoded.batches {
        for column in contract.text_columns {
            let column = batch.column_by_name(column).unwrap();
            assert_eq!(column.null_count(), column.len(), "text stays outside");
        }
    }
    let callers = decoded.batches[0].1.column_by_name("caller").unwrap().as_string::<i32>();
    assert!(callers.iter().flatten().all(|caller| caller.len() == 32), "a caller came in by name");

    let mixed = [b"no json".as_slice(), messages[0], br#"{"id": 7}"#];
    let decoded = later(&mixed);
    assert_eq!(reasons(&decoded), [(0, "not_json"), (2, "wrong_type")]);
    assert_eq!(ids(&decoded).keys().copied().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_scraped_page_becomes_one_row_for_each_gpu() {
    let bench = Bench::new();
    let page = include_bytes!("../../../adapters/golden/dcgm_exporter/1.prom");
    let decoded = decode(&mut bench.decoder(adapter("dcgm_exporter"), false, &[]), &[b"!", page]);
    assert_eq!(reasons(&decoded), [(0, "adapter")]);
    let (contract, batch) = &decoded.batches[0];
    assert_eq!(contract.name, "gpu_telemetry");
    let offsets = batch.column_by_name("source_offset").unwrap().as_primitive::<Int64Type>();
    assert!(batch.num_rows() > 1 && offsets.values().iter().all(|offset| *offset == 1));
}

#[test]
fn lines_of_a_message_are_rows_and_one_bad_line_makes_the_message_bad() {
    let bench = Bench::new();
    let mut decoder = bench.decoder(Format::Requests, false, &["beside"]).with_encoding(Encoding::JsonLines, None);
    let line = |id: &str| format!(r#"{{"request_id":"{id}","arrival_ms":{AT_MS},"beside":"{id}"}}"#);
    let two = format!("{}\r\n\n{}\n", line("a"), line("b"));
    let half_bad = format!("{}\n{{\"request_id\":\n{}", line("c"), line("d"));
    let decoded = decode(&mut decoder, &[two.as_bytes(), half_bad.as_bytes(), b" \n\n", line("e").as_bytes()]);
    assert_eq!(reasons(&decoded), [(1, "truncated"), (2, "empty")]);
    let [(_, batch)] = &decoded.batches[..] else { panic!("{decoded:?}") };
    let offsets = batch.column_by_name("source_offset").unwrap().as_primitive::<Int64Type>();
    assert_eq!(offsets.values(), &[0, 0, 3]);
    for (row, id) in ["a", "b", "e"].into_iter().enumerate() {
        assert_eq!(text(batch, "request_id", row), Some(id));
        let extra = batch.column_by_name("extra").unwrap().as_map().value(row);
        assert_eq!(extra.column(1).as_string::<i32>().value(0), format!("{id:?}"), "of its own line");
    }
}

#[test]
fn a_columns_policy_decides_what_becomes_of_values_of_another_type() {
    let bench = Bench::new();
    let policies = [("requests.prompt_tokens", OnConflict::Null), ("requests.executed_model", OnConflict::Widen)];
    let conflicts = TypeConflicts {
        default: OnConflict::DeadLetter,
        columns: policies.map(|(name, policy)| (name.to_owned(), policy)).into(),
    };
    let keyring = bench.keyring.clone();
    let mut decoder = Decoder::with_type_conflicts("llm", Format::Requests, keyring, false, &[], &conflicts);
    let with = |field: &str| format!(r#"{{"request_id":"a","arrival_ms":{AT_MS},{field}}}"#).into_bytes();
    let messages = [
        with(r#""prompt_tokens":"many""#),
        with(r#""executed_model":{"name":"m"}"#),
        with(r#""completion_tokens":"many""#),
        with(r#""prompt_tokens":1.5,"executed_model":7"#),
    ];
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let decoded = decode(&mut decoder, &messages);
    assert_eq!(reasons(&decoded), [(2, "wrong_type")]);
    assert_eq!(decoded.nulled, BTreeMap::from([("requests.prompt_tokens".to_owned(), 2)]));
    let (_, batch) = &decoded.batches[0];
    assert_eq!(batch.column_by_name("prompt_tokens").unwrap().null_count(), 3);
    let models: Vec<_> = (0..3).map(|row| text(batch, "executed_model", row)).collect();
    assert_eq!(models, [None, Some(r#"{"name":"m"}"#), Some("7")]);
}

#[test]
fn fields_that_are_dropped_because_nobody_knows_them_are_counted_and_named() {
    let bench = Bench::new();
    let request = json!({
        "request_id": "a", "arrival_ms": AT_MS, "promptTokens": 7, "listed": 1, "prompt_text": "dropped on purpose",
        "extra": { "anything": "1" },
    });
    let messages = [request.to_string(), request.to_string().replace("request_id", "requestId")];
    let messages: Vec<&[u8]> = messages.iter().map(String::as_bytes).collect();
    let decoded = decode(&mut bench.decoder(Format::Requests, false, &["listed"]), &messages);
    assert_eq!(
        (decoded.unknown_fields, decoded.unknown_names),
        (3, vec!["promptTokens".to_owned(), "requestId".to_owned()])
    );
    assert_eq!(decoded.rejected.len(), 1);

    let adapter = Adapter::compile(&Definition::built_in("litellm").unwrap()).unwrap();
    let decoded = decode(&mut bench.decoder(Format::Adapter(Arc::new(adapter)), false, &[]), &messages);
    assert_eq!(decoded.unknown_fields, 0, "another system's records hold what an adapter does not need");
}
