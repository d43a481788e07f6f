//! The demo, whole but short: the loop closes, every event is in its table once, and a policy that cannot be better is not
//! promoted.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use serde_json::Value;

/// One demo at a time: each wants the machine for itself.
static MACHINE: Mutex<()> = Mutex::new(());

fn demo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.current_dir(folder).arg("demo").args(arguments).env("WEIR_LOG", "warn").stdin(Stdio::null());
    command
}

fn summary(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert_eq!(stdout.lines().count(), 1, "one JSON object, not: {stdout}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

fn every_event_is_in_its_table_once(summary: &Value) {
    let produced = summary["produced"].as_u64().expect("a count");
    assert!(produced > 1_000, "{summary}");
    assert_eq!(summary["stored"], summary["produced"], "{summary}");
    for none in ["lost", "doubled", "dead_letters"] {
        assert_eq!(summary[none], 0, "{none}: {summary}");
    }
    let topics = summary["topics"].as_object().expect("figures by topic");
    for topic in ["requests", "feedback", "gpu_telemetry"] {
        assert!(topics[topic]["stored"].as_u64() > Some(0), "{topic}: {summary}");
    }
    let sum: u64 = topics.values().filter_map(|topic| topic["produced"].as_u64()).sum();
    assert_eq!(sum, produced, "{summary}");
}

#[test]
fn the_loop_closes_and_says_who_promoted_what() {
    let _alone = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let summary = summary(&demo(folder.path(), &["--seconds", "30", "--json"]).output().unwrap());
    every_event_is_in_its_table_once(&summary);
    // So short a log may be too little to judge by; what is promoted must be what was shown to be better.
    let verdict = summary["verdict"].as_str().expect("a verdict");
    assert!(["better", "worse", "not shown", "insufficient support", "not judged"].contains(&verdict), "{summary}");
    assert_eq!(summary["approved_by"].is_string(), verdict == "better", "{summary}");
    assert!(summary["policy_id"].is_null() || summary["policy_id"] == summary["candidate_id"], "{summary}");
    assert!(summary["policy_id"].is_null() || summary["approved_by"].is_string(), "{summary}");
    let value = |name: &str| summary[name].as_f64().unwrap_or_else(|| panic!("{name}: {summary}"));
    assert!(value("value_logging") < value("value_oracle"), "{summary}");
    assert!(summary["gpus_before"].as_u64() > Some(0), "{summary}");
}

#[test]
fn where_no_policy_can_gain_none_is_promoted() {
    let _alone = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let keep = kept.display().to_string();
    let arguments = ["--seconds", "25", "--world", "no-gain", "--keep", &keep, "--json"];
    let summary = summary(&demo(folder.path(), &arguments).output().unwrap());
    every_event_is_in_its_table_once(&summary);
    assert_ne!(summary["verdict"], "better", "{summary}");
    for none in ["policy_id", "approved_by", "gpus_after"] {
        assert!(summary[none].is_null(), "{none}: {summary}");
    }

    // The tables say the same to whoever asks them.
    let data = kept.join("data").display().to_string();
    let counted = Command::new(env!("CARGO_BIN_EXE_weir"))
        .current_dir(folder.path())
        .args(["--data", &data, "sql", "--format", "json", "select count(*) as n from raw_requests"])
        .output()
        .unwrap();
    let rows: Value = serde_json::from_slice(&counted.stdout).unwrap();
    assert_eq!(rows[0]["n"], summary["topics"]["requests"]["stored"], "{summary}");
}

#[test]
fn a_signal_ends_the_demo_with_everything_stored_and_exit_code_130() {
    let _alone = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let mut demo = demo(folder.path(), &["--seconds", "600", "--keep", "kept"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines().map_while(Result::ok);
    // The first look at the workload comes some seconds into the traffic.
    assert!(lines.any(|line| line.starts_with("  workload: ")), "no traffic ran");
    let sent = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let last = lines.filter(|line| line.starts_with("weir: ")).last().unwrap_or_default();
    assert_eq!(demo.wait().unwrap().code(), Some(130), "{last}");
    assert!(last.contains("stopped by a signal") && last.contains("the tables stay in kept"), "{last}");
    let counts: Vec<u64> = last.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(counts.len() == 2 && counts[0] > 0 && counts[0] == counts[1], "produced is not stored: {last}");
}

#[test]
fn options_that_the_demo_would_ignore_and_a_port_in_use_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let said = |arguments: &[&str]| {
        let output = demo(folder.path(), arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        stderr
    };
    assert!(said(&["--data", "elsewhere"]).contains("--keep"));
    assert!(said(&["--config", "weir.toml"]).contains("--config"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let sentence = said(&["--listen", &address]);
    assert!(sentence.contains(&address) && sentence.contains("--listen"), "{sentence}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was written");
}
