//! Kafka to committed Delta rows, beside the ceilings of the same run.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use weir_ingest::IngestConfig;
use weir_store::{Keyring, Store};

use crate::ceilings;
use crate::kafka::{fill, ingest_config};
use crate::usage::{Mark, Used, rss_peak_mib};

/// Events that the decode and encode ceilings work on: as many as one commit has, so that encoding fills files of the
/// same size. They fit in memory and are passed over several times.
const SAMPLE: u64 = 100_000;

/// Produces, measures, prints.
pub fn run(brokers: &str, messages: u64, partitions: i32) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let topic = format!("weir-bench-{}", std::process::id());
    let bytes = runtime.block_on(fill(brokers, &topic, partitions, messages))?;
    eprintln!("{messages} events of {:.0} B on average in topic {topic}", bytes as f64 / messages as f64);

    let consume = ceilings::consume(brokers, &topic, partitions, messages)?;
    let sample = ceilings::sample(SAMPLE)?;
    let rounds = usize::try_from((messages / SAMPLE).max(1))?;
    let decode = ceilings::decode(&sample.events, rounds)?;
    let decode_own = ceilings::decode_own(&sample.events, rounds)?;
    let encode = ceilings::encode(&sample.batches, rounds)?;
    drop(sample);

    let Alone { rows, cpu_s, wall_s, rss_mib_peak } = in_a_process_of_its_own(brokers, &topic)?;
    if rows != messages {
        return Err(format!("{rows} rows were committed for {messages} messages").into());
    }
    let per_cpu_s = rows as f64 / cpu_s;
    // Three stages one after another on one core can do no better than the sum of their costs.
    let series_ceiling = 1.0 / (1.0 / consume + 1.0 / decode + 1.0 / encode);
    println!(
        "{}",
        json!({
            "events": rows,
            "partitions": partitions,
            "bytes_per_event": (bytes as f64 / messages as f64).round(),
            "events_per_cpu_s": per_cpu_s.round(),
            "events_per_wall_s": (rows as f64 / wall_s).round(),
            "ceiling_share": (per_cpu_s / series_ceiling * 1000.0).round() / 1000.0,
            "consume_ceiling": consume.round(),
            "decode_ceiling": decode.round(),
            "decode_own": decode_own.round(),
            "encode_ceiling": encode.round(),
            "series_ceiling": series_ceiling.round(),
            "rss_mib_peak": rss_mib_peak.round(),
            "optimised": !cfg!(debug_assertions),
        })
    );
    Ok(())
}

/// What a process used that did nothing but ingest: the producer and the ceilings leave memory behind in this one.
#[derive(Serialize, Deserialize)]
pub struct Alone {
    pub rows: u64,
    pub cpu_s: f64,
    pub wall_s: f64,
    pub rss_mib_peak: f64,
}

/// Ingests the topic to its end in a new process.
pub fn in_a_process_of_its_own(brokers: &str, topic: &str) -> Result<Alone, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(std::env::current_exe()?)
        .args(["ingest-alone", brokers, topic])
        .arg(folder.path())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("ingest of topic {topic} failed").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Reads the topic to its end into tables below a folder, and prints what that used.
pub fn alone(brokers: &str, topic: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    let mark = Mark::now();
    let (_running, stop) = watch::channel(false);
    let rows = ingest(folder, ingest_config(brokers, topic), stop)?;
    let Used { cpu_s, wall_s } = mark.used();
    println!("{}", serde_json::to_string(&Alone { rows, cpu_s, wall_s, rss_mib_peak: rss_peak_mib() })?);
    Ok(())
}

/// Ingests into tables below a folder until the configuration or the flag says that it is enough; the request rows.
pub fn ingest(folder: &Path, config: IngestConfig, stop: watch::Receiver<bool>) -> Result<u64, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open(&folder.join("data").display().to_string()).await?;
        let keyring = Keyring::open(folder.join("keys"))?;
        let mut rows = 0;
        weir_ingest::run(store, keyring, config, stop, |table, _version, committed| {
            if table == "requests" {
                rows += committed;
            }
        })
        .await?;
        Ok(rows)
    })
}
