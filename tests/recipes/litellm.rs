//! `deploy/recipes/litellm`: LiteLLM's proxy with the callback.

use std::path::Path;
use std::process::Command;

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
        "context": { "domain": "opening hours", "turn": 0, "embedding": [0.5, 0.25] },
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
    let misplaced = json!({ "weir": { "context": QUESTION, "decision": { "model": QUESTION.repeat(9) } } });
    call(port, &json!({ "model": "answers", "stream": true, "metadata": misplaced }), "session-2");
    // The provider refuses this one, and the proxy falls back.
    call(port, &json!({ "model": "crowded" }), "session-3");
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
    let [first, streamed, refused, _] = messages.as_slice() else { panic!("four messages") };
    assert_eq!(first.value["end_user"], "caller-1");
    assert_eq!(first.value["metadata"]["usage_object"]["prompt_tokens_details"]["cached_tokens"], 1024);
    assert_eq!(first.value["response"]["choices"][0]["finish_reason"], "stop");
    assert_eq!(refused.value["error_information"]["error_class"], "RateLimitError");
    // Of what the caller says: the draw, and what it was drawn from but for the embedding.
    let mut sent = drawn;
    sent["context"].as_object_mut().expect("an object").remove("embedding");
    sent["decision"].as_object_mut().expect("an object").remove("sticky");
    assert_eq!(first.value["metadata"]["requester_metadata"], json!({ "weir": sent }));
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
