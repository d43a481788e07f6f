//! The `.slt` files of this folder: queries with the rows that they must give.
//!
//! They run over a small set of tables, written through the store into a folder as ingest and features would, redelivery
//! included. Every expected figure is small enough to be checked by hand from the rows below.

mod common;
mod runner;

use std::path::Path;
use std::sync::Arc;

use crate::common::{append, append_to_partition};
use arrow::json::ReaderBuilder;
use serde_json::{Value, json};
use weir_schemas::{Feedback, GpuTelemetry, Request, RouterEvent};
use weir_sql::{Context, SqlError};

use weir_store::{Store, TableSpec};

use crate::runner::passes;

/// 2023-11-14 22:13:20 UTC.
const T0_MS: i64 = 1_700_000_000_000;

fn requests() -> Vec<Value> {
    vec![
        json!({ "request_id": "r1", "arrival_ms": T0_MS, "tenant": "acme", "domain": "math", "pool": "p1",
            "policy_version": "v1", "intended_model": "small", "executed_model": "small", "propensity": 0.5,
            "message_count": 1, "modalities": ["text"], "prompt_tokens": 100, "completion_tokens": 50,
            "cached_prompt_tokens": 0, "http_status": 200, "ttft_ms": 10.0, "tpot_ms": 2.0, "end_to_end_ms": 110.0, "cost_usd": 0.001 }),
        json!({ "request_id": "r2", "arrival_ms": T0_MS + 1_000, "tenant": "acme", "domain": "math", "pool": "p1",
            "policy_version": "v1", "intended_model": "small", "executed_model": "small", "propensity": 0.5,
            "message_count": 4, "turn": 1, "tools_offered": ["search"], "modalities": ["text"],
            "tools_called": [{ "name": "search", "success": true }, { "name": "search", "success": false }],
            "prompt_tokens": 800, "completion_tokens": 100, "cached_prompt_tokens": 400,
            "finish_reason": "stop", "ttft_ms": 30.0, "tpot_ms": 4.0, "end_to_end_ms": 430.0, "cost_usd": 0.003 }),
        json!({ "request_id": "r3", "arrival_ms": T0_MS + 60_000, "tenant": "acme", "domain": "math", "pool": "p2",
            "policy_version": "v1", "intended_model": "large", "executed_model": "large", "propensity": 0.5,
            "message_count": 1, "modalities": ["text"], "prompt_tokens": 20, "completion_tokens": 40,
            "ttft_ms": 200.0, "tpot_ms": 20.0, "end_to_end_ms": 1000.0, "cost_usd": 0.02 }),
        json!({ "request_id": "r4", "arrival_ms": T0_MS + 3_000, "tenant": "acme", "domain": "history", "pool": "p1",
            "policy_version": "v1", "intended_model": "large", "executed_model": "small", "propensity": 0.5,
            "http_status": 500, "modalities": ["text", "image"], "prompt_tokens": 300 }),
    ]
}

fn feedback() -> Vec<Value> {
    let opinion = |id: &str, request: &str, source: &str, value: f64| {
        json!({ "feedback_id": id, "event_ms": T0_MS + 5_000, "source": source, "kind": "rating", "request_id": request,
            "value": value, "checked": true })
    };
    vec![opinion("f1", "r1", "user", 1.0), opinion("f2", "r2", "user", 0.0), opinion("f3", "r3", "judge", 0.5)]
}

fn gpu_telemetry() -> Vec<Value> {
    let sample = |instance: &str, gpu: &str, util: f64, power: f64| {
        json!({ "event_ms": T0_MS, "pool": "p1", "instance": instance, "gpu": gpu, "DCGM_FI_DEV_GPU_UTIL": util,
            "DCGM_FI_DEV_POWER_USAGE": power })
    };
    vec![
        sample("e1", "0", 50.0, 300.0),
        sample("e1", "1", 100.0, 500.0),
        sample("e1", "1", 100.0, 500.0),
        // Every instance counts its GPUs from 0.
        sample("e2", "0", 50.0, 300.0),
        json!({ "event_ms": T0_MS, "pool": "p1", "instance": "e1", "vllm:num_requests_running": 4.0,
            "vllm:num_requests_waiting": 2.0, "vllm:kv_cache_usage_perc": 0.25 }),
    ]
}

async fn tables(folder: &Path) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    let requests = requests();
    append(&store, Request::contract(), 0, &requests[..2]).await;
    append(&store, Request::contract(), 2, &requests[2..]).await;
    // A redelivery: it must change nothing below.
    append(&store, Request::contract(), 4, &requests[1..3]).await;
    append(&store, Feedback::contract(), 0, &feedback()).await;
    append(&store, GpuTelemetry::contract(), 0, &gpu_telemetry()).await;
    let done = weir_features::catch_up(&store).await.expect("catches up");
    assert_eq!((done.rows_in, done.repeated_rows), (6, 2));
    weir_sql::open(&store).await.expect("the session opens")
}

