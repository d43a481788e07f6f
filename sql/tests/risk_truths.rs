//! Scores of risk beside a simulated fleet in which it is known which sessions are unsafe.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use serde_json::Value;
use weir_schemas::{Feedback, Request};
use weir_sql::Context;
use weir_store::Store;
use weir_traffic::simulate::{Profile, SafetyConfig, SimConfig, Simulator};
use weir_traffic::{Event, UniformRouter};

use crate::common::append;

async fn stored(folder: &Path, requests: &[Value], opinions: &[Value]) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    append(&store, Request::contract(), 0, requests).await;
    append(&store, Feedback::contract(), 0, opinions).await;
    weir_sql::open(&store).await.expect("the session opens")
}

async fn query(ctx: &Context, sql: &str) -> Vec<RecordBatch> {
    weir_sql::query(ctx, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// What acting on a score of risk catches, and whom it troubles, as told by the reviewed sessions, beside what it does to all
/// sessions of a simulated fleet.
#[test]
fn thresholds_of_risk_do_to_all_what_they_did_to_the_reviewed() {
    let safety = SafetyConfig { unsafe_share: 0.1, review_share: 0.25 };
    let config = SimConfig {
        profile: Profile::Chat,
        requests_per_s: 20.0,
        duration_ms: 2_400_000,
        safety,
        gpu_sample_ms: 1_000_000,
        ..SimConfig::default()
    };
    let mut simulator = Simulator::new(config, Box::new(UniformRouter::new("salt"))).expect("the settings make sense");
    let (mut requests, mut opinions) = (Vec::new(), Vec::new());
    for timed in simulator.by_ref() {
        let row = serde_json::from_slice(&timed.event.to_json()).expect("events are JSON");
        match timed.event {
            Event::Request(_) => requests.push(row),
            Event::Feedback(_) => opinions.push(row),
            Event::Gpu(_) => {}
        }
    }
    let unsafe_sessions: BTreeSet<String> =
        simulator.take_truths().into_iter().filter(|truth| truth.is_unsafe).map(|truth| truth.session_id).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let (scores, thresholds) = runtime.block_on(async {
        let ctx = stored(folder.path(), &requests, &opinions).await;
        let scores = "SELECT session_id, score_fast, score_slow, peak, \
            (peak + persistence + least(categories, 4) / 4.0) / 3 AS parts FROM session_risk";
        let thresholds = "SELECT score, threshold, catch_rate, catch_rate_low, catch_rate_high, \
            false_alarm_rate, false_alarm_rate_low, false_alarm_rate_high, CAST(unsafe + safe AS DOUBLE) FROM risk_thresholds";
        (query(&ctx, scores).await, query(&ctx, thresholds).await)
    });
    let names = ["score_fast", "score_slow", "peak", "peak, persistence, categories"];
    let mut sessions: Vec<(bool, [f64; 4])> = Vec::new();
    for batch in &scores {
        let id = batch.column(0).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let score = std::array::from_fn(|at| batch.column(at + 1).as_primitive::<Float64Type>().value(row));
            sessions.push((unsafe_sessions.contains(id.value(row)), score));
        }
    }
    let truth = |score: usize, threshold: f64, of_unsafe: bool| {
        let reach = sessions.iter().filter(|(is_unsafe, _)| *is_unsafe == of_unsafe);
        let (of, at) = reach
            .fold((0.0, 0.0), |(of, at), (_, scores)| (of + 1.0, at + f64::from(u8::from(scores[score] >= threshold))));
        at / of
    };
    let (mut rows, mut held, mut width, mut reviewed) = (0, [0, 0], [0.0, 0.0], 0.0);
    for batch in &thresholds {
        let name = batch.column(0).as_string::<i32>();
        let of = |column: usize, row: usize| batch.column(column).as_primitive::<Float64Type>().value(row);
        for row in 0..batch.num_rows() {
            let score = names.iter().position(|known| *known == name.value(row)).expect("a score that is known");
            rows += 1;
            reviewed = of(8, row);
            for (at, of_unsafe) in [true, false].into_iter().enumerate() {
                let (low, high) = (of(3 + 3 * at, row), of(4 + 3 * at, row));
                held[at] += i32::from((low..=high).contains(&truth(score, of(1, row), of_unsafe)));
                width[at] += high - low;
            }
        }
    }
    println!(
        "risk: {} sessions, {reviewed} reviewed, {rows} thresholds; intervals hold the catch rate of all at {}, mean width {:.3}, and the rate of false alarms at {}, {:.3}",
        sessions.len(),
        held[0],
        width[0] / f64::from(rows),
        held[1],
        width[1] / f64::from(rows)
    );
    assert!(rows > 50, "{rows} thresholds");
    // Thresholds of one score share their sessions, so they miss together.
    assert!(held.iter().all(|held| f64::from(*held) >= 0.85 * f64::from(rows)), "{held:?} of {rows}");
}
