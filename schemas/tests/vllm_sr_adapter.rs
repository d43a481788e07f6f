//! vLLM Semantic Router's replay record: the golden record and one claim per trap.

use proptest::prelude::*;
use serde_json::{Value, json};
use weir_schemas::adapters::vllm_sr::{AdaptError, Adapted, EXTRA_KEYS, adapt};
use weir_schemas::{EventTimeMs, Feedback, Request};

/// Field names are the router's, values are ours.
const COMPLETE: &str = include_str!("vllm_sr/complete.json");

fn complete() -> Value {
    serde_json::from_str(COMPLETE).unwrap()
}

/// The complete record with some fields replaced; null takes a field out.
fn with(changes: Value) -> Adapted {
    let mut record = complete();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(record.as_object_mut().unwrap().remove(name)),
            value => record[name] = value.clone(),
        }
    }
    adapt(record.to_string().as_bytes()).unwrap()
}

fn only_request(adapted: &Adapted) -> &Request {
    assert_eq!(adapted.requests.len(), 1);
    &adapted.requests[0]
}

fn row<'a>(adapted: &'a Adapted, part_of_id: &str) -> Option<&'a Feedback> {
    adapted.feedback.iter().find(|row| row.feedback_id.contains(part_of_id))
}

#[test]
fn the_complete_record_becomes_these_events() {
    let adapted = adapt(COMPLETE.as_bytes()).unwrap();
    let golden = json!({ "requests": adapted.requests, "feedback": adapted.feedback });
    insta::assert_json_snapshot!(golden);
}

#[test]
fn a_propensity_is_never_made_up() {
    let adapted = adapt(COMPLETE.as_bytes()).unwrap();
    let request = only_request(&adapted);
    assert_eq!(request.propensity, None);
    assert!(request.candidates.as_ref().unwrap().iter().all(|candidate| candidate.propensity.is_none()));
}

#[test]
fn a_seed_beyond_two_to_the_53_keeps_every_digit() {
    let adapted = adapt(COMPLETE.as_bytes()).unwrap();
    let extra = only_request(&adapted).extra.as_ref().unwrap();
    assert_eq!(extra["vllm_sr.sampling_seed"], "1789384512250000123");
}

#[test]
fn not_detected_is_clean_only_where_a_detector_left_its_confidence() {
    let verdict = |changes| {
        row(&with(changes), ":hallucination:").map(|row| (row.label.clone().unwrap(), row.checked.unwrap(), row.value))
    };
    let supported = Some(("supported".to_owned(), true, Some(1.0)));
    let not_checked = Some(("not_checked".to_owned(), false, None));
    assert_eq!(verdict(json!({})), supported);
    // The router leaves the confidence of a check that never ran out of records, and writes it as 0 in log lines.
    assert_eq!(verdict(json!({ "hallucination_confidence": null })), not_checked);
    assert_eq!(verdict(json!({ "hallucination_confidence": 0 })), not_checked);
    assert_eq!(verdict(json!({ "hallucination_enabled": false })), None);
    let detected = row(&with(json!({ "hallucination_detected": true })), ":hallucination:").unwrap().clone();
    assert_eq!((detected.checked, detected.value, detected.confidence), (Some(true), Some(0.0), Some(0.97)));
}

#[test]
fn completion_replaces_the_record_in_progress_and_late_outcomes_replace_both() {
    let started = json!({
        "lifecycle_state": "in_progress", "ended_at": "0001-01-01T00:00:00Z", "duration_ms": 0, "response_status": 0,
        "prompt_tokens": null, "cached_prompt_tokens": null, "completion_tokens": null, "actual_cost": null,
        "outcomes": null,
    });
    let stages = [with(started), with(json!({ "outcomes": null })), with(json!({}))];
    let revisions: Vec<i32> = stages.iter().map(|stage| only_request(stage).revision.unwrap()).collect();
    assert!(revisions.is_sorted_by(|earlier, later| earlier < later), "{revisions:?}");
    assert_eq!(stages.each_ref().map(|stage| only_request(stage).terminal.unwrap()), [false, true, true]);
    let running = only_request(&stages[0]);
    assert_eq!((running.end_to_end_ms, &running.executed_model, &running.error_class), (None, &None, &None));
    assert!(row(&stages[0], ":hallucination:").is_none(), "a running call has no verdict");
}