#[test]
fn analytics_views_say_what_the_rows_say() {
    passes("analytics.slt", tables);
}

/// Sticky sessions, and a request id that two tenants use.
async fn sessions(folder: &Path) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    let turn = |id: &str, tenant: &str, session: Option<&str>, model: &str, propensity: f64, tokens: i64| {
        json!({ "request_id": id, "arrival_ms": T0_MS, "tenant": tenant, "session_id": session, "policy_version": "v1",
            "intended_model": model, "executed_model": model, "propensity": propensity, "prompt_tokens": tokens })
    };
    let mut rows = vec![
        turn("t1", "acme", Some("s1"), "small", 0.5, 10),
        turn("t2", "acme", Some("s1"), "small", 0.5, 10),
        turn("t3", "acme", Some("s1"), "small", 0.5, 10),
        turn("t4", "acme", Some("s2"), "large", 0.5, 10),
        turn("t5", "acme", Some("s2"), "large", 0.5, 10),
        // Another tenant's session of the same name, and a request id that is taken too.
        turn("t1", "globex", Some("s2"), "small", 0.5, 20),
        turn("t6", "globex", None, "large", 0.25, 20),
    ];
    for id in ["u1", "u2"] {
        let mut row = turn(id, "acme", Some("s3"), "small", 0.5, 10);
        row["policy_version"] = "v2".into();
        rows.push(row);
    }
    append(&store, Request::contract(), 0, &rows).await;
    let opinion = json!({ "feedback_id": "f", "event_ms": T0_MS, "source": "user", "kind": "rating", "tenant": "globex",
        "request_id": "t1", "value": 0.25 });
    append(&store, Feedback::contract(), 0, &[opinion]).await;
    weir_sql::open(&store).await.expect("the session opens")
}

#[test]
fn sessions_are_the_unit_of_draws_and_tenants_of_request_ids() {
    passes("sessions.slt", sessions);
}

/// Requests of which nothing is known but when they arrived, and their summaries.
async fn arrivals_at(folder: &Path, arrivals_ms: impl Iterator<Item = i64>) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    let rows: Vec<Value> = arrivals_ms
        .map(|arrival_ms| json!({ "request_id": format!("at {arrival_ms}"), "arrival_ms": arrival_ms }))
        .collect();
    append(&store, Request::contract(), 0, &rows).await;
    weir_features::catch_up(&store).await.expect("catches up");
    weir_sql::open(&store).await.expect("the session opens")
}

/// The same, in seconds after [`T0_MS`], which is 22:13:20.
async fn arrivals_after(folder: &Path, arrivals_s: &[i64]) -> Context {
    arrivals_at(folder, arrivals_s.iter().map(|after_s| T0_MS + after_s * 1_000)).await
}

/// Requests in three of four windows of ten minutes, the first and the last of which were seen in part.
async fn windows(folder: &Path) -> Context {
    arrivals_after(folder, &[0, 1, 2, 399, 700, 1_630, 1_699]).await
}

#[test]
fn arrival_rates_are_over_the_seconds_that_were_observed() {
    passes("arrivals.slt", windows);
}

