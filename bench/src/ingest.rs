//! Kafka to committed Delta rows, beside the ceilings of the same run.

use std::error::Error;

use serde_json::json;
use tokio::sync::watch;
use weir_store::{Keyring, Store};

use crate::ceilings;
use crate::kafka::{PARTITIONS, fill, ingest_config};
use crate::usage::{Mark, rss_peak_mib};

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
    let encode = ceilings::encode(&sample.batches, rounds)?;
    drop(sample);

    let folder = tempfile::tempdir()?;
    let config = ingest_config(brokers, &topic);
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
    let used = mark.used();
    if rows != messages {
        return Err(format!("{rows} rows were committed for {messages} messages").into());
    }
    let per_cpu_s = rows as f64 / used.cpu_s;
    // Three stages one after another on one core can do no better than the sum of their costs.
    let series_ceiling = 1.0 / (1.0 / consume + 1.0 / decode + 1.0 / encode);
    println!(
        "{}",
        json!({
            "events": rows,
            "bytes_per_event": (bytes as f64 / messages as f64).round(),
            "events_per_cpu_s": per_cpu_s.round(),
            "events_per_wall_s": (rows as f64 / used.wall_s).round(),
            "ceiling_share": (per_cpu_s / series_ceiling * 1000.0).round() / 1000.0,
            "consume_ceiling": consume.round(),
            "decode_ceiling": decode.round(),
            "encode_ceiling": encode.round(),
            "series_ceiling": series_ceiling.round(),
            "rss_mib_peak": rss_peak_mib().round(),
            "optimised": !cfg!(debug_assertions),
        })
    );
    Ok(())
}
