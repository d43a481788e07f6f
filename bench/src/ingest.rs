//! Kafka to committed Delta rows, beside the ceilings of the same run.

use std::error::Error;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use weir_store::{Keyring, Store};

use crate::ceilings;
use crate::kafka::{PARTITIONS, fill, ingest_config};
use crate::usage::{Mark, Used, rss_peak_mib};

/// Events that the decode and encode ceilings work on; they fit in memory and are passed over several times.
const SAMPLE: u64 = 32_768;

/// Produces, measures, prints.
pub fn run(brokers: &str, messages: u64) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let topic = format!("weir-bench-{}", std::process::id());
    let bytes = runtime.block_on(fill(brokers, &topic, messages))?;
    eprintln!("{messages} events of {:.0} B on average in topic {topic}", bytes as f64 / messages as f64);

    let consume = ceilings::consume(brokers, &topic, PARTITIONS, messages)?;
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
struct Alone {
    rows: u64,
    cpu_s: f64,
    wall_s: f64,
    rss_mib_peak: f64,
}

fn in_a_process_of_its_own(brokers: &str, topic: &str) -> Result<Alone, Box<dyn Error>> {
    let output = Command::new(std::env::current_exe()?)
        .args(["ingest-alone", brokers, topic])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("ingest of topic {topic} failed").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Reads the topic to its end into tables of a temporary folder, and prints what that used.
pub fn alone(brokers: &str, topic: &str) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let config = ingest_config(brokers, topic);
    let mark = Mark::now();
    let rows = runtime.block_on(async {
        let store = Store::open(&folder.path().join("data").display().to_string()).await?;
        let keyring = Keyring::open(folder.path().join("keys"))?;
        let (_running, stop) = watch::channel(false);
        let mut rows = 0;
        weir_ingest::run(store, keyring, config, stop, |table, _version, committed| {
            if table == "requests" {
                rows += committed;
            }
        })
        .await?;
        Ok::<u64, Box<dyn Error>>(rows)
    })?;
    let Used { cpu_s, wall_s } = mark.used();
    println!("{}", serde_json::to_string(&Alone { rows, cpu_s, wall_s, rss_mib_peak: rss_peak_mib() })?);
    Ok(())
}