/// A request for each rule of each axis, its id beginning with the axis; `n` stands for nothing reported.
async fn axes(folder: &Path) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    let tokens = |prompt: i64, completion: i64| json!({ "prompt_tokens": prompt, "completion_tokens": completion });
    let in_session = |tenant: &str| json!({ "tenant": tenant, "session_id": "s" });
    let requests = [
        ("n", 0, json!({})),
        ("agent 1", 0, json!({ "tools_called": [{ "name": "search" }], "tools_offered": ["search"] })),
        ("agent 2", 0, json!({ "finish_reason": "tool_calls", "api": "chat_completions" })),
        ("agent 3", 0, json!({ "finish_reason": "tool_use" })),
        ("agent 4", 0, json!({ "tools_offered": ["search"], "finish_reason": "stop" })),
        ("agent 5", 0, json!({ "delegation_parent_id": "r", "message_count": 3 })),
        ("agent 6", 0, json!({ "tools_offered": [], "message_count": 3 })),
        ("agent 7", 0, json!({ "message_count": 3, "api": "chat_completions" })),
        ("agent 8", 0, json!({ "api": "chat_completions" })),
        ("agent 9", 0, json!({ "finish_reason": "stop" })),
        ("turns 1", 0, json!({ "turn": 2 })),
        ("turns 2", 0, json!({ "turn": 0, "chain_id": "r" })),
        ("turns 3", 0, json!({ "turn": 0 })),
        ("turns 4", 0, json!({ "message_count": 1 })),
        ("turns 5", 0, in_session("acme")),
        ("turns 6", 30_000, in_session("acme")),
        // Another tenant's session of the same name, and a request that names no session.
        ("turns 7", 30_000, in_session("globex")),
        ("turns 8", 30_000, json!({ "tenant": "acme" })),
        ("cache 1", 0, json!({ "prompt_tokens": 128, "cached_prompt_tokens": 32 })),
        ("cache 2", 0, json!({ "prompt_tokens": 128, "cached_prompt_tokens": 0 })),
        ("cache 3", 0, json!({ "cached_prompt_tokens": 64 })),
        ("cache 4", 0, json!({ "prompt_tokens": 128 })),
        ("phase 1", 0, tokens(800, 100)),
        ("phase 2", 0, tokens(799, 100)),
        ("phase 3", 0, tokens(101, 100)),
        ("phase 4", 0, tokens(100, 100)),
        ("phase 5", 0, tokens(5, 0)),
        ("phase 6", 0, tokens(0, 5)),
        ("phase 7", 0, tokens(0, 0)),
        ("parts 1", 0, json!({ "modalities": ["text"] })),
        ("parts 2", 0, json!({ "modalities": ["text", "image"] })),
        ("parts 3", 0, json!({ "modalities": ["audio"] })),
        ("parts 4", 0, json!({ "modalities": ["video", "text"] })),
        ("parts 5", 0, json!({ "modalities": ["text", "image", "audio"] })),
        ("parts 6", 0, json!({ "modalities": ["text", "molecule"] })),
        ("parts 7", 0, json!({ "modalities": [] })),
        ("reason 1", 0, json!({ "reasoning_tokens": 9, "reasoning_mode": "off" })),
        ("reason 2", 0, json!({ "reasoning_tokens": 0, "reasoning_mode": "on" })),
        ("reason 3", 0, json!({ "reasoning_mode": "on" })),
        ("reason 4", 0, json!({ "reasoning_mode": "off", "reasoning_effort": "low" })),
        ("reason 5", 0, json!({ "reasoning_effort": "low" })),
        ("reason 6", 0, json!({ "reasoning_effort": "none" })),
        ("served 1", 0, json!({ "provider": "here", "executed_model": "there/model" })),
        ("served 2", 3_600_000, json!({ "executed_model": "there/model" })),
    ];
    let rows: Vec<Value> = requests
        .into_iter()
        .map(|(id, after_ms, mut row)| {
            row["request_id"] = id.into();
            row["arrival_ms"] = (T0_MS + after_ms).into();
            row
        })
        .collect();
    append(&store, Request::contract(), 0, &rows).await;
    weir_sql::open(&store).await.expect("the session opens")
}

#[test]
fn each_rule_of_each_axis_fires_and_null_stays_null() {
    passes("axes.slt", axes);
}

/// `row` with these fields, too.
fn with(mut row: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().expect("more fields") {
        row[name] = value.clone();
    }
    row
}

/// Prompts of three slots of ten minutes, and a system prompt in the sessions of two tenants.
async fn workload(folder: &Path) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    // T0_MS is 22:13:20; these are seconds after it.
    let prompts = [(0, 1_000, 9), (0, 20_000, 1), (600, 20_000, 10), (4_200, 20_000, 5)];
    // Only the first slot's answers are known, and they are long.
    let mut rows: Vec<Value> = Vec::new();
    for (after_s, prompt_tokens, times) in prompts {
        for _ in 0..times {
            let id = format!("prompt {}", rows.len());
            rows.push(json!({ "request_id": id, "arrival_ms": T0_MS + after_s * 1_000, "prompt_tokens": prompt_tokens,
                "completion_tokens": (after_s == 0).then_some(9_000) }));
        }
    }
    let turn = |tenant: &str, session: Option<&str>, after_s: i64, took_ms: Option<f64>, more: Value| {
        with(
            json!({ "request_id": format!("{tenant} {session:?} {after_s}"), "tenant": tenant,
            "session_id": session, "arrival_ms": T0_MS + after_s * 1_000, "end_to_end_ms": took_ms,
            "system_prompt_hash": "f" }),
            &more,
        )
    };
    let calls = json!({ "tools_called": [{ "name": "search" }, { "name": "search" }] });
    rows.extend([
        turn("acme", Some("a"), 0, Some(2_000.0), calls),
        turn("acme", Some("a"), 10, Some(5_000.0), json!({})),
        turn("acme", Some("a"), 40, None, json!({ "message_count": 5 })),
        turn("acme", Some("b"), 0, None, json!({})),
        // The second does not wait for the first one's answer.
        turn("globex", Some("a"), 0, Some(3_000.0), json!({ "tools_called": [] })),
        turn("globex", Some("a"), 1, None, json!({})),
        turn("globex", None, 5, None, json!({})),
    ]);
    append(&store, Request::contract(), 0, &rows).await;
    weir_features::catch_up(&store).await.expect("catches up");
    weir_sql::open(&store).await.expect("the session opens")
}

#[test]
fn prompt_lengths_have_an_archetype_and_fingerprints_their_priors() {
    passes("workload.slt", workload);
}

