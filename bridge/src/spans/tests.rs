//! Spans and log records as the adapters read them.

use prost::Message as _;

use super::*;
use crate::proto::otlp::{AnyValue, KeyValue};

const ROOM: Room = Room::of(usize::MAX);

/// The example of a trace request in OTLP's own documentation has this shape; ids are the example's.
const TRACE: &str = r#"{"resourceSpans":[{
  "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"router"}}]},
  "scopeSpans":[{"scope":{"name":"my.library","version":"1.0.0"},"spans":[{
    "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","parentSpanId":"EEE19B7EC3C1B173",
    "name":"chat m","kind":3,
    "startTimeUnixNano":"1700000000000500000","endTimeUnixNano":1700000001250000000,
    "attributes":[
      {"key":"gen_ai.request.model","value":{"stringValue":"m"}},
      {"key":"gen_ai.usage.input_tokens","value":{"intValue":"12"}},
      {"key":"gen_ai.response.finish_reasons","value":{"arrayValue":{"values":[{"stringValue":"stop"}]}}},
      {"key":"gen_ai.request.temperature","value":{"doubleValue":0.5}},
      {"key":"gen_ai.input.messages","value":{"stringValue":"hunter2"}},
      {"key":"gen_ai.prompt.0.content","value":{"stringValue":"hunter2"}}],
    "events":[
      {"timeUnixNano":"1700000000300000000","name":"first_token","attributes":[]},
      {"timeUnixNano":"1700000000400000000","name":"gen_ai.content.prompt",
       "attributes":[{"key":"gen_ai.prompt","value":{"stringValue":"hunter2"}},
                     {"key":"content","value":{"stringValue":"hunter2"}},
                     {"key":"gen_ai.system","value":{"stringValue":"openai"}}]}],
    "status":{"code":2,"message":"hunter2 is too long"},
    "aFieldOfTomorrow":[1]}]}]}]}"#;

