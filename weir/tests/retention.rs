//! `weir fleet retention` on public traces: how directives fare beside what engines do, and beside one time for all.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use weir_schemas::{EventTimeMs, Request, Tokens};
use weir_store::Store;
use weir_traffic::Event;
use weir_traffic::replay::{ReplayConfig, open};

#[path = "support/tables.rs"]
mod tables;

/// 1 January 2026.
const START_MS: i64 = 1_767_225_600_000;

/// Of a Claude Code prompt every eighth 64-token block is taken: a block that is held tells of the seven before it.
const EVERY: usize = 8;

/// Sessions of the trace bear no date. They begin within this time, each at a moment that its name draws, and what they do
/// after it is left out.
const SPREAD_S: f64 = 24.0 * 3600.0;

fn mooncake(file: &Path) -> Vec<Request> {
    let config = ReplayConfig { start_ms: Some(START_MS), ..ReplayConfig::default() };
    let request = |timed: Result<weir_traffic::Timed, _>| {
        let Event::Request(request) = timed.expect("the trace reads").event else { panic!("only requests") };
        *request
    };
    open(file, config).expect("the trace opens").map(request).collect()
}

fn batches(file: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).expect("the file opens")).expect("Parquet");
    reader.build().expect("reads").collect::<Result<_, _>>().expect("reads")
}

/// A number in 0..1 that a name always draws.
fn drawn(name: &str) -> f64 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The high bits of this hash are its poorest; one more multiplication mixes them.
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Sessions of Claude Code, one of each group of copies, as if they had begun over one time.
fn claude_code(folder: &Path) -> Vec<Request> {
    let (mut groups, mut chosen) = (HashSet::new(), BTreeMap::new());
    for batch in batches(&folder.join("sessions.parquet")) {
        let text = |name: &str| batch.column_by_name(name).expect("is there").as_string::<i32>().clone();
        let (traces, groups_of) = (text("trace_id"), text("session_group"));
        for row in 0..batch.num_rows() {
            let number = chosen.len() as i64;
            if groups_of.is_null(row) || groups.insert(groups_of.value(row).to_owned()) {
                chosen.insert(traces.value(row).to_owned(), number);
            }
        }
    }
    let mut requests = Vec::new();
    for batch in batches(&folder.join("requests.parquet")) {
        let column = |name: &str| batch.column_by_name(name).expect("is there");
        let text = |name: &str| column(name).as_string::<i32>().clone();
        let number = |name: &str| column(name).as_primitive::<Float64Type>().clone();
        let count = |name: &str| column(name).as_primitive::<Int32Type>().clone();
        let (traces, agents, models, stops) = (text("trace_id"), text("agent"), text("model"), text("stop"));
        let (at_s, api_s) = (number("t_s"), number("api_time_s"));
        let (seq, prompts, runs) = (count("seq"), count("input_tokens"), column("hash_runs").as_list::<i32>());
        for row in 0..batch.num_rows() {
            let trace = traces.value(row);
            let Some(session) = chosen.get(trace) else { continue };
            let runs = runs.value(row);
            let blocks: Vec<i64> = runs
                .as_primitive::<Int32Type>()
                .values()
                .chunks(2)
                .flat_map(|run| (i64::from(run[0])..).take(run[1] as usize))
                .skip(EVERY - 1)
                .step_by(EVERY)
                .map(|block| (session << 32) | block)
                .collect();
            let arrival_s = drawn(trace) * SPREAD_S + at_s.value(row);
            if arrival_s >= SPREAD_S {
                continue;
            }
            requests.push(Request {
                request_id: format!("{trace}/{}/{}", agents.value(row), seq.value(row)),
                arrival_ms: EventTimeMs(START_MS + (arrival_s * 1e3) as i64),
                session_id: Some(format!("{trace}/{}", agents.value(row))),
                executed_model: Some(models.value(row).to_owned()),
                prompt_tokens: Some(Tokens(prompts.value(row))),
                end_to_end_ms: api_s.is_valid(row).then(|| api_s.value(row) * 1e3),
                finish_reason: stops.is_valid(row).then(|| stops.value(row).to_owned()),
                prefix_block_hashes: Some(blocks),
                ..Request::default()
            });
        }
    }
    requests
}

fn stored(folder: &Path, requests: &[Request]) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(folder.join("weir-data").to_str().expect("UTF-8")).await.expect("the store opens");
        for requests in requests.chunks(2_000) {
            tables::append(&store, Request::contract(), requests).await;
        }
        weir_features::catch_up(&store).await.expect("catches up");
    });
}