/// Arrivals over two days and two hours, of which only the whole hours count.
async fn days(folder: &Path) -> Context {
    // 22:13, 23:05, 23:06, the next day's 23:30, and 00:10 of the fourth day.
    arrivals_after(folder, &[0, 3_100, 3_160, 86_400 + 4_600, 2 * 86_400 + 7_000]).await
}

#[test]
fn the_profile_of_the_day_is_over_whole_hours() {
    passes("days.slt", days);
}

#[test]
fn arrivals_from_broken_clocks_cost_no_view_its_answer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let broken = [i64::MIN + 700_000, -1, 0, i64::MAX];
        let ctx = arrivals_at(folder.path(), broken.into_iter().chain([T0_MS, T0_MS + 1])).await;
        for view in weir_sql::views() {
            let sql = format!("SELECT * FROM {}", view.name);
            let rows = weir_sql::query(&ctx, &sql);
            let rows = tokio::time::timeout(std::time::Duration::from_secs(60), rows).await.expect("in bounded time");
            rows.unwrap_or_else(|error| panic!("{}: {error}", view.name));
        }
        let numbers = async |sql: &str| {
            let rows = weir_sql::query(&ctx, sql).await.expect("runs");
            weir_sql::render(&rows, weir_sql::Format::Csv)
                .expect("renders")
                .lines()
                .skip(1)
                .collect::<Vec<_>>()
                .join(" ")
        };
        // All but those of the first and the last hour, which were seen in part.
        assert_eq!(numbers("SELECT count(*), sum(requests) FROM diurnal_profile").await, "24,4");
        assert_eq!(
            numbers("SELECT windows > 1000000, requests FROM arrival_process WHERE window_s = 3600").await,
            "true,4"
        );
    });
}

/// The lines of four requests, in an order that no router writes, and one half of them a second time.
async fn router_events(folder: &Path) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    let line = |id: &str, kind: &str, after_ms: i64, more: Value| {
        with(json!({ "request_id": id, "kind": kind, "event_ms": T0_MS + after_ms, "router": "r" }), &more)
    };
    let usage = json!({ "model": "small", "prompt_tokens": 100, "completion_tokens": 20, "cost_usd": 0.5,
        "completion_latency_ms": 900.0 });
    let done = json!({ "replay_id": "p1", "recorded_ms": T0_MS + 14, "requested_model": "auto", "model": "large",
        "decision": "code", "domain": "math", "http_status": 200, "end_to_end_ms": 950.0, "prompt_tokens": 1,
        "semantic_cache_hit": false, "session_id": "s", "turn": 2, "axes": { "language": "en" } });
    let decided = json!({ "requested_model": "auto", "model": "large", "decision": "code", "reason_code": "auto_routing",
        "routing_latency_ms": 14.0 });
    let first = [
        line("q1", "router_replay_complete", 960, done),
        line("q1", "llm_usage", 955, usage.clone()),
        // Its decision was lost with a crash.
        line("q2", "llm_usage", 10, json!({ "model": "small", "prompt_tokens": 7, "semantic_cache_hit": true })),
        // A second model's usage, and the first one's again.
        line("q3", "llm_usage", 30, json!({ "model": "large", "prompt_tokens": 3 })),
        line("q3", "llm_usage", 20, json!({ "model": "small", "prompt_tokens": 2 })),
    ];
    let second = [
        line("q1", "routing_decision", 15, decided),
        line("q1", "llm_usage", 955, usage),
        line(
            "q4",
            "router_replay_start",
            5,
            json!({ "model": "small", "recorded_ms": T0_MS, "lifecycle_state": "in_progress" }),
        ),
    ];
    append(&store, RouterEvent::contract(), 0, &first).await;
    append(&store, RouterEvent::contract(), 5, &second).await;
    weir_sql::open(&store).await.expect("the session opens")
}

#[test]
fn lines_of_a_request_are_one_row_in_whatever_order_they_came() {
    passes("router_requests.slt", router_events);
}

#[test]
fn sums_over_partial_rows_do_not_wrap_at_64_bits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let store = Store::open(folder.path().to_str().expect("a plain path")).await.expect("the folder opens");
        let dear = |n: i64| {
            json!({ "request_id": format!("r{n}"), "arrival_ms": T0_MS, "cost_usd": 1e6, "executed_model": "m",
                "prompt_tokens": 1, "completion_tokens": 1 })
        };
        // Each commit's partial row holds 5e18 nano-USD: two of them are more than 2^63.
        for version in 0..2 {
            let rows: Vec<Value> = (0..5_000).map(|n| dear(version * 5_000 + n)).collect();
            append(&store, Request::contract(), version * 5_000, &rows).await;
            weir_features::catch_up(&store).await.expect("catches up");
        }
        let ctx = weir_sql::open(&store).await.expect("the session opens");
        let sql = "SELECT total_usd, usd_per_request, usd_per_mtok FROM cost";
        let rows = weir_sql::query(&ctx, sql).await.expect("runs");
        let text = weir_sql::render(&rows, weir_sql::Format::Csv).expect("renders");
        assert_eq!(text.lines().nth(1), Some("10000000000.0,1000000.0,500000000000.0"));
    });
}

