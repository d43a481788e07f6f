//! Estimates of outcome memory beside worlds whose truth is known in closed form, over 2,000 seeds each.
//!
//! A seed has models and domains of its own, so that one query answers for all of them.

mod common;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use weir_schemas::{Feedback, Request};
use weir_sql::Context;
use weir_store::Store;

use crate::common::append;

/// 2023-11-14 22:13:20 UTC.
const T0_MS: i64 = 1_700_000_000_000;

const SEEDS: u64 = 2_000;

/// Each test fills much of the memory that the queries of a process share: beside another one it would now and then be refused.
static MEMORY: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Probability that a request fails.
const FAILS: f64 = 0.3;

async fn stored(folder: &Path, requests: &[Value], opinions: &[Value]) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    for (version, rows) in requests.chunks(50_000).enumerate() {
        append(&store, Request::contract(), version as i64 * 50_000, rows).await;
    }
    for (version, rows) in opinions.chunks(50_000).enumerate() {
        append(&store, Feedback::contract(), version as i64 * 50_000, rows).await;
    }
    weir_sql::open(&store).await.expect("the session opens")
}

async fn query(ctx: &Context, sql: &str) -> Vec<RecordBatch> {
    weir_sql::query(ctx, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Columns of numbers, a vector a row; rows in which one is missing are left out.
fn numbers(batches: &[RecordBatch]) -> Vec<Vec<f64>> {
    let rows = |batch: &RecordBatch| -> Vec<Vec<f64>> {
        let columns: Vec<_> = batch.columns().iter().map(|column| column.as_primitive::<Float64Type>()).collect();
        let whole = (0..batch.num_rows()).filter(|row| columns.iter().all(|column| column.is_valid(*row)));
        whole.map(|row| columns.iter().map(|column| column.value(row)).collect()).collect()
    };
    batches.iter().flat_map(rows).collect()
}

struct Coverage {
    held: f64,
    width: f64,
    estimate: f64,
    rows: usize,
}

/// How often `truth` lies between the second and the third column; the first is the estimate.
fn coverage(rows: &[Vec<f64>], truth: impl Fn(&[f64]) -> f64) -> Coverage {
    let mean = |of: &dyn Fn(&Vec<f64>) -> f64| rows.iter().map(of).sum::<f64>() / rows.len() as f64;
    Coverage {
        held: mean(&|row| f64::from((row[1]..=row[2]).contains(&truth(row)))),
        width: mean(&|row| row[2] - row[1]),
        estimate: mean(&|row| row[0]),
        rows: rows.len(),
    }
}

fn request(seed: u64, session: u64, turn: i64, model: &str, is_failed: bool) -> Value {
    json!({ "request_id": format!("{seed} {session} {turn}"), "session_id": format!("{seed} {session}"), "turn": turn,
        "arrival_ms": T0_MS + 10_000 * turn, "end_to_end_ms": 1_000.0, "executed_model": format!("{model}{seed}"),
        "domain": format!("{seed}"), "http_status": if is_failed { 500 } else { 200 },
        "prompt_tokens": 100 * (turn + 1), "completion_tokens": 10 })
}

/// Much later, so that all sessions have ended.
fn late() -> Value {
    json!({ "request_id": "late", "session_id": "late", "arrival_ms": T0_MS + 100_000_000, "executed_model": "late" })
}

/// A session goes on until three requests have worked; after a switch of models it takes one that works more. So a switch costs
/// 1 / (1 - FAILS) requests, whenever it is. Routers switch after the first request, mostly when that failed: sessions that
/// switch would have taken longer anyway.
#[test]
fn a_handoff_costs_what_it_costs_and_not_what_led_to_it() {
    let _alone = alone();
    let mut requests = vec![late()];
    for seed in 0..SEEDS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for session in 0..40 {
            let (mut left, mut turn, mut model, mut failed_last) = (3, 0, "a", false);
            while left > 0 {
                if turn == 1 && rng.random_bool(if failed_last { 0.7 } else { 0.2 }) {
                    (model, left) = ("b", left + 1);
                }
                failed_last = rng.random_bool(FAILS);
                requests.push(request(seed, session, turn, model, failed_last));
                left -= i64::from(!failed_last);
                turn += 1;
            }
        }
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let rows = runtime.block_on(async {
        let ctx = stored(folder.path(), &requests, &[]).await;
        let sql = "SELECT extra_requests, extra_requests_low, extra_requests_high, extra_requests_unadjusted \
            FROM handoff_penalties WHERE from_model LIKE 'a%' AND to_model LIKE 'b%'";
        numbers(&query(&ctx, sql).await)
    });
    let truth = 1.0 / (1.0 - FAILS);
    let told = coverage(&rows, |_| truth);
    let unadjusted = rows.iter().map(|row| row[3]).sum::<f64>() / rows.len() as f64;
    println!(
        "hand-offs: {} pairs, truth {truth:.3}, mean estimate {:.3}, unadjusted {unadjusted:.3}, intervals hold {:.1} %, width {:.3}",
        told.rows,
        told.estimate,
        100.0 * told.held,
        told.width
    );
    assert!(told.rows as u64 >= SEEDS * 9 / 10, "{} pairs", told.rows);
    assert!((told.estimate - truth).abs() < 0.05, "{}", told.estimate);
    assert!(unadjusted > truth + 0.1, "{unadjusted}");
    assert!(told.held >= 0.93, "{}", told.held);
}

/// Turns of a session in the second world.
const TURNS: i64 = 4;

/// Probability that a session comes out well that had so many failed requests.
fn good(failed: i64) -> f64 {
    0.9 - 0.3 * failed.min(2) as f64
}

/// The same of a session with so many turns left.
fn worth(left: i64, failed: i64) -> f64 {
    if left == 0 {
        return good(failed);
    }
    FAILS * worth(left - 1, failed + 1) + (1.0 - FAILS) * worth(left - 1, failed)
}

/// Four requests a session, each of which fails by chance; the more did, the worse it ends.
#[test]
fn cutting_back_gains_what_the_earlier_turn_was_worth() {
    let _alone = alone();
    let (mut requests, mut opinions) = (vec![late()], Vec::new());
    for seed in 0..SEEDS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for session in 0..40 {
            let mut failed = 0;
            for turn in 0..TURNS {
                let is_failed = rng.random_bool(FAILS);
                failed += i64::from(is_failed);
                requests.push(request(seed, session, turn, "a", is_failed));
            }
            opinions.push(
                json!({ "feedback_id": format!("{seed} {session}"), "event_ms": T0_MS + 60_000, "source": "agent",
                "kind": "task_success", "session_id": format!("{seed} {session}"),
                "value": if rng.random_bool(good(failed)) { 1.0 } else { 0.0 } }),
            );
        }
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let rows = runtime.block_on(async {
        let ctx = stored(folder.path(), &requests, &opinions).await;
        // One request has failed, the last one: before it, none had.
        let sql = "SELECT gain, gain_low, gain_high, CAST(from_place AS DOUBLE) AS place, extra_tokens FROM cut_back_gains \
            WHERE cut_requests = 1 AND failed_requests = 1 AND failed_last";
        numbers(&query(&ctx, sql).await)
    });
    let truth = |row: &[f64]| worth(TURNS - row[3] as i64 + 1, 0) - worth(TURNS - row[3] as i64, 1);
    let told = coverage(&rows, truth);
    let truths = rows.iter().map(|row| truth(row)).sum::<f64>() / rows.len() as f64;
    println!(
        "cut back: {} situations, mean truth {truths:.3}, mean estimate {:.3}, intervals hold {:.1} %, width {:.3}",
        told.rows,
        told.estimate,
        100.0 * told.held,
        told.width
    );
    assert!(told.rows as u64 >= SEEDS, "{} situations", told.rows);
    assert!((told.estimate - truths).abs() < 0.02, "{} {truths}", told.estimate);
    assert!(told.held >= 0.93, "{}", told.held);
    // A turn has 100 tokens of prompt more than the one before, and 10 of an answer: to go back by one is to use them again.
    for row in &rows {
        assert!((row[4] - (100.0 * row[3] + 10.0)).abs() < 1e-6, "{row:?}");
    }
}