fn tried(folder: &Path, arguments: &[&str]) -> Value {
    let output = tables::weir(folder, ["fleet", "retention"], &[&["--json"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// Hit rates on resume by policy.
fn rates(study: &Value) -> BTreeMap<String, f64> {
    let trials = study["trials"].as_array().expect("trials");
    let rate = |trial: &Value| trial["resume_hit_rate"].as_f64().expect("a number");
    trials.iter().map(|trial| (trial["policy"].as_str().expect("a name").to_owned(), rate(trial))).collect()
}

fn table(folder: &Path, sizes: &[&str], arguments: &[&str]) -> Vec<BTreeMap<String, f64>> {
    println!("| blocks | lru | fixed ttl | after tools | directives | clairvoyant |\n|---:|---:|---:|---:|---:|---:|");
    let row = |size: &&str| {
        let rates = rates(&tried(folder, &[&["--blocks", size], arguments].concat()));
        let shown = |policy: &str| format!("{:.1} %", 100.0 * rates[policy]);
        let policies = ["lru", "fixed ttl", "fixed ttl after tools", "directives", "clairvoyant"].map(shown);
        println!("| {size} | {} |", policies.join(" | "));
        rates
    };
    sizes.iter().map(row).collect()
}

/// A table, and per row what each policy finds.
fn found(trace: &str, folder: &Path, sizes: &[&str], pinned: &str) -> Vec<BTreeMap<String, f64>> {
    println!("\n{trace}, up to {pinned} of the blocks pinned\n");
    table(folder, sizes, &["--pinned", pinned])
}

/// The most that a fixed time, chosen in hindsight, or last use find.
fn others(rates: &BTreeMap<String, f64>) -> f64 {
    ["lru", "fixed ttl", "fixed ttl after tools"].map(|policy| rates[policy]).into_iter().fold(0.0, f64::max)
}

#[test]
fn directives_find_more_for_agents_that_come_back() {
    let Some(data) = weir_tests::shared("data/agentic_coding_sessions") else { return };
    let folder = tempfile::tempdir().unwrap();
    let requests = claude_code(&data);
    println!("{} requests", requests.len());
    stored(folder.path(), &requests);
    for pinned in ["0.5", "1"] {
        for rates in found("Claude Code", folder.path(), &["500", "1000", "2000", "4000"], pinned) {
            // Most of them go on at once: there is little to tell apart, and one time for all, chosen in hindsight, does as well.
            assert!(
                rates["directives"] > rates["lru"] - 0.002 && rates["directives"] > others(&rates) - 0.005,
                "{rates:?}"
            );
            assert!(rates["directives"] <= rates["clairvoyant"], "{rates:?}");
        }
    }
}

#[test]
fn a_trace_without_sessions_or_tools_is_told_by_its_blocks() {
    let Some(data) = weir_tests::shared("data/mooncake_fast25") else { return };
    let folder = tempfile::tempdir().unwrap();
    stored(folder.path(), &mooncake(&data.join("conversation.parquet")));
    for pinned in ["0.5", "1"] {
        let sizes = ["500", "1000", "2000", "4000", "8000", "16000", "32000"];
        for (size, rates) in sizes.iter().zip(found("Mooncake conversation", folder.path(), &sizes, pinned)) {
            // With half of the blocks, and in a cache that nearly holds all, hardly less.
            let more = if *size == "32000" || pinned == "0.5" { -0.003 } else { 0.0 };
            assert!(rates["directives"] > others(&rates) + more, "{size}: {rates:?}");
            assert!(rates["directives"] > rates["lru"] - 0.002, "{size}: {rates:?}");
        }
    }

    let page = tables::weir(folder.path(), ["fleet", "retention"], &["--blocks", "4000"]);
    let page = String::from_utf8(page.stdout).expect("UTF-8");
    assert!(
        page.contains("They find more than least recently used and than the best of the fixed times to live."),
        "{page}"
    );

    // A trace put together by its publisher, of a few hundred sessions: what is learned from the first half misleads in a
    // small cache, and the page says so.
    let folder = tempfile::tempdir().unwrap();
    stored(folder.path(), &mooncake(&data.join("synthetic.parquet")));
    for (pinned, less) in [("0.5", 0.01), ("1", 0.1)] {
        for rates in found("Mooncake synthetic", folder.path(), &["2000", "8000", "32000"], pinned) {
            assert!(rates["directives"] > rates["lru"] - less, "{rates:?}");
        }
    }
    let page = tables::weir(folder.path(), ["fleet", "retention"], &["--blocks", "2000"]);
    let page = String::from_utf8(page.stdout).expect("UTF-8");
    assert!(page.contains("They don't find more than: "), "{page}");
}

/// What is said on standard error by a command that fails through its user's fault.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = tables::weir(folder, ["fleet", "retention"], arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    stderr
}

#[test]
fn what_cannot_be_tried_is_refused_with_a_word_on_how_to_mend_it() {
    let folder = tempfile::tempdir().unwrap();
    let request = |id: i64, blocks: Option<Vec<i64>>| Request {
        request_id: format!("{id}"),
        arrival_ms: EventTimeMs(START_MS + 1_000 * id),
        executed_model: Some("m".to_owned()),
        prefix_block_hashes: blocks,
        ..Request::default()
    };
    stored(folder.path(), &(0..10).map(|id| request(id, None)).collect::<Vec<_>>());
    assert!(refused(folder.path(), &["--blocks", "100"]).contains("have the router send `prefix_block_hashes`"));

    let folder = tempfile::tempdir().unwrap();
    stored(folder.path(), &(0..10).map(|id| request(id, Some(vec![id]))).collect::<Vec<_>>());
    assert!(refused(folder.path(), &["--blocks", "100"]).contains("no session went on"));
    assert!(refused(folder.path(), &["--blocks", "0"]).contains("--blocks"));
    assert!(refused(folder.path(), &["--blocks", "9", "--pinned", "2"]).contains("share"));
    assert!(refused(folder.path(), &["--blocks", "9", "--model", "it's"]).contains("widen the selection"));
}