/// Runs a query that must fail over one row whose text nobody may see in a message.
fn fails(sql: &str) -> SqlError {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let store = Store::open(folder.path().to_str().expect("a plain path")).await.expect("the folder opens");
        let row = json!({ "request_id": "r", "arrival_ms": T0_MS, "prompt_text": "my secret", "prompt_tokens": 0 });
        append(&store, Request::contract(), 0, &[row]).await;
        let ctx = weir_sql::open(&store).await.expect("the session opens");
        weir_sql::query(&ctx, sql).await.expect_err("the value does not allow it")
    })
}

#[test]
fn a_value_that_does_not_fit_is_the_querys_fault_and_is_not_told() {
    for (sql, advice) in [
        ("SELECT CAST(prompt_text AS BIGINT) FROM raw_requests", "TRY_CAST"),
        ("SELECT to_timestamp(prompt_text) FROM raw_requests", "TRY_CAST"),
        ("SELECT 1 / prompt_tokens FROM raw_requests", "NULLIF"),
        ("SELECT ddsketch_count(arrow_cast(prompt_text, 'Binary')) FROM raw_requests", "no summary"),
    ] {
        let error = fails(sql);
        assert_eq!((error.fault(), error.retry_helps()), (weir_store::Fault::User, false), "{sql}: {error}");
        let said = error.to_string();
        assert!(said.contains(advice) && !said.contains("secret"), "{sql}: {said}");
    }
}

#[test]
fn a_result_that_does_not_fit_is_refused_and_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let ctx = tables(folder.path()).await;
        let limit = datafusion::execution::runtime_env::RuntimeEnvBuilder::new().with_memory_limit(1 << 20, 1.0);
        let small = datafusion::execution::SessionStateBuilder::new_from_existing(ctx.state())
            .with_runtime_env(limit.build_arc().expect("a runtime is made"))
            .build();
        let small = Context::new_with_state(small);
        let heavy = "SELECT a.value, b.value FROM generate_series(1, 10000) AS a, generate_series(1, 10000) AS b";
        let error = weir_sql::query(&small, heavy).await.expect_err("a hundred million rows");
        assert!(matches!(error, SqlError::TooMuchMemory), "{error}");
        assert_eq!(error.fault(), weir_store::Fault::User);
        let counted = weir_sql::query(&small, &format!("SELECT count(*) FROM ({heavy})")).await;
        assert!(counted.is_ok(), "an aggregate of the same rows fits: {counted:?}");
    });
}

#[test]
fn canonical_views_hold_each_request_once() {
    passes("canonical.slt", tables);
}

#[test]
fn statements_that_change_something_are_refused() {
    passes("read_only.slt", tables);
}

#[test]
fn every_view_answers_over_an_empty_store() {
    passes("empty.slt", async |folder| {
        let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
        weir_sql::open(&store).await.expect("the session opens")
    });
}

#[test]
fn every_listed_view_plans_and_runs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let ctx = tables(folder.path()).await;
        for view in weir_sql::views() {
            let rows = weir_sql::query(&ctx, &format!("SELECT * FROM {}", view.name)).await;
            assert!(rows.is_ok(), "{}: {rows:?}", view.name);
        }
    });
}

/// Appends the rows as one version of a table that a session knows, with the columns that it has there.
async fn append_to(store: &Store, name: &str, rows: &[Value]) {
    let session = weir_features::session(store).await.expect("a session opens");
    let schema = session.table_provider(name).await.expect("the session knows the table").schema();
    let mut decoder = ReaderBuilder::new(Arc::clone(&schema)).build_decoder().expect("the schema decodes");
    decoder.serialize(rows).expect("the rows fit the schema");
    let batch = decoder.flush().expect("the rows decode").expect("there are rows");
    let spec = TableSpec { name: name.to_owned(), schema, partition_by: None };
    let mut table = store.table(&spec).await.expect("the table opens");
    table.commit(vec![batch], Vec::new()).await.expect("the rows fit the table");
}

