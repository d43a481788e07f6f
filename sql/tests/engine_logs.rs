//! How many requests are in flight, as requests tell it, beside what engines wrote of themselves: AIBrix's autoscaling
//! experiments, vLLM on up to eight pods.

mod common;
mod parquet_rows;

use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use serde_json::Value;
use weir_schemas::{GpuTelemetry, Request};
use weir_store::Store;

use crate::common::append;
use crate::parquet_rows::parquet_rows;

async fn rows(folder: &Path, sql: &str) -> Vec<Value> {
    parquet_rows(folder, &["requests", "vllm_engine_log"], sql).await
}

/// A run of the experiments: how many of its engines wrote a log is told by its files.
struct Run {
    name: String,
    pods: f64,
    /// Share of the requests that tell how long they took.
    timed: f64,
    /// (ours, engines') requests in flight, means of windows of ten minutes.
    windows: Vec<(f64, f64)>,
}

fn of(batches: &[RecordBatch]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for batch in batches {
        let names = batch.column(0).as_string::<i32>();
        let number = |column: usize, row: usize| batch.column(column).as_primitive::<Float64Type>().value(row);
        for row in 0..batch.num_rows() {
            if runs.last().is_none_or(|run| run.name != names.value(row)) {
                let name = names.value(row).to_owned();
                runs.push(Run { name, pods: number(1, row), timed: number(2, row), windows: Vec::new() });
            }
            runs.last_mut().expect("was pushed").windows.push((number(3, row), number(4, row)));
        }
    }
    runs
}

/// Pearson's.
fn correlation(pairs: &[(f64, f64)]) -> f64 {
    let n = pairs.len() as f64;
    let (x, y) = (pairs.iter().map(|pair| pair.0).sum::<f64>() / n, pairs.iter().map(|pair| pair.1).sum::<f64>() / n);
    let sum = |of: fn((f64, f64)) -> f64| pairs.iter().map(|pair| of((pair.0 - x, pair.1 - y))).sum::<f64>();
    sum(|(x, y)| x * y) / (sum(|(x, _)| x * x) * sum(|(_, y)| y * y)).sqrt()
}

#[test]
fn requests_in_flight_are_what_the_engines_say() {
    let Some(folder) = weir_tests::shared_data("aibrix_autoscaling_v100") else { return };
    let data = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let runs = runtime.block_on(async {
        let store = Store::open(data.path().to_str().expect("a plain path")).await.expect("opens");
        let requests = rows(&folder, include_str!("traces/engine_requests.sql")).await;
        let samples = rows(&folder, include_str!("traces/engine_samples.sql")).await;
        append(&store, Request::contract(), 0, &requests).await;
        append(&store, GpuTelemetry::contract(), 0, &samples).await;
        let ctx = weir_sql::open(&store).await.expect("opens");
        of(&weir_sql::query(&ctx, include_str!("traces/engine_comparison.sql")).await.expect("the views run"))
    });
    println!(
        "| run | engines with a log | requests with a duration | in flight by requests / by engines, windows of 10 min |"
    );
    println!("|---|---:|---:|---|");
    for run in &runs {
        let windows: Vec<String> =
            run.windows.iter().map(|(ours, theirs)| format!("{ours:.1} / {theirs:.1}")).collect();
        println!("| {} | {:.0} | {:.1} % | {} |", run.name, run.pods, 100.0 * run.timed, windows.join(", "));
    }
    assert_eq!(runs.len(), 7, "runs of the data set");

    let all: Vec<_> = runs.iter().flat_map(|run| run.windows.iter().copied()).collect();
    println!("correlation over {} windows: {:.3}", all.len(), correlation(&all));
    assert!(all.len() >= 3 * runs.len() && correlation(&all) > 0.9, "{:.3} over {}", correlation(&all), all.len());
}
