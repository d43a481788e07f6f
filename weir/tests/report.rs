//! `weir report workload`, on tables as ingest would have left them.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use weir_schemas::{EventTimeMs, Request, Tokens, Usd};
use weir_store::Store;

#[path = "support/tables.rs"]
mod tables;

/// 1 January 2026.
const START_MS: i64 = 1_767_225_600_000;

fn weir(folder: &Path, arguments: &[&str]) -> Output {
    tables::weir(folder, ["report", "workload"], arguments)
}

fn routing(folder: &Path, arguments: &[&str]) -> Output {
    tables::weir(folder, ["report", "routing"], arguments)
}

fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = weir(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = weir(folder, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    stderr
}

/// Two hours: a request a second by 60 sessions, every third to a model whose name is markup.
fn observed(folder: &Path) {
    let requests: Vec<Request> = (0..7_200)
        .map(|n| Request {
            request_id: format!("r{n}"),
            arrival_ms: EventTimeMs(START_MS + 1_000 * n),
            session_id: Some(format!("s{}", n / 120)),
            turn: i32::try_from(n % 120).ok(),
            executed_model: Some(if n % 3 == 0 { "<big|model>" } else { "small" }.to_owned()),
            pool: Some("p".to_owned()),
            tools_offered: Some(if n % 4 == 0 { vec!["search".to_owned()] } else { Vec::new() }),
            prompt_tokens: Some(Tokens(if n % 10 == 0 { 12_000 } else { 700 })),
            cached_prompt_tokens: Some(Tokens(if n % 2 == 0 { 512 } else { 0 })),
            completion_tokens: Some(Tokens(200)),
            prefix_block_hashes: Some(vec![1, 100 + n % 7]),
            ttft_ms: Some(150.0),
            end_to_end_ms: Some(900.0),
            http_status: Some(if n % 100 == 99 { 500 } else { 200 }),
            cost_usd: Some(Usd(0.001)),
            ..Request::default()
        })
        .collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(folder.join("weir-data").to_str().expect("UTF-8")).await.expect("the store opens");
        tables::append(&store, Request::contract(), &requests).await;
        weir_features::catch_up(&store).await.expect("catches up");
    });
}

#[test]
fn a_report_is_markdown_html_or_json_and_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    observed(folder.path());
    insta::assert_snapshot!("markdown", printed(folder.path(), &[]));

    let page = folder.path().join("report.html");
    let told = printed(folder.path(), &["--format", "html", "--output", page.to_str().expect("UTF-8")]);
    assert_eq!(told, "");
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("&lt;big|model&gt;") && !html.contains("<big"), "a name is no markup");
    assert!(!html.contains("http") && !html.contains("<script"), "the page asks nobody for anything");
    assert_eq!(html.matches("<section>").count(), 14);
    // Traffic, mix, lengths, models, prefix cache.
    assert_eq!(html.matches("<svg").count(), 5);
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());

    let json: Value = serde_json::from_str(&printed(folder.path(), &["--json"])).unwrap();
    assert_eq!(json["sections"]["overview"][0]["requests"], 7_200);
    assert_eq!(json["from_ms"], START_MS);
}

#[test]
fn a_period_is_from_its_begin_to_before_its_end() {
    let folder = tempfile::tempdir().unwrap();
    observed(folder.path());
    let requests = |arguments: &[&str]| {
        let json: Value = serde_json::from_str(&printed(folder.path(), &[arguments, &["--json"]].concat())).unwrap();
        json["sections"]["overview"][0]["requests"].as_i64()
    };
    assert_eq!(requests(&["--from", "2026-01-01T01:00"]), Some(3_600));
    assert_eq!(requests(&["--to", "2026-01-01T00:10"]), Some(600));
    let within = printed(folder.path(), &["--from", "2026-01-01T00:30", "--to", "2026-01-01T00:40", "--json"]);
    let mix: Value = serde_json::from_str(&within).unwrap();
    let first = &mix["sections"]["mix"][0];
    assert_eq!(
        (&first["value"], &first["requests"]),
        (&"cold".into(), &300.into()),
        "an hour is not a unit of periods"
    );
    assert_eq!(requests(&["--from", "2026-01-01", "--to", "2026-01-02"]), Some(7_200));
    assert!(
        refused(folder.path(), &["--from", "2026-01-01T01:00", "--to", "2026-01-01T00:30"])
            .contains("--from must be before --to")
    );
    assert!(refused(folder.path(), &["--from", "2027-01-01"]).contains("2026-01-01 00:00 to 2026-01-01 02:00"));
    assert!(refused(folder.path(), &["--ttft-ms", "0"]).contains("must be above 0"));
    assert!(refused(folder.path(), &["--from", "yesterday"]).contains("write a day (2026-11-22)"));
}

#[test]
fn without_a_summary_there_is_nothing_to_report() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("weir-data")).unwrap();
    assert!(refused(folder.path(), &[]).contains("no request was summarised yet"));
    let output = routing(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no request is stored yet"));
}

#[test]
fn a_report_on_routing_weighs_failures_as_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    observed(folder.path());
    let told = |arguments: &[&str]| {
        let output = routing(folder.path(), arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    insta::assert_snapshot!("routing", told(&[]));
    let losses = |arguments: &[&str]| {
        let json: Value = serde_json::from_str(&told(&[arguments, &["--json"]].concat())).unwrap();
        let loss = |row: &Value| row["loss"].as_f64().unwrap();
        json["sections"]["models_by_expected_loss"].as_array().unwrap().iter().map(loss).collect::<Vec<_>>()
    };
    let (plain, weighed) = (losses(&[]), losses(&["--weight", "other_error=3", "--weight", "safety=0"]));
    assert!(plain.iter().zip(&weighed).all(|(plain, weighed)| *weighed > 1.5 * plain), "{plain:?} {weighed:?}");

    let wrong = routing(folder.path(), &["--weight", "rudeness=2"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("there are bad_arguments, dissatisfaction"));
    let page = folder.path().join("routing.html");
    told(&["--format", "html", "--output", page.to_str().expect("UTF-8")]);
    assert!(std::fs::read_to_string(&page).unwrap().contains("<h1>Routing</h1>"));
}