/// Dead letters, and what two replays did with them.
async fn dead_letters(folder: &Path) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    let letters = (0..5).map(|offset| {
        json!({ "source_topic": "llm", "source_partition": 0, "source_offset": offset, "reason_class": "not_json",
            "reason": "no JSON", "observed_ms": T0_MS, "observed_date": "2023-11-14", "payload_bytes": 3,
            "sealed_payload": "00ff" })
    });
    let replay = |epoch: i64, offset: i64, outcome: &str, reason: Option<&str>| {
        json!({ "job": "weir", "epoch": epoch, "source_topic": "llm", "source_partition": 0, "source_offset": offset,
            "outcome": outcome, "rows": i64::from(outcome == "stored"), "tables": "requests",
            "reason_class": reason.map(|_| "wrong_type"), "reason": reason, "replayed_ms": 1_000 * (epoch + 1), "record": "r" })
    };
    let replays = [
        replay(1, 0, "stored", None),
        replay(1, 1, "already_stored", None),
        replay(1, 2, "rejected", Some("one field")),
        replay(1, 3, "rejected", Some("one field")),
        replay(2, 3, "stored", None),
        replay(2, 2, "rejected", Some("another field")),
        // Another partition's letter of the same offset is another letter.
        json!({ "job": "weir", "epoch": 2, "source_topic": "llm", "source_partition": 1, "source_offset": 4,
            "outcome": "stored", "rows": 1, "tables": "requests", "replayed_ms": 3_000, "record": "r" }),
    ];
    append_to(&store, "dead_letters", &letters.collect::<Vec<_>>()).await;
    append_to(&store, "dead_letter_replays", &replays).await;
    weir_sql::open(&store).await.expect("the session opens")
}

#[test]
fn pending_letters_are_those_that_no_replay_has_dealt_with() {
    passes("dead_letters.slt", dead_letters);
}

/// Requests whose router tells the blocks of their prompts, of one pool with two instances and one with one.
async fn prefixes(folder: &Path) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    let request = |id: &str, at: i64, pool: &str, instance: &str, blocks: Option<&[i64]>| {
        json!({ "request_id": id, "arrival_ms": T0_MS + at, "session_id": "s", "executed_model": "m", "pool": pool,
            "instance": instance, "prefix_block_hashes": blocks })
    };
    let reported = |mut row: Value, prompt: i64, cached: i64| {
        row["prompt_tokens"] = prompt.into();
        row["cached_prompt_tokens"] = cached.into();
        row
    };
    let rows = [
        request("a", 0, "p", "i1", Some(&[1, 2, 3])),
        reported(request("b", 1, "p", "i2", Some(&[1, 2, 4])), 300, 100),
        request("c", 2, "p", "i2", Some(&[5, 6])),
        request("d", 3, "p", "i1", Some(&[1, 2, 3])),
        request("e", 4, "p", "i1", None),
        reported(request("f", 5, "p", "i2", Some(&[1, 2, 3, 7])), 200, 0),
        request("g", 6, "q", "i1", Some(&[1, 2, 3])),
    ];
    append(&store, Request::contract(), 0, &rows).await;
    weir_sql::open(&store).await.expect("the session opens")
}

#[test]
fn prefix_caches_hold_what_was_used_last() {
    passes("prefix.slt", prefixes);
}

/// A conversation with a break of half an hour, and opinions on it; and two requests of another, 40 minutes apart.
async fn conversations(folder: &Path) -> Store {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    let (requests, opinions) = conversation_rows();
    append(&store, Request::contract(), 0, &requests).await;
    append(&store, Feedback::contract(), 0, &opinions).await;
    store
}

fn conversation_rows() -> (Vec<Value>, Vec<Value>) {
    let request = |id: &str, session: &str, at: i64, model: &str, prompt: i64, completion: i64| {
        json!({ "request_id": id, "arrival_ms": T0_MS + at, "session_id": session, "executed_model": model,
            "prompt_tokens": prompt, "completion_tokens": completion })
    };
    let ended = |mut row: Value, end_to_end_ms: f64, finish: &str| {
        row["end_to_end_ms"] = end_to_end_ms.into();
        row["finish_reason"] = finish.into();
        row
    };
    let mut with_tool = ended(request("r2", "s", 5_000, "b", 150, 20), 2_000.0, "tool_calls");
    with_tool["tools_called"] = json!([{ "name": "search", "success": false }]);
    let rows = vec![
        // The table does not hold them in the order of their times.
        ended(request("r3", "s", 6_000, "b", 300, 30), 1_000.0, "stop"),
        request("r4", "s", 1_867_001, "a", 50, 5),
        ended(request("r1", "s", 0, "a", 100, 10), 1_000.0, "stop"),
        with_tool,
        request("u1", "u", 0, "a", 10, 1),
        request("u2", "u", 2_400_000, "a", 10, 1),
        json!({ "request_id": "alone", "arrival_ms": T0_MS }),
    ];
    let opinion = |id: &str, at: i64, source: &str, kind: &str, value: f64, about: Value| {
        let mut row =
            json!({ "feedback_id": id, "event_ms": T0_MS + at, "source": source, "kind": kind, "value": value });
        let fields = row.as_object_mut().expect("an object");
        fields.extend(about.as_object().expect("an object").clone());
        row
    };
    let opinions = vec![
        opinion("f1", 9_000, "user", "rating", 0.5, json!({ "request_id": "r2" })),
        opinion(
            "f2",
            9_000,
            "evaluation",
            "verdict",
            0.25,
            json!({ "request_id": "r3", "checked": true, "estimator": "e" }),
        ),
        opinion("f3", 8_000, "user", "task_success", 1.0, json!({ "session_id": "s" })),
        // The last word about the first part of the conversation, before the second began.
        opinion("f4", 1_800_000, "user", "task_success", 0.0, json!({ "session_id": "s" })),
        opinion("f5", 1_900_000, "user", "thumb", 1.0, json!({ "session_id": "s" })),
    ];
    (rows, opinions)
}

