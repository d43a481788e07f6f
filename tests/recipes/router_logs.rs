//! `deploy/recipes/router-logs`: the router's log file, through the OpenTelemetry Collector.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use weir_tests::Kafka;

use crate::parts::{self, Running};
use crate::topics;

const TOPIC: &str = "vllm_sr_logs";

/// The lines of one call, as zap writes them, among others that must stay where they are.
fn lines_of(call: usize) -> String {
    let record: Value = serde_json::from_str(include_str!("../../schemas/tests/vllm_sr/complete.json")).expect("JSON");
    let mut lines = String::from("a line of a panic\n");
    let mut line = |event: &str, fields: Value| {
        let mut object = json!({ "level": "info", "ts": "2026-09-14T11:05:44.750", "caller": "logging.go:1" });
        for (name, value) in fields.as_object().expect("fields") {
            object[name] = value.clone();
        }
        object["msg"] = json!(event);
        object["event"] = json!(event);
        object["request_id"] = json!(format!("call-{call}"));
        writeln!(lines, "{object}").expect("a string can be written to");
    };
    line("config_reloaded", json!({ "prompt": "not of interest" }));
    line("routing_decision", json!({ "selected_model": "amber-70b", "routing_latency_ms": 14 }));
    line("llm_usage", json!({ "model": "amber-70b", "prompt_tokens": 4130, "completion_tokens": 96 }));
    // What the log leaves out of a record.
    let mut logged = record;
    let fields = logged.as_object_mut().expect("an object");
    fields.retain(|name, _| {
        ![
            "id",
            "learning",
            "outcomes",
            "route_diagnostics",
            "tool_trace",
            "tool_definitions",
            "prompt",
            "request_body",
            "response_body",
        ]
        .contains(&name.as_str())
    });
    fields.insert("replay_id".to_owned(), json!(format!("replay-{call}")));
    fields.insert("seed".to_owned(), json!(1_789_384_512_250_000_123_i64));
    line("router_replay_complete", logged);
    lines
}

#[test]
fn the_routers_log_lines_arrive_once_and_a_restart_repeats_none() {
    let Some(collector) = parts::tool("otelcol") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    topics::create(&kafka.brokers, TOPIC);
    let log = folder.path().join("router.log");
    std::fs::create_dir(folder.path().join("state")).expect("a folder");
    std::fs::write(&log, lines_of(0) + &lines_of(1)).expect("a log");

    let mut running = start(&collector, &kafka.brokers, folder.path());
    let messages = topics::read(&kafka.brokers, TOPIC, 6);
    running.stop();
    let events: Vec<&str> = messages.iter().filter_map(|message| message.value["event"].as_str()).collect();
    assert_eq!(events, ["routing_decision", "llm_usage", "router_replay_complete"].repeat(2));
    // More digits than a float has.
    assert_eq!(messages[2].value["seed"].as_i64(), Some(1_789_384_512_250_000_123));

    // While the collector is away the router logs on.
    std::fs::write(&log, lines_of(0) + &lines_of(1) + &lines_of(2)).expect("a log");
    let mut running = start(&collector, &kafka.brokers, folder.path());
    let messages = topics::read(&kafka.brokers, TOPIC, 9);
    running.stop();
    assert_eq!(messages.len(), 9, "{messages:?}");
    assert_eq!(messages[8].value["request_id"], "call-2");
}

fn start(collector: &Path, brokers: &str, folder: &Path) -> Running {
    let mut command = Command::new(collector.join("otelcol"));
    command.arg("--config").arg(parts::recipe("router-logs").join("collector.yaml"));
    command.env("ROUTER_LOG", folder.join("router.log")).env("COLLECTOR_STATE", folder.join("state"));
    command.env("KAFKA_BROKERS", brokers);
    Running::start("otelcol", command, folder)
}