#[test]
fn of_two_copies_of_the_same_moment_the_fuller_one_wins() {
    let redacted = json!({ "prompt": null, "request_body": null, "response_body": null });
    let log_line = json!({
        "prompt": null, "request_body": null, "response_body": null, "recipe": null, "learning": null,
        "route_diagnostics": null, "tool_trace": null, "tool_definitions": null,
    });
    let without_outcomes = |mut changes: Value| {
        changes["outcomes"] = Value::Null;
        only_request(&with(changes)).revision.unwrap()
    };
    let revisions = [without_outcomes(log_line), without_outcomes(redacted), without_outcomes(json!({}))];
    assert!(revisions.is_sorted_by(|emptier, fuller| emptier < fuller), "{revisions:?}");
    // What happens to the call counts for more than what a copy shows of it.
    let running = json!({ "lifecycle_state": "in_progress", "ended_at": null, "outcomes": null });
    assert!(only_request(&with(running)).revision.unwrap() < revisions[0]);
    assert!(revisions[2] < only_request(&with(json!({ "prompt": null }))).revision.unwrap(), "an outcome came");
}

#[test]
fn a_looper_has_no_end_to_end_time_and_says_that_its_tokens_are_sums() {
    for changes in [
        json!({ "selection_method": "fusion" }),
        json!({ "selection_method": null, "route_diagnostics": { "selection_method": "confidence" } }),
    ] {
        let adapted = with(changes);
        let looped = only_request(&adapted);
        assert_eq!(looped.end_to_end_ms, None);
        assert_eq!(looped.extra.as_ref().unwrap()["vllm_sr.tokens_of_several_calls"], "true");
    }
    let adapted = with(json!({}));
    let single = only_request(&adapted);
    assert_eq!(single.end_to_end_ms, Some(2500.0));
    assert!(!single.extra.as_ref().unwrap().contains_key("vllm_sr.tokens_of_several_calls"));
}

#[test]
fn a_router_without_life_cycle_counts_as_ended_once_it_answered() {
    let state = |status| {
        let adapted = with(json!({ "lifecycle_state": "unknown", "ended_at": null, "response_status": status }));
        only_request(&adapted).terminal
    };
    assert_eq!(state(200), Some(true));
    assert_eq!(state(0), Some(false));
}

#[test]
fn a_time_without_zone_is_utc() {
    for text in ["2026-09-14 11:05:42.25", "2026-09-14T11:05:42.250", "2026-09-14T13:05:42.250+02:00"] {
        let adapted = with(json!({ "timestamp": text }));
        // 2026-09-14T11:05:42.250Z: `date -u -d 2026-09-14T11:05:42Z +%s` says 1789383942.
        assert_eq!(only_request(&adapted).arrival_ms, EventTimeMs(1_789_383_942_250), "{text}");
    }
}

#[test]
fn intended_and_executed_model_are_told_apart() {
    let adapted = adapt(COMPLETE.as_bytes()).unwrap();
    let held = only_request(&adapted);
    assert_eq!(held.intended_model.as_deref(), Some("amber-8b"));
    assert_eq!(held.executed_model.as_deref(), Some("amber-70b"));
    assert_eq!(held.fallback_reason.as_deref(), Some("cache_warm"));

    let adapted = with(json!({ "route_diagnostics": null, "learning": null }));
    let plain = only_request(&adapted);
    assert_eq!(plain.intended_model, plain.executed_model);
    assert_eq!(plain.fallback_reason, None);
}

#[test]
fn a_cache_hit_executes_no_model() {
    let adapted = with(json!({ "from_cache": true, "cache_similarity": 0.97, "cache_hit_kind": "semantic" }));
    let hit = only_request(&adapted);
    assert_eq!((hit.semantic_cache_hit, hit.semantic_cache_similarity), (Some(true), Some(0.97)));
    assert_eq!(hit.executed_model, None);
}

#[test]
fn a_follow_up_signal_is_about_the_turn_before() {
    let adapted = adapt(COMPLETE.as_bytes()).unwrap();
    let follow_up = row(&adapted, ":user_feedback:").unwrap();
    assert_eq!((follow_up.kind.as_str(), follow_up.request_id.as_deref()), ("follow_up", None));
    assert_eq!(follow_up.session_id.as_deref(), Some("run-17"));
    assert_eq!(follow_up.turn, Some(3));
    assert_eq!((follow_up.value, follow_up.confidence), (Some(0.0), Some(0.93)));

    let adapted = with(json!({ "session_id": null }));
    assert!(row(&adapted, ":user_feedback:").is_none(), "without a session it is about nothing");
}

