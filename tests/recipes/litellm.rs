//! `deploy/recipes/litellm`: LiteLLM's proxy with the callback.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use weir_tests::Kafka;

use crate::parts::{self, Running};
use crate::topics;

const KEY: &str = "sk-invented";
const QUESTION: &str = "When does the bridge open?";

#[test]
fn calls_through_litellms_proxy_are_messages_without_their_text() {
    let Some(litellm) = parts::tool("litellm") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    topics::create(&kafka.brokers, "litellm");
    let (provider_port, port) = (parts::free_port(), parts::free_port());
    let mut server = python(&litellm);
    server.arg(parts::here("openai_server.py")).arg(provider_port.to_string());
    let mut provider = Running::start("provider", server, folder.path());
    provider.wait_for_port(provider_port);
    let mut proxy = Running::start("litellm", proxy(&litellm, &kafka.brokers, provider_port, port), folder.path());
    proxy.wait_for_port(port);

    let drawn = json!({
        "context": { "domain": "opening-hours", "turn": 0, "embedding": [0.5, 0.25] },
        "decision": {
            "model": "answers",
            "propensity": 0.75,
            "policy_id": "sha256:0",
            "sticky": false,
            "candidates": [{ "model": "answers", "propensity": 0.75 }, { "model": "crowded", "propensity": 0.25 }],
        },
    });
    let metadata = json!({ "note": "a caller's own", "weir": drawn });
    call(port, &json!({ "model": "answers", "user": "caller-1", "metadata": metadata }), "session-1");
    // Prompts end up in wrong fields.
    let misplaced = json!({ "weir": { "context": { "domain": QUESTION }, "decision": { "model": QUESTION } } });
    call(port, &json!({ "model": "answers", "stream": true, "metadata": misplaced }), "session-2");
    // The provider refuses this one, and the proxy falls back.
    let crowded = json!({ "decision": { "model": "crowded", "propensity": 0.25 } });
    call(port, &json!({ "model": "crowded", "metadata": { "weir": crowded } }), "session-3");
    // What waits in the callback is sent before the process ends.
    proxy.stop();

    let mut messages = topics::read(&kafka.brokers, "litellm", 4);
    assert_eq!(messages.len(), 4, "{messages:?}\n{}", proxy.said());
    messages.sort_by_key(|message| message.value["startTime"].as_f64().map(|seconds| (seconds * 1e6) as i64));
    let seen: Vec<(&str, &str, &str, i64)> = messages
        .iter()
        .map(|message| {
            let text = |name: &str| message.value[name].as_str().unwrap_or_default();
            (
                message.key.as_str(),
                text("model_group"),
                text("status"),
                message.value["prompt_tokens"].as_i64().unwrap_or(-1),
            )
        })
        .collect();
    // 1210 is what the provider said; a stream without usage is LiteLLM's own count of a short question.
    assert_eq!(seen[0], ("session-1", "answers", "success", 1210));
    assert_eq!((seen[1].0, seen[1].1, seen[1].2), ("session-2", "answers", "success"));
    assert!((1..100).contains(&seen[1].3), "{seen:?}");
    assert_eq!(seen[2], ("session-3", "crowded", "failure", 0));
    assert_eq!(seen[3], ("session-3", "answers", "success", 1210));
    let [first, streamed, refused, fallback] = messages.as_slice() else { panic!("four messages") };
    assert_eq!(first.value["end_user"], "caller-1");
    assert_eq!(first.value["metadata"]["usage_object"]["prompt_tokens_details"]["cached_tokens"], 1024);
    assert_eq!(first.value["response"]["choices"][0]["finish_reason"], "stop");
    assert_eq!(refused.value["error_information"]["error_class"], "RateLimitError");
    // Of what the caller says: the draw, and what it was drawn from but for the embedding.
    let mut sent = drawn;
    sent["context"].as_object_mut().expect("an object").remove("embedding");
    sent["decision"].as_object_mut().expect("an object").remove("sticky");
    assert_eq!(first.value["metadata"]["requester_metadata"], json!({ "weir": sent }));
    assert_eq!(streamed.value["metadata"].get("requester_metadata"), None);
    // Both attempts of a call bring its draw, and one says so.
    let decision_of = |value: &Value| value.pointer("/metadata/requester_metadata/weir/decision/propensity").cloned();
    assert_eq!((decision_of(&refused.value), decision_of(&fallback.value)), (None, Some(json!(0.25))));
    assert_eq!(refused.value["litellm_call_id"], fallback.value["litellm_call_id"], "attempts of one call");
    let seconds = |name: &str| streamed.value[name].as_f64().expect("a time");
    // The provider waits 80 ms for the first token, and 20 ms for each of the others.
    assert!(seconds("completionStartTime") - seconds("startTime") >= 0.08, "{streamed:?}");
    // However late a busy proxy notices the first one.
    assert!(seconds("endTime") - seconds("startTime") >= 0.18, "{streamed:?}");
    for message in &messages {
        let sent = message.value.to_string();
        for text in [QUESTION, "noon", KEY, "Rate limit reached"] {
            assert!(!sent.contains(text), "{text:?} left the proxy: {sent}");
        }
    }
}

