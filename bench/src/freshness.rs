//! How long an event takes from the producer to the answer of a query.
//!
//! Events go out at an even rate, each with the time at which it was made; ingest commits once a second in a process of
//! its own; a reader asks in SQL for the rows that it has not seen. A row is visible when the first answer that holds it
//! is complete. Without a rate from outside it is half of what ingest has just been seen to do at most.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use rdkafka::producer::Producer;
use serde_json::json;
use tokio::sync::watch;
use weir_schemas::EventTimeMs;
use weir_store::Store;

use crate::events;
use crate::ingest::{self, in_a_process_of_its_own};
use crate::kafka::{PARTITIONS, create, fill, ingest_config, producer, send};
use crate::timing::nearest_rank;

/// How often ingest commits.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Events that the highest rate is measured on.
const EVENTS_FOR_THE_RATE: u64 = 500_000;
/// Rows of the first moments are not counted: the group forms and the tables are made.
const WARM_UP: Duration = Duration::from_secs(5);
/// Between two queries.
const PAUSE: Duration = Duration::from_millis(100);
/// A reader that has seen nothing new for so long gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Produces, ingests, reads, prints.
pub fn run(brokers: &str, seconds: u64, rate: Option<f64>) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let topic = format!("weir-bench-freshness-{}", std::process::id());
    let highest = match rate {
        Some(_) => None,
        None => Some(runtime.block_on(highest_rate(brokers, &format!("{topic}-rate")))?),
    };
    let Some(rate) = rate.or(highest.map(|highest| highest / 2.0)) else { return Err("no rate".into()) };
    if !rate.is_finite() || rate < 1.0 || Duration::from_secs(seconds) <= WARM_UP {
        return Err(format!("give a rate of at least 1 event/s, and more than {} seconds", WARM_UP.as_secs()).into());
    }
    runtime.block_on(create(brokers, &topic, PARTITIONS))?;

    let folder = tempfile::tempdir()?;
    let ingesting = start_ingest(brokers, &topic, folder.path())?;
    let producing = start_producer(brokers, &topic, rate, seconds);
    let read = runtime.block_on(read(&folder.path().join("data"), producing));
    let ingested = stop_ingest(ingesting)?;
    let Answered { mut delays_ms, rows, mut queries_ms, produced } = read?;
    if produced.events != rows || ingested != rows {
        return Err(format!("{} events gave {ingested} rows, of which {rows} were seen", produced.events).into());
    }
    if delays_ms.is_empty() {
        return Err("no row came after the warm-up".into());
    }
    delays_ms.sort_unstable();
    queries_ms.sort_unstable();
    println!(
        "{}",
        json!({
            "events_per_s": (produced.events as f64 / produced.took.as_secs_f64()).round(),
            "events_per_s_wanted": rate.round(),
            "events_per_s_highest": highest.map(f64::round),
            "commit_interval_ms": COMMIT_INTERVAL.as_millis(),
            "rows": delays_ms.len(),
            "delay_ms_p50": nearest_rank(&delays_ms, 0.5),
            "delay_ms_p99": nearest_rank(&delays_ms, 0.99),
            "delay_ms_max": nearest_rank(&delays_ms, 1.0),
            "queries": queries_ms.len(),
            "query_ms_p50": nearest_rank(&queries_ms, 0.5),
            "optimised": !cfg!(debug_assertions),
        })
    );
    Ok(())
}

/// Rows per second of wall time, with nobody else at work.
async fn highest_rate(brokers: &str, topic: &str) -> Result<f64, Box<dyn Error>> {
    fill(brokers, topic, PARTITIONS, EVENTS_FOR_THE_RATE).await?;
    let alone = in_a_process_of_its_own(brokers, topic)?;
    Ok(alone.rows as f64 / alone.wall_s)
}

/// Ingests, committing once a second, until standard input ends; then prints the rows. [`run`] starts it.
pub fn ingest(brokers: &str, topic: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    let config = weir_ingest::IngestConfig {
        flush_interval: COMMIT_INTERVAL,
        stop_when_drained: false,
        ..ingest_config(brokers, topic)
    };
    let (ended, stop) = watch::channel(false);
    std::thread::spawn(move || {
        // Nothing is ever written there: it ends when our parent wants us to, or is gone.
        std::io::stdin().read_to_end(&mut Vec::new()).ok();
        ended.send_replace(true);
    });
    println!("{}", ingest::ingest(folder, config, stop)?);
    Ok(())
}

fn start_ingest(brokers: &str, topic: &str, folder: &Path) -> Result<Child, Box<dyn Error>> {
    let child = Command::new(std::env::current_exe()?)
        .args(["ingest-until-stopped", brokers, topic])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(child)
}