#[test]
fn a_session_that_the_router_made_up_from_one_call_is_no_session() {
    let session = |id| {
        let adapted = with(json!({ "session_id": id }));
        let request = only_request(&adapted);
        assert_eq!(request.turn, Some(4), "the turn is counted from the messages, not from the session");
        request.session_id.clone()
    };
    assert_eq!(session("rid-0123456789abcdef"), None);
    assert_eq!(session("cc-full-0123456789abcdef"), None);
    // Made from the user and the first message: the same on every turn. And a client may name a session as it likes.
    for stable in ["cc-0123456789abcdef", "ant-md-ann", "rid-of-the-client"] {
        assert_eq!(session(stable).as_deref(), Some(stable));
    }
}

#[test]
fn a_first_turn_of_a_conversation_continues_nothing() {
    let first = json!({
        "session_id": "conv_9", "conversation_id": "conv_9", "previous_response_id": null, "turn_index": 0,
    });
    let adapted = with(first);
    let request = only_request(&adapted);
    assert_eq!((request.session_id.as_deref(), request.turn, &request.chain_id), (Some("conv_9"), Some(0), &None));
}

#[test]
fn an_outcome_is_worth_what_its_verdict_says_whatever_its_score() {
    let outcome = |verdict: &str| {
        let outcomes = json!([{
            "timestamp": "2026-09-14T11:09:00Z", "source": "a new one", "target": "model", "verdict": verdict,
            "score": 0.9,
        }]);
        row(&with(json!({ "outcomes": outcomes })), ":outcome:").unwrap().clone()
    };
    assert_eq!(outcome("failed").value, Some(0.0));
    assert_eq!(outcome("good_fit").value, Some(1.0));
    assert_eq!(outcome("good_fit").extra.unwrap()["vllm_sr.score"], "0.9");
    assert_eq!(outcome("good_fit").source, "operator");
}

#[test]
fn the_same_record_twice_gives_the_same_feedback_ids() {
    let ids = |adapted: &Adapted| adapted.feedback.iter().map(|row| row.feedback_id.clone()).collect::<Vec<_>>();
    let whole = ids(&adapt(COMPLETE.as_bytes()).unwrap());
    assert_eq!(whole.len(), 5, "{whole:?}");
    // Redaction takes reason, metadata and target_ref away; the outcome stays the same outcome.
    let mut redacted = complete();
    redacted["outcomes"][0] = json!({
        "timestamp": "2026-09-14T11:09:00Z", "source": "operator", "target": "model", "verdict": "good_fit",
    });
    assert_eq!(ids(&adapt(redacted.to_string().as_bytes()).unwrap()), whole);
}

#[test]
fn a_cut_text_is_not_passed_on_as_the_text() {
    let adapted = with(json!({
        "prompt_truncated": true, "request_body_truncated": true, "response_body_truncated": true,
        "tool_definitions_truncated": true, "tool_trace": { "steps_truncated": true, "steps": [
            { "type": "client_tool_result", "tool_name": "find_invoice", "output": "invoice 77, pa" } ] },
    }));
    let request = only_request(&adapted);
    assert_eq!((&request.prompt_text, &request.context_text, &request.response_text), (&None, &None, &None));
    assert_eq!((&request.tools_offered, request.message_count), (&None, None));
}

#[test]
fn text_reaches_text_columns_only() {
    let adapted = adapt(COMPLETE.as_bytes()).unwrap();
    let mut request = serde_json::to_value(only_request(&adapted)).unwrap();
    for column in Request::contract().text_columns {
        assert!(request[*column].is_string(), "{column}");
        request[*column] = Value::Null;
    }
    let rest = format!("{request}{}", serde_json::to_string(&adapted.feedback).unwrap());
    for text in ["refund?", "where is my", "paid", "may quote", "reads well", "free text"] {
        assert!(!rest.contains(text), "{text:?} leaked");
    }
}

#[test]
fn money_in_other_currencies_is_kept_apart() {
    let adapted = with(json!({ "currency": "EUR" }));
    let request = only_request(&adapted);
    assert_eq!(request.cost_usd, None);
    assert_eq!(request.extra.as_ref().unwrap()["vllm_sr.actual_cost"], "0.0031");
}

