//! What the feature tables cost: ingest of a topic alone, and of the same topic with the tables kept level.

use std::error::Error;
use std::path::Path;

use serde_json::json;
use tokio::sync::watch;
use weir_features::{Summariser, SummariserConfig};
use weir_store::{Keyring, Store};

use crate::ceilings;
use crate::kafka::{PARTITIONS, fill, ingest_config};
use crate::timing::rounded;
use crate::usage::{Mark, Used};

const PARTIAL_TABLES: [&str; 3] = ["workload_minute", "workload_sketch", "token_sketch"];

/// Partial rows must stay far smaller than raw ones: more than this fails the benchmark. A raw event is some 900 bytes as
/// JSON.
const PARTIAL_BYTES_PER_EVENT_BUDGET: f64 = 90.0;

/// One run from an empty store.
struct Measured {
    used: Used,
    partial_bytes: u64,
}

/// Produces, measures, prints.
pub fn run(brokers: &str, messages: u64) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let topic = format!("weir-bench-features-{}", std::process::id());
    let bytes = runtime.block_on(fill(brokers, &topic, PARTITIONS, messages))?;
    // Read once beforehand: the broker has the topic in memory for every run alike.
    let consume = ceilings::consume(brokers, &topic, PARTITIONS, messages)?;
    let once = |summarise| runtime.block_on(measure(brokers, &topic, messages, summarise));
    // Forth and back, so that whatever drifts during the runs falls on both sides.
    let runs = [once(false)?, once(true)?, once(true)?, once(false)?];
    let both = |of: fn(&Used) -> f64, a: usize, b: usize| of(&runs[a].used) + of(&runs[b].used);
    let rate = |seconds: f64| 2.0 * messages as f64 / seconds;
    let (alone, with) = (rate(both(|used| used.cpu_s, 0, 3)), rate(both(|used| used.cpu_s, 1, 2)));
    let partial_bytes_per_event = runs[1].partial_bytes.max(runs[2].partial_bytes) as f64 / messages as f64;
    println!(
        "{}",
        json!({
            "events": messages,
            "bytes_per_event": (bytes as f64 / messages as f64).round(),
            "ingest_events_per_cpu_s": alone.round(),
            "with_features_events_per_cpu_s": with.round(),
            "cost_ratio": rounded(alone / with),
            "ingest_events_per_wall_s": rate(both(|used| used.wall_s, 0, 3)).round(),
            "with_features_events_per_wall_s": rate(both(|used| used.wall_s, 1, 2)).round(),
            "consume_ceiling": consume.round(),
            "partial_bytes_per_event": rounded(partial_bytes_per_event),
            "partial_bytes_per_event_budget": PARTIAL_BYTES_PER_EVENT_BUDGET,
            "optimised": !cfg!(debug_assertions),
        })
    );
    if partial_bytes_per_event > PARTIAL_BYTES_PER_EVENT_BUDGET {
        return Err(format!("partial rows took {partial_bytes_per_event:.1} bytes an event, above their budget").into());
    }
    Ok(())
}

async fn measure(brokers: &str, topic: &str, messages: u64, summarise: bool) -> Result<Measured, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let config = ingest_config(brokers, topic);
    let mark = Mark::now();
    let store = Store::open(&data.display().to_string()).await?;
    let keyring = Keyring::open(folder.path().join("keys"))?;
    let (commits, seen) = watch::channel(0u64);
    let summariser = summarise.then(|| tokio::spawn(keep_level(store.clone(), seen)));
    let (_running, stop) = watch::channel(false);
    let mut rows = 0;
    weir_ingest::run(store, keyring, config, stop, |table, _version, committed| {
        if table == "requests" {
            rows += committed;
            commits.send_modify(|count| *count += 1);
        }
    })
    .await?;
    drop(commits);
    let summarised = match summariser {
        Some(task) => Some(task.await??),
        None => None,
    };
    let used = mark.used();
    if rows != messages || summarised.is_some_and(|rows_in| rows_in != messages) {
        return Err(format!("{messages} messages gave {rows} rows, {summarised:?} of them summarised").into());
    }
    let partial_bytes: u64 = PARTIAL_TABLES.iter().map(|table| parquet_bytes(&data.join("tables").join(table))).sum();
    if (partial_bytes > 0) != summarise {
        return Err(format!("the partial tables hold {partial_bytes} bytes").into());
    }
    Ok(Measured { used, partial_bytes })
}

/// Summarises after every commit, and once more when there will be no other; the raw rows consumed.
async fn keep_level(store: Store, mut commits: watch::Receiver<u64>) -> Result<u64, weir_features::FeaturesError> {
    let mut summariser = Summariser::new(store, SummariserConfig::default());
    let mut rows = 0;
    loop {
        let more = commits.changed().await.is_ok();
        rows += summariser.catch_up().await?.rows_in;
        if !more {
            return Ok(rows);
        }
    }
}

/// Bytes of the Parquet files anywhere below a folder; a table that does not exist has none.
fn parquet_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let bytes = |path: &Path| match path.extension() {
        _ if path.is_dir() => parquet_bytes(path),
        // Checkpoints of the log are Parquet too, but not rows.
        Some(extension) if extension == "parquet" => std::fs::metadata(path).map_or(0, |file| file.len()),
        _ => 0,
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| !path.ends_with("_delta_log"))
        .map(|path| bytes(&path))
        .sum()
}
