//! Many small commits to one raw table, as ingest makes them: does the ten-thousandth cost what the first did?
//!
//! Two runs of the same commits, one after the other: with upkeep beside them (checkpoints, merging of days that are over),
//! and with checkpoints only, so that the table's files pile up. Latency is what the writer waits: encoding the rows,
//! writing the files, landing the log entry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use serde_json::{Value, json};
use tokio::sync::watch;
use weir_schemas::Request;
use weir_store::{Advance, Store, Table, Upkeep, UtcDay};

use crate::usage::rss_now_mib;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Commits in one row of the table that is printed.
const STEP: usize = 1_000;
/// Rows of a commit: a commit interval of 0.1 s at 1 000 events/s.
const ROWS: usize = 100;
/// Kafka partitions whose positions each commit moves.
const PARTITIONS: i64 = 4;
/// Commits to a day: the run goes through many days, as months of ingest would.
const COMMITS_A_DAY: usize = 250;
/// Between two rounds of upkeep.
const ROUND_EVERY: Duration = Duration::from_secs(2);

/// Makes so many commits, twice, and prints a row for every thousand.
pub fn run(commits: usize) -> Result<()> {
    if commits < 2 * STEP || !commits.is_multiple_of(STEP) {
        return Err(format!("give a multiple of {STEP}, from {}", 2 * STEP).into());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let kept_up = runtime.block_on(measure(commits, true))?;
    let left_alone = runtime.block_on(measure(commits, false))?;
    println!("{}", json!({ "commits": commits, "rows": ROWS, "kept_up": kept_up, "left_alone": left_alone }));
    Ok(())
}

struct Step {
    p50_ms: f64,
    p99_ms: f64,
    rss_mib: f64,
}

async fn measure(commits: usize, keep_up: bool) -> Result<Value> {
    println!("\n{}", if keep_up { "with upkeep beside the commits" } else { "with checkpoints only" });
    println!("{:>8} {:>9} {:>9} {:>9} {:>7}", "commits", "p50 ms", "p99 ms", "RSS MiB", "files");
    let folder = tempfile::tempdir()?;
    let store = Store::open(&folder.path().display().to_string()).await?;
    let mut table = store.table(&weir_ingest::raw_table_spec(Request::contract())).await?;
    let (stop, stopped) = watch::channel(false);
    let upkeep = keep_up.then(|| tokio::spawn(upkeep_beside(store.clone(), table.name().to_owned(), stopped)));

    let (mut steps, mut latencies_ms) = (Vec::new(), Vec::with_capacity(STEP));
    for commit in 0..commits {
        let batch = batch(&table.schema(), commit, commits)?;
        let at = i64::try_from(commit)?;
        let advances = (0..PARTITIONS).map(|partition| Advance {
            app_id: format!("bench/requests/{partition}"),
            expected: (commit > 0).then_some(at),
            next: at + 1,
        });
        let started = Instant::now();
        table.commit(vec![batch], advances.collect()).await?;
        latencies_ms.push(started.elapsed().as_secs_f64() * 1_000.0);
        if latencies_ms.len() == STEP {
            latencies_ms.sort_by(f64::total_cmp);
            let step =
                Step { p50_ms: latencies_ms[STEP / 2], p99_ms: latencies_ms[STEP * 99 / 100], rss_mib: rss_now_mib() };
            let files = rows_and_files(&store, &table).await?.1;
            let done = commit + 1;
            println!("{done:>8} {:>9.2} {:>9.2} {:>9.0} {files:>7}", step.p50_ms, step.p99_ms, step.rss_mib);
            steps.push(step);
            latencies_ms.clear();
        }
    }
    stop.send_replace(true);
    let merged_files = match upkeep {
        Some(task) => task.await?.map_err(|error| error.to_string())?,
        None => 0,
    };
    table.maintained().await;

    let (rows, files) = rows_and_files(&store, &table).await?;
    let wrong = i64::try_from(rows)? - i64::try_from(commits * ROWS)?;
    let (first, last) = (&steps[0], &steps[steps.len() - 1]);
    Ok(json!({
        "lost": (-wrong).max(0),
        "doubled": wrong.max(0),
        "files": files,
        "merged_files": merged_files,
        "p50_ms_first": first.p50_ms,
        "p50_ms_last": last.p50_ms,
        "p50_ratio": last.p50_ms / first.p50_ms,
        "p99_ms_first": first.p99_ms,
        "p99_ms_last": last.p99_ms,
        "p99_ratio": last.p99_ms / first.p99_ms,
        "rss_mib_first": first.rss_mib,
        "rss_mib_last": last.rss_mib,
        "rss_ratio": last.rss_mib / first.rss_mib,
    }))
}

/// What `weir run` does beside its ingest, more often. Returns how many files it has merged.
async fn upkeep_beside(
    store: Store,
    name: String,
    mut stop: watch::Receiver<bool>,
) -> std::result::Result<u64, weir_store::StoreError> {
    let upkeep = Upkeep { vacuum: false, ..Upkeep::default() };
    let mut merged = 0;
    while !*stop.borrow_and_update() {
        tokio::select! {
            () = tokio::time::sleep(ROUND_EVERY) => {}
            _ = stop.changed() => {}
        }
        if let Some(mut table) = store.existing(&name).await? {
            // A round that fails is followed by another, as in `weir run`.
            match table.keep_up(&upkeep).await {
                Ok(done) => merged += done.merged_files,
                Err(error) if error.retry_helps() => eprintln!("a round of upkeep failed: {error}"),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(merged)
}

/// Rows and files of the table, by what the log says of each file.
async fn rows_and_files(store: &Store, table: &Table) -> Result<(usize, usize)> {
    let table = store.existing(table.name()).await?.ok_or("the table is gone")?;
    let delta = table.delta().await?;
    let files = delta.snapshot()?.log_data();
    let rows: Option<usize> = files.iter().map(|file| file.num_records()).sum();
    Ok((rows.ok_or("a file without a row count")?, files.num_files()))
}

/// Rows with every required column filled; the days end with today.
fn batch(schema: &SchemaRef, commit: usize, commits: usize) -> Result<RecordBatch> {
    let day = UtcDay::today().minus_days(u32::try_from((commits - 1 - commit) / COMMITS_A_DAY)?);
    let columns = schema.fields().iter().map(|field| -> Result<(String, ArrayRef)> {
        let ids = (0..ROWS).map(|row| (commit * ROWS + row) as i64);
        let column: ArrayRef = match field.data_type() {
            DataType::Utf8 if field.name() == "event_date" => {
                Arc::new(StringArray::from_iter_values(ids.map(|_| day.to_string())))
            }
            DataType::Utf8 => Arc::new(StringArray::from_iter_values(ids.map(|id| format!("{}-{id}", field.name())))),
            DataType::Int64 => Arc::new(Int64Array::from_iter_values(ids)),
            DataType::Int32 => Arc::new(Int32Array::from_iter_values(ids.map(|id| (id % 1_000) as i32))),
            DataType::Float64 => Arc::new(Float64Array::from_iter_values(ids.map(|id| id as f64))),
            DataType::Boolean => Arc::new(BooleanArray::from_iter(ids.map(|id| Some(id % 2 == 0)))),
            other if field.is_nullable() => arrow::array::new_null_array(other, ROWS),
            other => return Err(format!("no value for column {} of type {other}", field.name()).into()),
        };
        Ok((field.name().clone(), column))
    });
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.collect::<Result<Vec<_>>>()?.into_iter().map(|(name, column)| (name, column, true)),
    )?)
}
