//! vLLM Semantic Router's replay record: the golden record and one claim per trap.

use proptest::prelude::*;
use serde_json::{Value, json};
use weir_schemas::adapters::vllm_sr::{AdaptError, Adapted, adapt};
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
fn not_detected_is_clean_only_where_the_check_could_run() {
    let verdict = |changes| row(&with(changes), ":hallucination:").map(|row| (row.checked, row.value));
    assert_eq!(verdict(json!({})), Some((Some(true), Some(1.0))));
    assert_eq!(verdict(json!({ "streaming": true })), Some((Some(false), None)));
    assert_eq!(verdict(json!({ "signals": { "fact_check": ["no_fact_check_needed"] } })), Some((Some(false), None)));
    assert_eq!(verdict(json!({ "signals": {} })), Some((Some(false), None)));
    assert_eq!(verdict(json!({ "tool_trace": null })), Some((Some(false), None)));
    assert_eq!(verdict(json!({ "tool_trace": null, "rag_enabled": true })), Some((Some(true), Some(1.0))));
    assert_eq!(verdict(json!({ "from_cache": true })), Some((Some(false), None)));
    assert_eq!(verdict(json!({ "hallucination_enabled": false })), None);
    assert_eq!(
        verdict(json!({ "streaming": true, "hallucination_detected": true, "hallucination_confidence": 0.9 })),
        Some((Some(true), Some(0.0)))
    );
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
    assert_eq!(follow_up.extra.as_ref().unwrap()["vllm_sr.about_turn"], "3");
    assert_eq!((follow_up.value, follow_up.confidence), (Some(0.0), Some(0.93)));

    let adapted = with(json!({ "session_id": null }));
    assert!(row(&adapted, ":user_feedback:").is_none(), "without a session it is about nothing");
}

#[test]
fn a_session_made_from_the_request_id_is_no_session() {
    let adapted = with(json!({ "session_id": "req-81c4" }));
    assert_eq!((&only_request(&adapted).session_id, only_request(&adapted).turn), (&None, None));
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
fn failures_carry_a_class() {
    let class = |changes| only_request(&with(changes)).error_class.clone();
    assert_eq!(class(json!({})), None);
    assert_eq!(class(json!({ "response_status": 429 })).as_deref(), Some("http_429"));
    assert_eq!(class(json!({ "lifecycle_state": "aborted" })).as_deref(), Some("aborted"));
    let named = json!({ "lifecycle_state": "failed", "terminal_reason": "upstream_timeout" });
    assert_eq!(class(named).as_deref(), Some("upstream_timeout"));
    let sentence = json!({ "lifecycle_state": "failed", "terminal_reason": "could not read: where is my refund" });
    assert_eq!(class(sentence).as_deref(), Some("failed"));
}

#[test]
fn log_lines_and_pages_hold_the_same_records() {
    let mut line = complete();
    line["replay_id"] = line.as_object_mut().unwrap().remove("id").unwrap();
    line["event"] = json!("router_replay_complete");
    line["signals"]["keyword"] = Value::Null;
    assert_eq!(only_request(&adapt(line.to_string().as_bytes()).unwrap()).request_id, complete()["id"]);

    let page = json!({ "object": "router_replay.list", "count": 2, "data": [complete(), complete()] });
    assert_eq!(adapt(page.to_string().as_bytes()).unwrap().requests.len(), 2);
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

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z SECRET:]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
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
            Err(error) => prop_assert!(!error.to_string().contains("SECRET"), "{}", error),
        }
    }
}
