//! `weir fleet recommend`, on tables as ingest would have left them.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use weir_schemas::{EventTimeMs, Request, Tokens};
use weir_store::Store;

#[path = "support/tables.rs"]
mod tables;

use tables::append;

/// 1 January 2026.
const START_MS: i64 = 1_767_225_600_000;
const GPU: &str = "llama-3.1-8b-bf16-1xh100";

fn weir(folder: &Path, arguments: &[&str]) -> Output {
    tables::weir(folder, ["fleet", "recommend"], arguments)
}

fn answer(folder: &Path, arguments: &[&str]) -> Value {
    let output = weir(folder, &[&["--gpu", GPU, "--json"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// What is said on standard error by a command that fails through its user's fault.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = weir(folder, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed {}", String::from_utf8_lossy(&output.stdout));
    stderr
}

fn request(id: String, arrival_ms: i64, model: &str) -> Request {
    Request {
        request_id: id,
        arrival_ms: EventTimeMs(arrival_ms),
        executed_model: Some(model.to_owned()),
        prompt_tokens: Some(Tokens(4000)),
        completion_tokens: Some(Tokens(200)),
        ..Request::default()
    }
}

/// Half an hour of two requests a second for `busy`, all but every fourth with three quarters of their prompt cached; two
/// requests in all for `rare`; and one from a sender whose clock is far ahead.
fn observed(folder: &Path) {
    let mut requests: Vec<Request> = (0..3600)
        .map(|number| Request {
            cached_prompt_tokens: Some(Tokens(if number % 4 == 0 { 0 } else { 3000 })),
            ..request(format!("busy-{number}"), START_MS + 500 * number, "busy")
        })
        .collect();
    requests.extend([10, 1700].map(|second| request(format!("rare-{second}"), START_MS + second * 1000, "rare")));
    requests.push(request("ahead".to_owned(), 4_102_444_800_000, "busy"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(folder.join("weir-data").to_str().expect("UTF-8")).await.expect("the store opens");
        append(&store, Request::contract(), &requests).await;
        weir_features::catch_up(&store).await.expect("catches up");
    });
}

#[test]
fn a_fleet_is_sized_from_the_tables() {
    let folder = tempfile::tempdir().unwrap();
    observed(folder.path());
    let page = weir(folder.path(), &["--gpu", GPU, "--model", "busy"]);
    let page = String::from_utf8(page.stdout).expect("UTF-8");
    assert!(page.starts_with("# Fleet: ") && page.contains(GPU), "{page}");

    let busy = answer(folder.path(), &["--model", "busy"]);
    let number = |value: &Value| value.as_f64().expect("a number");
    let rate = |answer: &Value| number(&answer["workload"]["rate"]["mean_per_s"]);
    assert!((rate(&busy) - 2.0).abs() < 0.01, "{}", busy["workload"]);
    // Cells of the tables are 10 % wide.
    assert!((number(&busy["workload"]["prompt_tokens_mean"]) / 4000.0 - 1.0).abs() < 0.05, "{}", busy["workload"]);
    assert!((number(&busy["workload"]["cached_share"]) - 0.5625).abs() < 1e-9, "{}", busy["workload"]);
    assert_eq!(busy["slo"]["e2e_p95_ms"], Value::Null);
    assert_eq!(busy["one_pool"]["plan"]["spare_instances"], 0);
    // A cold prompt takes four times as long as a warm one: both are in the distribution.
    let ttft_ms = &busy["one_pool"]["plan"]["ttft_ms"];
    assert!(number(&ttft_ms["p99"]) > 2.0 * number(&ttft_ms["p50"]), "{ttft_ms}");

    let more = answer(folder.path(), &["--model", "busy", "--scale", "30"]);
    assert!((rate(&more) - 60.0).abs() < 0.3, "{}", more["workload"]);
    assert!(number(&more["gpus"]) > number(&busy["gpus"]));
    let rarely_up = answer(folder.path(), &["--model", "busy", "--availability", "0.95", "--e2e-ms", "20000"]);
    assert_eq!(rarely_up["slo"]["e2e_p95_ms"], 20_000.0);
    assert!(number(&rarely_up["one_pool"]["plan"]["spare_instances"]) > 0.0);
}

/// The range ends with the last request that can have happened, and a model's rate is over all of that time.
#[test]
fn neither_a_clock_ahead_nor_a_rare_model_is_taken_for_the_whole_workload() {
    let folder = tempfile::tempdir().unwrap();
    observed(folder.path());
    for hours in ["1", "960"] {
        let busy = answer(folder.path(), &["--model", "busy", "--hours", hours]);
        assert_eq!(busy["workload"]["requests"], 3600.0, "{hours} hours");
        let rare = answer(folder.path(), &["--model", "rare", "--hours", hours]);
        assert_eq!(rare["workload"]["requests"], 2.0);
        let rate = rare["workload"]["rate"]["mean_per_s"].as_f64().expect("a number");
        assert!((rate - 2.0 / 1800.0).abs() < 1e-5, "{rate}");
    }
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let with = |arguments: &[&str]| refused(folder.path(), arguments);
    assert!(with(&["--gpu", "abacus"]).contains(GPU), "the known profiles are listed");
    assert!(with(&["--gpu", "nowhere.toml"]).contains("nowhere.toml"));
    std::fs::write(folder.path().join("broken.toml"), "name = \"broken\"\n").unwrap();
    let broken = with(&["--gpu", "broken.toml"]);
    assert!(broken.contains("broken.toml") && broken.contains("gpus_per_instance"), "{broken}");

    std::fs::create_dir(folder.path().join("weir-data")).unwrap();
    let empty = with(&["--gpu", GPU]);
    assert!(empty.contains("weir run"), "{empty}");
    observed(folder.path());
    let unknown = with(&["--gpu", GPU, "--model", "nobody"]);
    assert!(unknown.contains("for model nobody"), "{unknown}");
    for scale in ["NaN", "-1", "0", "inf", "twice"] {
        let said = with(&["--gpu", GPU, "--model", "busy", "--scale", scale]);
        assert!(said.contains("--scale") && (said.contains("above zero") || said.contains("a number")), "{said}");
    }
    let hopeless = with(&["--gpu", GPU, "--model", "busy", "--e2e-ms", "1"]);
    assert!(hopeless.contains("end-to-end objective"), "{hopeless}");
    let down = with(&["--gpu", GPU, "--model", "busy", "--availability", "0.2"]);
    assert!(down.contains("at least 0.5"), "{down}");
}