fn payload(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

#[test]
fn a_span_becomes_one_flat_message_without_text() {
    let request: TracesRequest = serde_json::from_str(TRACE).unwrap();
    let Flattened { messages, dropped } = spans(&request, &Text::dropped(&[]), ROOM).unwrap();
    let expected = json!({
        "trace_id": "5b8efff798038103d269b633813fc60c", "span_id": "eee19b7ec3c1b174",
        "parent_span_id": "eee19b7ec3c1b173", "name": "chat m", "kind": "client",
        "start_time_ms": 1_700_000_000_000.5, "end_time_ms": 1_700_000_001_250.0, "status_code": "error",
        "scope": "my.library", "service_name": "router",
        "attributes": {
            "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": "12",
            "gen_ai.response.finish_reasons": "[\"stop\"]", "gen_ai.request.temperature": "0.5"
        },
        "resource": {"service.name": "router"},
        "events": [
            {"name": "first_token", "time_ms": 1_700_000_000_300.0, "attributes": {}},
            {"name": "gen_ai.content.prompt", "time_ms": 1_700_000_000_400.0, "attributes": {"gen_ai.system": "openai"}},
        ],
    });
    assert_eq!(payload(&messages[0]), expected);
    assert_eq!(messages[0].key, "5b8efff798038103d269b633813fc60c");
    assert_eq!(dropped, 5);
    assert!(!String::from_utf8_lossy(&messages[0].payload).contains("hunter2"));

    let kept = spans(&request, &Text::kept(), ROOM).unwrap();
    assert_eq!(kept.dropped, 0);
    assert_eq!(payload(&kept.messages[0])["status_message"], "hunter2 is too long");
    assert_eq!(payload(&kept.messages[0])["attributes"]["gen_ai.input.messages"], "hunter2");
}

#[test]
fn text_in_an_event_of_genai_is_dropped_at_any_depth() {
    let of_event = |name: &str| {
        let json = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"events": [{"name": name, "attributes": [
            {"key": "choice", "value": {"arrayValue": {"values": [{"kvlistValue": {"values": [
                {"key": "content", "value": {"stringValue": "hunter2"}},
                {"key": "finish_reason", "value": {"stringValue": "stop"}},
            ]}}]}}},
        ]}]}]}]}]});
        let request: TracesRequest = serde_json::from_value(json).unwrap();
        let Flattened { messages, dropped } = spans(&request, &Text::dropped(&[]), ROOM).unwrap();
        (payload(&messages[0])["events"][0]["attributes"]["choice"].clone(), dropped)
    };
    assert_eq!(of_event("gen_ai.choice"), (json!(r#"[{"finish_reason":"stop"}]"#), 1));
    assert_eq!(of_event("page"), (json!(r#"[{"content":"hunter2","finish_reason":"stop"}]"#), 0));
}

#[test]
fn a_large_resource_of_many_spans_is_refused_before_it_fills_the_memory() {
    let mut request: TracesRequest = serde_json::from_str(TRACE).unwrap();
    let of_resource = &mut request.resource_spans[0];
    of_resource.resource =
        Some(Resource { attributes: vec![KeyValue { key: "k".into(), value: text(&"r".repeat(1 << 20)) }] });
    of_resource.scope_spans[0].spans = vec![Span::default(); 1_000];
    assert_eq!(spans(&request, &Text::kept(), Room::of(16 << 20)).err(), Some(NoMessages::TooMuch));
    request.resource_spans[0].scope_spans[0].spans.truncate(15);
    assert_eq!(spans(&request, &Text::kept(), Room::of(16 << 20)).unwrap().messages.len(), 15);
}

#[test]
fn both_encodings_say_the_same() {
    let request: TracesRequest = serde_json::from_str(TRACE).unwrap();
    let again = TracesRequest::decode(&request.encode_to_vec()[..]).unwrap();
    assert_eq!(
        spans(&again, &Text::kept(), ROOM).unwrap().messages,
        spans(&request, &Text::kept(), ROOM).unwrap().messages
    );
}

fn text(value: &str) -> Option<AnyValue> {
    Some(AnyValue { string_value: Some(value.into()), ..AnyValue::default() })
}

fn request(records: Vec<LogRecord>) -> LogsRequest {
    use crate::proto::otlp::{ResourceLogs, ScopeLogs};
    let attributes = vec![KeyValue { key: "service.name".into(), value: text("engine") }];
    LogsRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource { attributes }),
            scope_logs: vec![ScopeLogs { scope: None, log_records: records }],
        }],
    }
}

#[test]
fn a_log_record_keeps_its_body_unless_it_is_an_event_of_genai() {
    let record = LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000,
        observed_time_unix_nano: 1_700_000_000_001_000_000,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: text("engine started"),
        trace_id: vec![0; 16],
        ..LogRecord::default()
    };
    let event = LogRecord {
        event_name: "gen_ai.user.message".into(),
        body: text("hunter2"),
        attributes: vec![
            KeyValue { key: "content".into(), value: text("hunter2") },
            KeyValue { key: "gen_ai.system".into(), value: text("vllm") },
        ],
        trace_id: vec![7; 16],
        span_id: vec![9; 8],
        ..LogRecord::default()
    };
    let mut older = LogRecord { event_name: String::new(), severity_text: "Notice".into(), ..event.clone() };
    older.attributes.push(KeyValue { key: "event.name".into(), value: text("gen_ai.choice") });
    let request = request(vec![record, event, older]);
    let Flattened { messages, dropped } = logs(&request, &Text::dropped(&[]), ROOM).unwrap();
    let expected = json!({
        "time_ms": 1_700_000_000_000.0, "observed_time_ms": 1_700_000_000_001.0, "severity": "info",
        "event_name": null, "trace_id": null, "span_id": null, "body": "engine started", "scope": null,
        "service_name": "engine", "attributes": {}, "resource": {"service.name": "engine"},
    });
    assert_eq!(payload(&messages[0]), expected);
    assert_eq!(messages[0].key, "engine", "a record without a trace keeps its order by its service");
    assert_eq!(messages[1].key, "07".repeat(16));
    assert_eq!(payload(&messages[1])["body"], Value::Null);
    assert_eq!(payload(&messages[1])["attributes"], json!({"gen_ai.system": "vllm"}));
    assert_eq!(payload(&messages[2])["event_name"], "gen_ai.choice");
    assert_eq!(payload(&messages[2])["severity"], "Notice");
    assert_eq!(dropped, 4);
    for message in &messages {
        assert!(!String::from_utf8_lossy(&message.payload).contains("hunter2"));
    }
    assert_eq!(payload(&logs(&request, &Text::kept(), ROOM).unwrap().messages[1])["body"], "hunter2");
}
