//! The prefix cache of public traces: every size's hits, as a script of its own finds them over the raw files.

mod common;

use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, UInt64Type};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use serde_json::{Value, json};
use weir_schemas::Request;
use weir_sql::Context;
use weir_store::Store;
use weir_traffic::Event;
use weir_traffic::replay::{ReplayConfig, open};

use crate::common::append;

/// Where a trace without a date begins.
const START_MS: i64 = 1_700_006_400_000;

async fn opened(folder: &Path, rows: &[Value]) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("opens");
    for (version, rows) in rows.chunks(5_000).enumerate() {
        append(&store, Request::contract(), version as i64 * 5_000, rows).await;
    }
    weir_sql::open(&store).await.expect("opens")
}

fn mooncake(file: &Path) -> Vec<Value> {
    let config = ReplayConfig { start_ms: Some(START_MS), ..ReplayConfig::default() };
    let row = |timed: Result<weir_traffic::Timed, _>| {
        let Event::Request(request) = timed.expect("the trace reads").event else { panic!("only requests") };
        serde_json::to_value(request).expect("requests serialise")
    };
    open(file, config).expect("the trace opens").map(row).collect()
}

fn whole(batches: &[RecordBatch], column: &str) -> Vec<i64> {
    let column = |batch: &RecordBatch| {
        batch.column_by_name(column).expect("is there").as_primitive::<Int64Type>().values().to_vec()
    };
    batches.iter().flat_map(column).collect()
}

/// Lines of the reference for one trace: capacity, requests, requests with a hit, blocks, hits.
fn lines_of(text: &str, trace: &str) -> Vec<Vec<i64>> {
    let line = |line: &str| {
        let (name, figures) = line.split_once('\t').expect("a name and figures");
        (name == trace).then(|| figures.split('\t').map(|figure| figure.parse().expect("a whole number")).collect())
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn a_script_over_mooncakes_files_counts_the_same_hits_at_every_size() {
    let Some(data) = weir_tests::shared("data") else { return };
    let Some(text) = weir_tests::reference("prefix_cache.py", &data) else { return };

    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    for trace in ["conversation", "synthetic"] {
        let rows = mooncake(&data.join(format!("mooncake_fast25/{trace}.parquet")));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let batches = runtime.block_on(async {
            let ctx = opened(folder.path(), &rows).await;
            let sql = "SELECT * FROM prefix_cache ORDER BY capacity_blocks";
            weir_sql::query(&ctx, sql).await.expect("the view runs")
        });
        let columns = ["capacity_blocks", "requests", "hit_requests", "blocks", "hit_blocks"];
        let ours = columns.map(|column| whole(&batches, column));
        let rows: Vec<Vec<i64>> =
            (0..ours[0].len()).map(|row| ours.iter().map(|column| column[row]).collect()).collect();
        let theirs = lines_of(&text, trace);
        assert!(theirs.len() > 10, "the reference knows {} sizes of {trace}", theirs.len());
        assert_eq!(rows, theirs, "{trace}");
        let last = rows.last().expect("has rows");
        println!("{trace}: {} of {} blocks are hits without an end of the cache", last[4], last[3]);
    }
}

/// Requests of the sessions with few blocks, in time, with block ids that no other session has, and the leading blocks of
/// each that the trace's publisher says were seen earlier in the session.
async fn claude_code(file: &Path) -> (Vec<Value>, Vec<i64>) {
    let ctx = SessionContext::new();
    let file = file.to_str().expect("a plain path");
    ctx.register_parquet("requests", file, ParquetReadOptions::default()).await.expect("the trace opens");
    let sql = "SELECT dense_rank() OVER (ORDER BY trace_id) AS session, agent, seq, t_s, hash_runs, \
            CAST(coalesce(hit_blocks, 0) AS BIGINT) AS hit_blocks \
        FROM requests \
        WHERE trace_id IN (SELECT trace_id FROM requests GROUP BY trace_id HAVING sum(n_blocks) BETWEEN 1 AND 12000) \
        ORDER BY session, t_s, agent, seq";
    let batches = ctx.sql(sql).await.expect("plans").collect().await.expect("the trace reads");
    let (mut rows, mut hits) = (Vec::new(), Vec::new());
    for batch in &batches {
        let column = |name: &str| batch.column_by_name(name).expect("is there");
        let (runs, at_s) = (column("hash_runs").as_list::<i32>(), column("t_s").as_primitive::<Float64Type>());
        for row in 0..batch.num_rows() {
            let session = column("session").as_primitive::<UInt64Type>().value(row) as i64;
            let runs = runs.value(row);
            let blocks: Vec<i64> = runs
                .as_primitive::<Int32Type>()
                .values()
                .chunks(2)
                .flat_map(|run| (i64::from(run[0])..).take(run[1] as usize))
                .map(|block| (session << 32) | block)
                .collect();
            rows.push(json!({
                "request_id": format!("{:06}", rows.len()),
                "arrival_ms": START_MS + (at_s.value(row) * 1000.0) as i64,
                "prefix_block_hashes": blocks,
            }));
        }
        hits.extend(whole(std::slice::from_ref(batch), "hit_blocks"));
    }
    (rows, hits)
}

#[test]
fn what_claude_code_sessions_had_seen_is_what_their_publisher_says() {
    let Some(data) = weir_tests::shared("data/agentic_coding_sessions") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let (rows, hits) = claude_code(&data.join("requests.parquet")).await;
        assert!(rows.len() > 500, "{} requests", rows.len());
        let ctx = opened(folder.path(), &rows).await;
        let sql = "SELECT seen_blocks FROM prefix_requests ORDER BY request_id";
        let seen = whole(&weir_sql::query(&ctx, sql).await.expect("the view runs"), "seen_blocks");
        let without: i64 = rows.iter().filter(|row| row["prefix_block_hashes"] == json!([])).count() as i64;
        println!(
            "{} requests, {without} without blocks, {} leading blocks seen before",
            rows.len(),
            hits.iter().sum::<i64>()
        );
        assert_eq!(seen, hits);
    });
}
