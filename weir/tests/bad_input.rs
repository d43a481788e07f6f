//! Bad input gets one clear sentence that says how to mend it, a non-zero exit, and leaves nothing half-written.

use std::path::Path;
use std::process::{Command, Output};

fn weir(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .current_dir(folder)
        .args(arguments)
        .env("WEIR_LOG", "off")
        .output()
        .expect("the binary starts")
}

/// The sentence on standard error, after checking that it is the only one and that the exit code says failure.
fn sentence(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_ne!(output.status.code(), Some(0), "exit code 0 although: {stderr}");
    assert!(output.status.code().is_some(), "ended by a signal: {stderr}");
    let said: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(said.len(), 1, "one sentence, not: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    said[0].trim_start_matches("weir: ").to_owned()
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// A port on which nobody listens: bound once to learn its number, then released.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

#[test]
fn an_unreachable_broker_is_named_and_no_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let brokers = format!("127.0.0.1:{}", closed_port());
    let said = sentence(&weir(folder.path(), &["run", "--brokers", &brokers, "--no-http"]));
    assert!(said.contains(&brokers) && said.contains("check"), "{said}");
    assert_eq!(entries(folder.path()), Vec::<String>::new(), "something was written");
}

#[test]
fn producing_to_an_unreachable_broker_says_so_too() {
    let folder = tempfile::tempdir().unwrap();
    let brokers = format!("127.0.0.1:{}", closed_port());
    let said = sentence(&weir(folder.path(), &["simulate", "--seconds", "1", "--brokers", &brokers]));
    assert!(said.contains(&brokers), "{said}");
}

#[test]
fn an_unknown_trace_format_lists_the_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("trace.csv"), "a,b\n1,2\n").unwrap();
    for arguments in [
        &["replay", "trace.csv", "--out", "events.jsonl"][..],
        &["replay", "trace.csv", "--format", "burstgpt", "--out", "events.jsonl"][..],
    ] {
        let said = sentence(&weir(folder.path(), arguments));
        assert!(said.contains("azure-llm") && said.contains("mooncake") && said.contains("servegen"), "{said}");
        assert!(!folder.path().join("events.jsonl").exists(), "an output file was left behind");
    }
}

#[test]
fn a_missing_trace_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let said = sentence(&weir(folder.path(), &["replay", "nowhere", "--out", "-"]));
    assert!(said.contains("nowhere"), "{said}");
}

#[test]
fn an_unwritable_data_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    // A file where the folder should be cannot be written below, whoever asks (root may write anywhere else).
    std::fs::write(folder.path().join("occupied"), "not a folder").unwrap();
    let said = sentence(&weir(folder.path(), &["--data", "occupied/data", "check"]));
    assert!(said.contains("check") || said.contains("occupied"), "{said}");
    let listed = weir(folder.path(), &["--data", "occupied/data", "check"]);
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.contains("FAILED store") && listed.contains("occupied"), "{listed}");
}

#[test]
fn a_data_folder_that_is_not_there_is_not_taken_for_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&["sql", "select 1"][..], &["policy", "list"][..], &["serve"][..]] {
        let said = sentence(&weir(folder.path(), command));
        assert!(said.contains("weir-data") && said.contains("--data"), "{said}");
    }
    assert_eq!(entries(folder.path()), Vec::<String>::new(), "something was written");
}

#[test]
fn a_misspelt_configuration_key_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("weir.toml"), "[ingest]\nflush_row = 10\n").unwrap();
    let said = sentence(&weir(folder.path(), &["run"]));
    assert!(said.contains("flush_row") && said.contains("weir.toml"), "{said}");
}

#[test]
fn a_query_that_would_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    for query in [
        "drop table raw_requests",
        "copy (select 1) to 'out.csv'",
        "insert into raw_requests select * from raw_requests",
    ] {
        let said = sentence(&weir(folder.path(), &["--data", "data", "sql", query]));
        assert!(said.contains("read"), "{query}: {said}");
    }
    assert!(!folder.path().join("out.csv").exists());
}

#[test]
fn with_json_the_sentence_is_on_standard_output_too() {
    let folder = tempfile::tempdir().unwrap();
    let output = weir(folder.path(), &["sql", "select 1", "--json"]);
    let said = sentence(&output);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(json["error"].as_str(), Some(said.as_str()));
    assert_eq!(json["fault"].as_str(), Some("user"));
}