#[test]
fn a_tool_call_of_an_earlier_turn_is_not_counted_again() {
    let adapted = adapt(COMPLETE.as_bytes()).unwrap();
    let called: Vec<&str> =
        only_request(&adapted).tools_called.as_ref().unwrap().iter().map(|call| call.name.as_str()).collect();
    assert_eq!(called, ["refund"]);
}

#[test]
fn failures_carry_the_class_that_says_most() {
    let class = |changes| only_request(&with(changes)).error_class.clone();
    assert_eq!(class(json!({ "terminal_reason": "response_complete" })), None);
    let failed = |status, reason| {
        class(json!({ "lifecycle_state": "failed", "response_status": status, "terminal_reason": reason }))
    };
    assert_eq!(failed(429, "upstream_error_response").as_deref(), Some("http_429"));
    assert_eq!(failed(500, "looper_execution_failed").as_deref(), Some("looper_execution_failed"));
    assert_eq!(failed(200, "could not read: where is my refund").as_deref(), Some("failed"));
    let aborted = json!({ "lifecycle_state": "aborted", "terminal_reason": "client_canceled" });
    assert_eq!(class(aborted).as_deref(), Some("client_canceled"));
    assert_eq!(class(json!({ "lifecycle_state": "aborted" })).as_deref(), Some("aborted"));
}

#[test]
fn every_key_in_extra_is_listed_and_documented() {
    let maximal = with(json!({
        "currency": "EUR", "from_cache": true, "cache_hit_kind": "semantic", "cache_source": "memory",
        "streaming": true, "rag_enabled": true, "rag_context_length": 900, "rag_similarity_score": 0.5,
        "prompt_truncated": true, "request_body_truncated": true, "response_body_truncated": true,
        "selection_method": "remom",
    }));
    let of_requests = maximal.requests.iter().filter_map(|request| request.extra.as_ref());
    let of_feedback = maximal.feedback.iter().filter_map(|feedback| feedback.extra.as_ref());
    let mut written: Vec<&str> =
        of_requests.chain(of_feedback).flat_map(|extra| extra.keys()).map(String::as_str).collect();
    written.sort_unstable();
    written.dedup();
    assert_eq!(written, EXTRA_KEYS);
    let guide = include_str!("../../docs/how-to/connect-vllm-semantic-router.md");
    for key in EXTRA_KEYS {
        assert!(guide.contains(&format!("`{}`", key.trim_start_matches("vllm_sr."))), "{key} is not in the how-to");
    }
}

#[test]
fn a_log_line_holds_the_same_call() {
    let mut line = complete();
    let fields = line.as_object_mut().unwrap();
    for left_out in [
        "id",
        "recipe",
        "learning",
        "outcomes",
        "route_diagnostics",
        "tool_trace",
        "tool_definitions",
        "prompt",
        "request_body",
        "response_body",
        "context_token_count",
    ] {
        fields.remove(left_out);
    }
    line["replay_id"] = complete()["id"].clone();
    line["event"] = json!("router_replay_complete");
    let whole = adapt(COMPLETE.as_bytes()).unwrap();
    let logged = adapt(line.to_string().as_bytes()).unwrap();
    let (whole, logged) = (only_request(&whole), only_request(&logged));
    assert_eq!((&logged.request_id, logged.arrival_ms), (&whole.request_id, whole.arrival_ms));
    assert_eq!((&logged.executed_model, logged.prompt_tokens), (&whole.executed_model, whole.prompt_tokens));
    assert!(logged.revision < whole.revision);
}