#[test]
fn a_kafka_that_is_away_costs_payloads_and_no_call() {
    let Some(litellm) = parts::tool("litellm") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = folder.path().join("kafka.json");
    std::fs::write(&settings, json!({ "queue.buffering.max.messages": 1 }).to_string()).expect("a file");
    let output = python(&litellm)
        .arg(parts::here("litellm_traffic.py"))
        .arg("kafka")
        .env("WEIR_KAFKA_BROKERS", format!("127.0.0.1:{}", parts::free_port()))
        .env("WEIR_KAFKA_CONFIG", settings)
        .env("WEIR_QUEUE_PAYLOADS", "4")
        .output()
        .expect("python runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(stdout.lines().last().unwrap_or_default()).expect("the last line is JSON");
    // Every call was answered, but for the one whose provider fails.
    let failed = report["calls"].as_array().expect("calls").iter().filter(|call| call.to_string().contains("Error"));
    assert_eq!(failed.count(), 1, "{report}");
    let count = |name: &str| report[name].as_i64().expect("a number");
    assert_eq!((count("received"), count("sent")), (13, 0), "{report}");
    // One is with the client, one in the thread's hands, four wait.
    assert_eq!(count("dropped"), 13 - 1 - 1 - 4, "{report}");
    assert_eq!(count("received"), count("sent") + count("failed") + count("dropped") + count("left"), "{report}");
}

/// What the callback would send of payloads, each with settings of its own.
fn encoded(litellm: &Path, cases: &[(Value, Value)]) -> Vec<Value> {
    let cases: Vec<Value> =
        cases.iter().map(|(settings, payload)| json!({ "settings": settings, "payload": payload })).collect();
    let mut command = python(litellm);
    command.arg(parts::here("litellm_draws.py")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().expect("python runs");
    // JSON has no NaN, and Python's has.
    let asked = Value::Array(cases).to_string().replace("\"NAN\"", "NaN");
    running.stdin.take().expect("it is piped").write_all(asked.as_bytes()).expect("python reads");
    let output = running.wait_with_output().expect("python ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it writes JSON")
}

fn payload(status: &str, callers: &Value) -> Value {
    json!({
        "id": "call-1", "status": status, "metadata": { "requester_metadata": callers },
        "messages": [{ "role": "user", "content": QUESTION }],
    })
}

#[test]
fn of_draws_that_callers_claim_only_sound_ones_are_sent_and_only_where_they_are_believed() {
    let Some(litellm) = parts::tool("litellm") else { return };
    let sound = json!({ "model": "org/small:v1.2-b@eu", "propensity": 0.25, "policy_id": "sha256:0", "candidates": [
        { "model": "large", "propensity": 0.75 }, { "model": "org/small:v1.2-b@eu", "propensity": 0.25 },
    ]});
    let with = |name: &str, value: Value| {
        let mut decision = sound.clone();
        decision[name] = value;
        decision
    };
    let many: Vec<Value> = (0..=1024).map(|n| json!({ "model": format!("m{n}"), "propensity": 0.0 })).collect();
    let bad = [
        json!("small"),
        json!({ "propensity": 0.25 }),
        with("model", json!(QUESTION)),
        with("policy_id", json!("of Tuesday")),
        with("propensity", json!(0)),
        with("propensity", json!(1.5)),
        with("propensity", json!(-0.25)),
        with("propensity", json!("0.25")),
        with("propensity", json!(true)),
        with("propensity", json!("NAN")),
        with("propensity", json!(0.3)),
        with("candidates", json!("large")),
        with("candidates", json!(["large"])),
        with("candidates", json!([{ "model": QUESTION, "propensity": 0.5 }])),
        with("candidates", json!([{ "model": "large", "propensity": "0.5" }])),
        with("candidates", json!([{ "model": "large", "propensity": -0.5 }])),
        with("candidates", json!([{ "model": "large", "propensity": 0.6 }, { "model": "other", "propensity": 0.5 }])),
        with("candidates", json!([{ "model": "large", "propensity": 0.5 }, { "model": "large", "propensity": 0.5 }])),
        with("candidates", Value::Array(many)),
    ];
    let context = json!({
        "domain": QUESTION, "complexity": "hard", "language": 7, "turn": "first", "fact_check": 3, "embedding": [0.5],
    });
    let of_caller = |decision: &Value| json!({ "weir": { "context": context, "decision": decision } });
    let kept_context = json!({ "complexity": "hard" });
    for text in ["0", "1"] {
        let believed = json!({ "WEIR_DRAWS": "1", "WEIR_KEEP_TEXT": text });
        let mut cases = vec![
            (believed.clone(), payload("success", &of_caller(&sound))),
            (believed.clone(), payload("failure", &of_caller(&sound))),
            (json!({ "WEIR_KEEP_TEXT": text }), payload("success", &of_caller(&sound))),
            (believed.clone(), payload("success", &json!("a caller's word"))),
            (believed.clone(), payload("success", &json!({ "weir": ["a", "list"] }))),
        ];
        cases.extend(bad.iter().map(|decision| (believed.clone(), payload("success", &of_caller(decision)))));
        let sent = encoded(&litellm, &cases);
        let weir: Vec<Option<&Value>> =
            sent.iter().map(|one| one.pointer("/metadata/requester_metadata/weir")).collect();
        assert_eq!(weir[0], Some(&json!({ "context": kept_context, "decision": sound })));
        assert_eq!(weir[1], Some(&json!({ "context": kept_context })), "an attempt that failed");
        assert_eq!(weir[2..5], [None, None, None], "nobody said that callers are believed, or they said nothing");
        for (decision, found) in bad.iter().zip(&weir[5..]) {
            assert_eq!(*found, Some(&json!({ "context": kept_context })), "{decision}");
        }
        assert_eq!(sent[0]["messages"][0].get("content").is_some(), text == "1", "{}", sent[0]);
    }
    let edges = [json!(0), json!(2_147_483_647_i64), json!(2_147_483_648_i64), json!(-1), json!(1.0), json!(true)];
    let of_turn = |turn: &Value| {
        let callers =
            json!({ "weir": { "context": { "turn": turn, "fact_check": false, "domain": "d".repeat(128) } } });
        (json!({ "WEIR_DRAWS": "1" }), payload("success", &callers))
    };
    let sent = encoded(&litellm, &edges.iter().map(of_turn).collect::<Vec<_>>());
    let turns: Vec<&Value> =
        sent.iter().map(|one| &one["metadata"]["requester_metadata"]["weir"]["context"]["turn"]).collect();
    assert_eq!(turns, [&edges[0], &edges[1], &Value::Null, &Value::Null, &Value::Null, &Value::Null]);
    let long = json!({ "weir": { "context": { "domain": "d".repeat(129) } } });
    let sent = encoded(&litellm, &[(json!({ "WEIR_DRAWS": "1" }), payload("success", &long))]);
    assert_eq!(sent[0]["metadata"].get("requester_metadata"), None);
}

fn python(litellm: &Path) -> Command {
    let mut command = Command::new(litellm.join("bin/python"));
    command.env("PYTHONPATH", parts::recipe("litellm")).env("PYTHONDONTWRITEBYTECODE", "1");
    // Prices come with the package; nothing is looked up outside.
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    command
}

fn proxy(litellm: &Path, brokers: &str, provider: u16, port: u16) -> Command {
    let mut command = python(litellm);
    command
        .args(["-c", "from litellm import run_server; run_server()", "--config"])
        .arg(parts::recipe("litellm").join("config.yaml"))
        .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--telemetry", "False"])
        .env("WEIR_KAFKA_BROKERS", brokers)
        .env("WEIR_DRAWS", "1")
        .env("PROVIDER_URL", format!("http://127.0.0.1:{provider}/v1"))
        .env("PROVIDER_KEY", "none")
        .env("LITELLM_MASTER_KEY", KEY);
    command
}

fn call(port: u16, with: &Value, session: &str) {
    let mut body = with.clone();
    body["messages"] = json!([{ "role": "user", "content": QUESTION }]);
    let authorization = format!("Bearer {KEY}");
    let headers = [("authorization", authorization.as_str()), ("x-litellm-session-id", session)];
    let (status, answer) = parts::post(port, "/v1/chat/completions", &headers, &body.to_string());
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("noon"), "{answer}");
}