#[test]
fn sessions_end_with_half_an_hour_of_silence() {
    passes("session_records.slt", async |folder| {
        weir_sql::open(&conversations(folder).await).await.expect("the session opens")
    });
}

/// The same rows in reverse, over three partitions, every second one twice: the same sessions.
#[test]
fn order_partitions_and_repeats_change_no_session() {
    passes("session_records.slt", async |folder| {
        let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
        let (requests, opinions) = conversation_rows();
        for (contract, rows) in [(Request::contract(), requests), (Feedback::contract(), opinions)] {
            for (offset, row) in rows.into_iter().rev().enumerate() {
                let times = 1 + offset % 2;
                let partition = i32::try_from(offset % 3).expect("0 to 2");
                append_to_partition(&store, contract, partition, 2 * offset as i64, &vec![row; times]).await;
            }
        }
        weir_sql::open(&store).await.expect("the session opens")
    });
}

/// One that comes late lies 20 minutes from either.
#[test]
fn a_late_request_joins_two_sessions() {
    passes("joined_sessions.slt", async |folder| {
        let store = conversations(folder).await;
        let late = json!({ "request_id": "u3", "arrival_ms": T0_MS + 1_200_000, "session_id": "u" });
        append(&store, Request::contract(), 7, &[late]).await;
        weir_sql::open(&store).await.expect("the session opens")
    });
}

/// Three partitions: one with an event that came late, one behind it, one that has fallen silent.
async fn partitions(folder: &Path) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    for (partition, seconds) in [(0, &[0, 10, 4, 20][..]), (1, &[15, 2_400_000_000]), (2, &[-600])] {
        let rows: Vec<_> = seconds
            .iter()
            .map(|s: &i64| json!({ "request_id": format!("{partition}/{s}"), "arrival_ms": T0_MS + 1_000 * s }))
            .collect();
        append_to_partition(&store, Request::contract(), partition, 0, &rows).await;
    }
    weir_sql::open(&store).await.expect("the session opens")
}

#[test]
fn watermarks_wait_for_partitions_that_are_behind_and_not_for_idle_ones() {
    passes("watermarks.slt", partitions);
}

/// 172 windows of ten minutes with 20 requests of each of two models. From the 151st on, 8 of 20 requests of `b` fail; before,
/// 0, 1 or 2 of either's do.
async fn a_model_that_breaks(folder: &Path) -> Context {
    const MIDNIGHT_MS: i64 = 1_700_006_400_000;
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    for (version, hours) in (0..172_i64).collect::<Vec<_>>().chunks(43).enumerate() {
        let mut rows = Vec::new();
        for window in hours {
            for (model, n) in
                [("a", 0), ("b", 1)].into_iter().flat_map(|(model, _)| (0..20_i64).map(move |n| (model, n)))
            {
                let failures =
                    if model == "b" && *window >= 150 { 8 } else { (window * 7 + i64::from(model == "b")) % 3 };
                rows.push(json!({
                    "request_id": format!("{window}/{model}/{n}"), "executed_model": model,
                    "arrival_ms": MIDNIGHT_MS + window * 600_000 + n * 1_000,
                    "ttft_ms": 200 + (window * 37) % 11, "http_status": if n < failures { 500 } else { 200 },
                }));
            }
        }
        append(&store, Request::contract(), version as i64 * 10_000, &rows).await;
    }
    weir_features::catch_up(&store).await.expect("catches up");
    weir_sql::open(&store).await.expect("the session opens")
}

#[test]
fn a_model_that_begins_to_fail_is_the_one_thing_that_has_changed() {
    passes("drift.slt", a_model_that_breaks);
}