/// `replay_table.json` is what Debezium 3.4 sent for the complete record after it was inserted into the router's table.
#[test]
fn a_row_of_the_replay_table_is_the_record_less_what_has_no_column() {
    let table = adapt(include_bytes!("vllm_sr/replay_table.json")).unwrap();
    let missing = [
        ("confidence_score", json!(null)),
        ("selection_method", json!(null)),
        ("jailbreak_detected", json!(null)),
        ("jailbreak_type", json!(null)),
        ("jailbreak_confidence", json!(null)),
        // Not sent: they hold text.
        ("prompt", json!(null)),
        ("request_body", json!(null)),
        ("response_body", json!(null)),
        ("tool_definitions", json!(null)),
        ("tool_trace", json!(null)),
        ("hallucination_spans", json!(null)),
        ("hallucination_span_details", json!(null)),
        // What the record leaves out is zero in a column of numbers.
        ("rag_context_length", json!(0)),
        ("rag_similarity_score", json!(0.0)),
        // The row was still being written to.
        ("lifecycle_state", json!("in_progress")),
    ];
    let record = with(missing.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
    assert_eq!(only_request(&table).request_id, only_request(&record).request_id);
    assert_eq!(table.feedback.len(), record.feedback.len());
    let (table, record) = (json!(only_request(&table)), json!(only_request(&record)));
    assert_eq!(table, record);
}

#[test]
fn a_json_column_that_is_no_json_is_refused() {
    let mut record = complete();
    record["signals"] = json!("{ cut");
    let refused = adapt(record.to_string().as_bytes()).unwrap_err();
    assert_eq!(refused, AdaptError::WrongType { field: "signals", expected: "an object" });
    // Go writes a map that was never made as null, and the column holds the word.
    record["signals"] = json!("null");
    adapt(record.to_string().as_bytes()).unwrap();
}

#[test]
fn a_page_is_read_as_a_whole_and_names_its_odd_record() {
    let page = |records: Value| {
        adapt(json!({ "object": "router_replay.list", "count": 2, "data": records }).to_string().as_bytes())
    };
    assert_eq!(page(json!([complete(), complete()])).unwrap().requests.len(), 2);
    assert_eq!(page(json!([])), Err(AdaptError::EmptyPage));
    let odd = page(json!([complete(), { "id": "x" }])).unwrap_err().to_string();
    assert!(odd.starts_with("record 2 of 2 in the page: replay record without `timestamp`"), "{odd}");
}

#[test]
fn what_is_no_record_says_so_without_quoting_it() {
    let secret = "my card number is 4111";
    let cases = [
        (secret.to_owned(), "not JSON"),
        (json!(secret).to_string(), "not a replay record"),
        (json!({ "event": "cache_hit", "query": secret }).to_string(), "not a replay record"),
        (json!({ "id": "x" }).to_string(), "without `timestamp`"),
        (json!({ "id": "x", "timestamp": secret }).to_string(), "`timestamp` is not an RFC 3339 time"),
        (json!({ "id": "x", "timestamp": "2026-09-14T11:05:42Z", "prompt_tokens": secret }).to_string(), "a count"),
        (json!({ "id": "x", "timestamp": "2026-09-14T11:05:42Z", "prompt_tokens": -1 }).to_string(), "a count"),
    ];
    for (message, expected) in cases {
        let error = adapt(message.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("4111"), "{error}");
    }
    assert_eq!(adapt(b"[]"), Err(AdaptError::NotAReplayRecord));
}

/// Only the strings of the generator spell it.
const SECRET: &str = "SECRET";

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z :]{0,6}".prop_map(|text| Value::from(format!("{SECRET}{text}"))),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let names = "[a-z_]{1,8}".prop_map(|name| format!("{SECRET}{name}"));
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A complete record with one byte replaced: mostly still JSON, and mostly still a record.
fn scratched() -> impl Strategy<Value = Vec<u8>> {
    (any::<prop::sample::Index>(), prop::sample::select(b"{}[]\",:0-9eE.tfn \\".to_vec())).prop_map(|(at, byte)| {
        let mut bytes = COMPLETE.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..512),
        4 => scratched(),
    ]) {
        prop_assert!(adapt(&bytes).map_or(true, |adapted| !adapted.requests.is_empty()));
    }

    #[test]
    fn a_cut_record_is_an_error_and_not_a_panic(length in 0..COMPLETE.trim_end().len()) {
        prop_assert!(adapt(&COMPLETE.as_bytes()[..length]).is_err());
    }

    #[test]
    fn any_value_in_any_field_is_read_or_refused_by_name(which in any::<prop::sample::Index>(), value in any_json()) {
        let mut record = complete();
        let fields = record.as_object_mut().unwrap();
        let name = which.get(&fields.keys().cloned().collect::<Vec<_>>()).clone();
        fields.insert(name, value);
        match adapt(record.to_string().as_bytes()) {
            Ok(adapted) => prop_assert_eq!(adapted.requests[0].propensity, None),
            Err(error) => prop_assert!(!error.to_string().contains(SECRET), "{}", error),
        }
    }
}
