//! Does the stream's work on an event cost the same after a hundred million events, with a million sessions alive?
//!
//! Raw versions are written as ingest writes them, without Kafka, and summarised one by one: only the summarising is timed.
//! Sessions are of six requests, 1,000 s apart, a million of them at any moment: more than half an hour of traffic, so that
//! all of them are open. At the end, or at ten million events, `sessions` is asked for all of them.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use arrow::json::ReaderBuilder;
use serde_json::{Value, json};
use weir_features::{Summariser, SummariserConfig};
use weir_schemas::Request;
use weir_store::{Store, UtcDay};

use crate::events::event;
use crate::timing::rounded;
use crate::usage::{Mark, rss_now_mib, rss_peak_mib};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Events of a raw version: what ingest commits at once when it lags.
const BATCH: u64 = 100_000;
/// Sessions that are open at any moment.
const LIVE_SESSIONS: u64 = 1_000_000;
const TURNS: u64 = 6;
/// Events after which `sessions` is asked: what one question sorts stays on an ordinary disk.
const ASK_AT: u64 = 10_000_000;
/// 2026-01-01 00:00:00 UTC. A thousand events a second from then.
const START_MS: u64 = 1_767_225_600_000;

/// Writes and summarises so many events; a line for each of 1, 2, 5, 10, ... million.
pub fn run(events: u64) -> Result<()> {
    if events < BATCH || !events.is_multiple_of(BATCH) {
        return Err(format!("give a multiple of {BATCH}").into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(events))
}

async fn measure(events: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(&folder.path().display().to_string()).await?;
    let mut table = store.table(&weir_ingest::raw_table_spec(Request::contract())).await?;
    let mut summariser = Summariser::new(store.clone(), SummariserConfig::default());
    let template = template(table.schema())?;

    println!("{:>12} {:>14} {:>14} {:>9}", "events", "CPU us/event", "wall us/event", "RSS MiB");
    let mut steps: Vec<Value> = Vec::new();
    let (mut cpu_s, mut wall_s, mut since) = (0.0, 0.0, 0);
    let mut asked = None;
    for first in (0..events).step_by(usize::try_from(BATCH)?) {
        table.commit(vec![batch(&template, first)?], Vec::new()).await?;
        let mark = Mark::now();
        let caught_up = summariser.catch_up().await?;
        let used = mark.used();
        if (caught_up.rows_in, caught_up.repeated_rows, caught_up.late_rows) != (BATCH, 0, 0) {
            return Err(format!("of {BATCH} new events, {caught_up:?} was summarised").into());
        }
        (cpu_s, wall_s, since) = (cpu_s + used.cpu_s, wall_s + used.wall_s, since + BATCH);
        let done = first + BATCH;
        if is_step(done) || done == events {
            let (cpu_us, wall_us) = (1e6 * cpu_s / since as f64, 1e6 * wall_s / since as f64);
            println!("{done:>12} {cpu_us:>14.3} {wall_us:>14.3} {:>9.0}", rss_now_mib());
            steps.push(
                json!({ "events": done, "cpu_us_per_event": rounded(cpu_us), "wall_us_per_event": rounded(wall_us),
                "rss_mib": rss_now_mib().round() }),
            );
            (cpu_s, wall_s, since) = (0.0, 0.0, 0);
        }
        if done == ASK_AT.min(events) {
            asked = Some(ask(&store, done).await?);
        }
    }
    let figure = |step: &Value, name: &str| step[name].as_f64().unwrap_or(f64::NAN);
    let (first, last) = (&steps[0], &steps[steps.len() - 1]);
    println!(
        "{}",
        json!({
            "events": events,
            "live_sessions": LIVE_SESSIONS,
            "steps": steps,
            "cpu_ratio_last_to_first": rounded(figure(last, "cpu_us_per_event") / figure(first, "cpu_us_per_event")),
            "sessions_query": asked,
            "optimised": !cfg!(debug_assertions),
        })
    );
    Ok(())
}

/// 1, 2 and 5 of each power of ten, from a million.
fn is_step(events: u64) -> bool {
    (6..12).any(|power| [1, 2, 5].iter().any(|factor| events == factor * 10_u64.pow(power)))
}

/// Every session of the store, and how many are open, by the view that everyone asks.
async fn ask(store: &Store, events: u64) -> Result<Value> {
    let before_mib = rss_now_mib();
    let started = Instant::now();
    let context = weir_sql::open(store).await?;
    let sql =
        "SELECT count(*) AS sessions, count(*) FILTER (WHERE is_open) AS open, sum(requests) AS requests FROM sessions";
    let text = weir_sql::render(&weir_sql::query(&context, sql).await?, weir_sql::Format::Json)?;
    let seconds = started.elapsed().as_secs_f64();
    let answer: Value = serde_json::from_str(&text)?;
    if answer[0]["requests"].as_u64() != Some(events) {
        return Err(format!("the sessions of {events} requests are {answer}").into());
    }
    let of = |name: &str| answer[0][name].clone();
    println!("sessions of {events} requests: {} in {seconds:.1} s", answer[0]);
    Ok(json!({ "requests": events, "sessions": of("sessions"), "open": of("open"), "wall_s": rounded(seconds),
        "rss_before_mib": before_mib.round(), "rss_peak_mib": rss_peak_mib().round() }))
}

/// The first events as rows of the raw table.
fn template(schema: SchemaRef) -> Result<RecordBatch> {
    let mut decoder = ReaderBuilder::new(schema).with_batch_size(usize::try_from(BATCH)?).build_decoder()?;
    for n in 0..BATCH {
        let mut row: Value = serde_json::from_slice(&event(n))?;
        row["event_date"] = "2026-01-01".into();
        row["source_topic"] = "requests".into();
        row["source_partition"] = 0.into();
        row["source_offset"] = n.into();
        decoder.serialize(&[row])?;
    }
    decoder.flush()?.ok_or_else(|| "no rows".into())
}

/// The template with the ids, times and sessions of the events from `first` on.
fn batch(template: &RecordBatch, first: u64) -> Result<RecordBatch> {
    let numbers = first..first + BATCH;
    let at_ms = |n: u64| i64::try_from(START_MS + n).unwrap_or(i64::MAX);
    // Each session has a request in each of six rounds of a million; then others take their place.
    let (round, of_round) = (LIVE_SESSIONS, TURNS * LIVE_SESSIONS);
    let session = |n: u64| format!("session-{}", n / of_round * round + n % round);
    let turn = |n: u64| i32::try_from(n % of_round / round).unwrap_or(0);
    let schema = template.schema();
    let columns = schema.fields().iter().zip(template.columns()).map(|(field, column)| -> ArrayRef {
        match field.name().as_str() {
            "request_id" => Arc::new(StringArray::from_iter_values(numbers.clone().map(|n| format!("req-{n:012x}")))),
            "session_id" => Arc::new(StringArray::from_iter_values(numbers.clone().map(session))),
            "turn" => Arc::new(Int32Array::from_iter_values(numbers.clone().map(turn))),
            "arrival_ms" => Arc::new(Int64Array::from_iter_values(numbers.clone().map(at_ms))),
            "event_date" => {
                Arc::new(StringArray::from_iter_values(numbers.clone().map(|n| UtcDay::of_ms(at_ms(n)).to_string())))
            }
            "source_offset" => {
                Arc::new(Int64Array::from_iter_values(numbers.clone().map(|n| i64::try_from(n).unwrap_or(i64::MAX))))
            }
            _ => Arc::clone(column),
        }
    });
    Ok(RecordBatch::try_new(Arc::clone(&schema), columns.collect())?)
}