/// The rows that it committed in all.
fn stop_ingest(mut child: Child) -> Result<u64, Box<dyn Error>> {
    drop(child.stdin.take());
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err("ingest failed".into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

struct Produced {
    events: u64,
    took: Duration,
    /// Rows made before this time, ms since the Unix epoch, are not counted.
    warm_from_ms: i64,
}

/// Sends events at an even rate from a thread of its own.
fn start_producer(brokers: &str, topic: &str, rate: f64, seconds: u64) -> JoinHandle<Result<Produced, String>> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    std::thread::spawn(move || produce(&brokers, &topic, rate, seconds).map_err(|error| error.to_string()))
}

fn produce(brokers: &str, topic: &str, rate: f64, seconds: u64) -> Result<Produced, Box<dyn Error>> {
    let producer = producer(brokers, "5")?;
    let events = (rate * seconds as f64) as u64;
    let start = Instant::now();
    let warm_from_ms = now_ms() + i64::try_from(WARM_UP.as_millis())?;
    let mut sent = 0;
    while sent < events {
        let due = ((start.elapsed().as_secs_f64() * rate) as u64).min(events);
        for n in sent..due {
            send(&producer, topic, n, &events::event_at(n, EventTimeMs(now_ms())))?;
        }
        sent = due;
        producer.poll(Duration::from_millis(1));
    }
    let took = start.elapsed();
    producer.flush(Duration::from_secs(60))?;
    Ok(Produced { events, took, warm_from_ms })
}

struct Answered {
    /// Of rows made after the warm-up, in the order in which they were seen.
    delays_ms: Vec<i64>,
    rows: u64,
    queries_ms: Vec<u128>,
    produced: Produced,
}

/// Queries until everything that was produced has been seen.
async fn read(data: &Path, producing: JoinHandle<Result<Produced, String>>) -> Result<Answered, Box<dyn Error>> {
    let store = Store::open(&data.display().to_string()).await?;
    let mut producing = Some(producing);
    let mut produced = None;
    let mut seen = Seen::default();
    let mut queries_ms = Vec::new();
    let mut last_new = Instant::now();
    loop {
        if let Some(ended) = producing.take_if(|producing| producing.is_finished()) {
            produced = Some(ended.join().map_err(|_| "the producer panicked")??);
        }
        let before = seen.rows();
        let asked = Instant::now();
        let context = weir_sql::open(&store).await?;
        let batches = weir_sql::query(&context, &seen.newer()).await?;
        queries_ms.push(asked.elapsed().as_millis());
        seen.take(&batches, now_ms());
        if seen.rows() > before {
            last_new = Instant::now();
        }
        match produced.take() {
            Some(produced) if seen.rows() >= produced.events => {
                let rows = seen.rows();
                let warm = seen.delays.into_iter().filter(|(made_ms, _)| *made_ms >= produced.warm_from_ms);
                return Ok(Answered { delays_ms: warm.map(|(_, delay)| delay).collect(), rows, queries_ms, produced });
            }
            still => produced = still,
        }
        if last_new.elapsed() > PATIENCE {
            return Err(format!("no new row in {} s; {} were seen", PATIENCE.as_secs(), seen.rows()).into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What the reader has seen.
#[derive(Default)]
struct Seen {
    /// The last offset of each partition. Offsets of a partition become visible in order.
    last: BTreeMap<i32, i64>,
    /// When each row was made, and how long it took to be seen, ms.
    delays: Vec<(i64, i64)>,
}

impl Seen {
    fn rows(&self) -> u64 {
        self.delays.len() as u64
    }

    /// The query for what is new.
    fn newer(&self) -> String {
        let newer = (0..PARTITIONS).map(|partition| {
            let last = self.last.get(&partition).copied().unwrap_or(-1);
            format!("(source_partition = {partition} AND source_offset > {last})")
        });
        include_str!("sql/newer_rows.sql").replace("{newer}", &newer.collect::<Vec<_>>().join(" OR "))
    }

    fn take(&mut self, batches: &[RecordBatch], now_ms: i64) {
        for batch in batches {
            let partitions = batch.column(0).as_primitive::<Int32Type>();
            let offsets = batch.column(1).as_primitive::<Int64Type>();
            let made_ms = batch.column(2).as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let last = self.last.entry(partitions.value(row)).or_insert(-1);
                *last = offsets.value(row).max(*last);
                self.delays.push((made_ms.value(row), now_ms - made_ms.value(row)));
            }
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