/// Three requests of a session that overlap, one alone, and opinions that come after 10, 20 and 40 s.
async fn decisions(folder: &Path) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    let request = |id: &str, session: Option<&str>, at: i64, end_to_end_ms: Option<f64>, status: i64| {
        json!({ "request_id": id, "arrival_ms": T0_MS + at, "session_id": session, "intended_model": "a", "propensity": 0.5,
            "prompt_tokens": 100, "completion_tokens": 10, "end_to_end_ms": end_to_end_ms, "http_status": status })
    };
    let rows = [
        request("r1", Some("s"), 0, Some(3_000.0), 500),
        request("r2", Some("s"), 1_000, Some(1_000.0), 200),
        request("r3", Some("s"), 3_000, None, 200),
        request("r4", Some("s"), 3_001, Some(10.0), 200),
        request("lone", None, 60_000, None, 200),
        json!({ "request_id": "cached", "arrival_ms": T0_MS, "intended_model": "a", "semantic_cache_hit": true }),
    ];
    append(&store, Request::contract(), 0, &rows).await;
    let opinion = |request: &str, at: i64, source: &str, estimator: Option<&str>| {
        json!({ "feedback_id": format!("{request}/{source}"), "event_ms": T0_MS + at, "source": source, "kind": "rating",
            "value": 1.0, "request_id": request, "checked": true, "estimator": estimator })
    };
    let opinions = [
        opinion("r1", 10_000, "user", None),
        opinion("r2", 41_000, "user", None),
        opinion("r3", 80_000, "evaluation", Some("e")),
        opinion("lone", 80_000, "user", None),
    ];
    append(&store, Feedback::contract(), 0, &opinions).await;
    weir_sql::open(&store).await.expect("the session opens")
}

#[test]
fn examples_know_nothing_that_came_later_and_young_ones_are_censored() {
    passes("training.slt", decisions);
}

/// Calls of `a` that were drawn with a mode of reasoning, by what is logged of the mode and the effort.
async fn calls_told_how_to_reason(folder: &Path) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    let told = [
        ("high", None, Some("high")),
        ("high", Some("on"), Some("high")),
        ("high", Some("off"), Some("high")),
        ("off", Some("off"), Some("high")),
        ("on", Some("on"), Some("")),
        ("on", Some("on"), None),
        ("on", None, None),
    ];
    let request = |(n, (drawn, mode, effort)): (usize, (&str, Option<&str>, Option<&str>))| {
        json!({ "request_id": format!("r{n}"), "arrival_ms": T0_MS + n as i64, "intended_model": format!("a;reasoning={drawn}"),
            "executed_model": "a", "propensity": 0.5, "reasoning_mode": mode, "reasoning_effort": effort })
    };
    let rows: Vec<Value> = told.into_iter().enumerate().map(request).collect();
    append(&store, Request::contract(), 0, &rows).await;
    weir_sql::open(&store).await.expect("the session opens")
}

#[test]
fn a_call_whose_reasoning_was_off_is_off_whatever_effort_was_asked_for() {
    passes("reasoning.slt", calls_told_how_to_reason);
}

/// One instance in a window: 40 requests, each 10 s after the other, of 1,000 to 4,000 tokens, a quarter of them cached, prefilled
/// at 5,000 tokens/s behind 20 ms; every tenth waited for 5 s. Another instance with two requests.
async fn instances(folder: &Path) -> Context {
    const MIDNIGHT_MS: i64 = 1_700_006_400_000;
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    let mut rows: Vec<Value> = (0..40_i64)
        .map(|n| {
            let prompt = 1_000 * (1 + n % 4);
            let waited = if n % 10 == 9 { 5_000.0 } else { 0.0 };
            json!({ "request_id": format!("r{n}"), "arrival_ms": MIDNIGHT_MS + 10_000 * n, "pool": "p", "instance": "i1",
                "executed_model": "m", "prompt_tokens": prompt, "cached_prompt_tokens": prompt / 4, "completion_tokens": 100,
                "ttft_ms": 20.0 + prompt as f64 * 0.75 / 5.0 + waited, "tpot_ms": 20.0, "end_to_end_ms": 5_000.0 })
        })
        .collect();
    rows.extend((0..2).map(|n| {
        json!({ "request_id": format!("cold{n}"), "arrival_ms": MIDNIGHT_MS + n, "pool": "p", "instance": "i2",
            "executed_model": "m", "prompt_tokens": 1_000 + n, "ttft_ms": 100.0 + n as f64 })
    }));
    append(&store, Request::contract(), 0, &rows).await;
    let telemetry = [
        json!({ "event_ms": MIDNIGHT_MS, "pool": "p", "instance": "i1", "vllm:num_requests_running": 1.0,
        "vllm:num_requests_waiting": 0.0, "vllm:kv_cache_usage_perc": 0.4 }),
        // Two GPUs, a minute later.
        json!({ "event_ms": MIDNIGHT_MS + 60_000, "pool": "p", "instance": "i1", "gpu": "0", "DCGM_FI_DEV_GPU_UTIL": 40.0 }),
        json!({ "event_ms": MIDNIGHT_MS + 60_000, "pool": "p", "instance": "i1", "gpu": "1", "DCGM_FI_DEV_GPU_UTIL": 60.0 }),
    ];
    append(&store, GpuTelemetry::contract(), 0, &telemetry).await;
    weir_sql::open(&store).await.expect("the session opens")
}

#[test]
fn an_instances_rates_come_from_its_requests_and_are_unknown_while_it_is_cold() {
    passes("pool_state.slt", instances);
}
