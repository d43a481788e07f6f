//! The views against a public trace: Patel et al., "Splitwise: efficient generative LLM inference using phase splitting",
//! ISCA 2024, whose Azure traces of a coding and a conversation service lie in `../shared/data/azure_llm_2023`.

mod common;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use common::append;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use serde_json::{Value, json};
use weir_schemas::Request;
use weir_sql::Context;
use weir_store::Store;

/// One request of the trace.
struct Call {
    arrival_ms: i64,
    prompt: i64,
    completion: i64,
}

async fn calls(file: &str) -> Vec<Call> {
    let ctx = SessionContext::new();
    let rows = ctx.read_parquet(file, ParquetReadOptions::default()).await.expect("the trace opens");
    let rows = rows.select_columns(&["ts_unix_ns", "context_tokens", "generated_tokens"]).expect("has its columns");
    let batches = rows.collect().await.expect("the trace reads");
    let call = |batch: &RecordBatch, row| Call {
        arrival_ms: batch.column(0).as_primitive::<Int64Type>().value(row) / 1_000_000,
        prompt: batch.column(1).as_primitive::<Int32Type>().value(row).into(),
        completion: batch.column(2).as_primitive::<Int32Type>().value(row).into(),
    };
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| call(batch, row))).collect()
}

fn nearest_rank(mut values: Vec<i64>, percent: usize) -> f64 {
    values.sort_unstable();
    values[(percent * values.len()).div_ceil(100).max(1) - 1] as f64
}

async fn figure(ctx: &Context, column: &str, service: &str) -> f64 {
    let sql = format!("SELECT CAST({column} AS DOUBLE) FROM tokens WHERE domain = '{service}'");
    weir_sql::query(ctx, &sql).await.expect("runs")[0].column(0).as_primitive::<Float64Type>().value(0)
}

#[tokio::test]
async fn means_of_the_azure_trace_are_exact_and_quantiles_within_one_percent() {
    let Some(folder) = weir_tests::shared_data("azure_llm_2023") else { return };
    let data = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(data.path().to_str().expect("a plain path")).await.expect("opens");
    let mut traces = Vec::new();
    for service in ["code", "conv"] {
        let calls = calls(folder.join(format!("{service}.parquet")).to_str().expect("a plain path")).await;
        let rows: Vec<Value> = calls
            .iter()
            .enumerate()
            .map(|(n, call)| {
                json!({ "request_id": format!("{service}-{n}"), "arrival_ms": call.arrival_ms, "domain": service,
                    "executed_model": "m", "prompt_tokens": call.prompt, "completion_tokens": call.completion })
            })
            .collect();
        for (version, rows) in rows.chunks(3_000).enumerate() {
            append(&store, Request::contract(), version as i64 * 3_000, rows).await;
        }
        traces.push((service, calls));
    }
    let done = weir_features::catch_up(&store).await.expect("catches up");
    assert_eq!((done.rows_in, done.repeated_rows), (21_944, 0), "the trace has 21,944 rows");

    let ctx = weir_sql::open(&store).await.expect("opens");
    for (service, calls) in &traces {
        for (side, values) in [
            ("prompt", calls.iter().map(|call| call.prompt).collect::<Vec<_>>()),
            ("completion", calls.iter().map(|call| call.completion).collect()),
        ] {
            let mean = values.iter().sum::<i64>() as f64 / values.len() as f64;
            assert_eq!(figure(&ctx, &format!("{side}_mean"), service).await, mean, "{service} {side} mean");
            for (column, percent) in [("p50", 50), ("p90", 90), ("p99", 99)] {
                let (estimate, exact) =
                    (figure(&ctx, &format!("{side}_{column}"), service).await, nearest_rank(values.clone(), percent));
                assert!((estimate - exact).abs() <= 0.01 * exact, "{service} {side} {column}: {estimate} for {exact}");
            }
        }
    }

    let observed = weir_features::fleet_workload(&ctx, i64::MIN, i64::MAX).await.expect("is read");
    assert_eq!(observed.cells.iter().map(|cell| cell.2).sum::<f64>(), 21_944.0);
    assert_eq!(observed.arrivals_per_s.iter().sum::<u32>(), 21_944);
}
