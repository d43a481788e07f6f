//! Claims about the functions, through SQL.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::register;
use crate::summary::{DdSketch, JointHistogram, SecondCounts, Summary};

const ROWS: i64 = 4_000;

/// Figures of row `n`; the group's name is `g0` or `g1`.
fn row(n: i64) -> (i64, i64) {
    (n * 7919 % 5_000, n * 104_729 % 700)
}

/// `events(g, n, a, b)` in ten batches over four partitions, so that partial states are merged.
fn context() -> SessionContext {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(4).with_batch_size(100));
    register(&ctx);
    let batches: Vec<RecordBatch> = (0..10)
        .map(|part| {
            let n: Vec<i64> = (0..ROWS).filter(|n| n % 10 == part).collect();
            let columns: [(&str, ArrayRef); 4] = [
                ("g", Arc::new(StringArray::from_iter_values(n.iter().map(|n| format!("g{}", n % 2))))),
                ("n", Arc::new(Int64Array::from(n.clone()))),
                ("a", Arc::new(n.iter().map(|n| (n % 13 != 0).then_some(row(*n).0)).collect::<Int64Array>())),
                ("b", Arc::new(n.iter().map(|n| Some(row(*n).1)).collect::<Int64Array>())),
            ];
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("fits")
        })
        .collect();
    let parts = batches.chunks(3).map(<[RecordBatch]>::to_vec).collect();
    let table = MemTable::try_new(batches[0].schema(), parts).expect("one schema");
    ctx.register_table("events", Arc::new(table)).expect("a free name");
    ctx
}

async fn run(sql: &str) -> Vec<RecordBatch> {
    context().sql(sql).await.expect("plans").collect().await.expect("runs")
}

async fn fails(sql: &str) -> String {
    let planned = context().sql(sql).await;
    match planned {
        Err(error) => error.to_string(),
        Ok(frame) => frame.collect().await.expect_err("it should not run").to_string(),
    }
}

#[tokio::test]
async fn aggregates_over_partitions_give_the_bytes_of_one_pass() {
    let (mut sketch, mut joint, mut counts) = <(DdSketch, JointHistogram, SecondCounts)>::default();
    for n in (0..ROWS).filter(|n| n % 2 == 1) {
        let (a, b) = row(n);
        if n % 13 != 0 {
            sketch.insert(a.unsigned_abs());
            joint.insert(a.unsigned_abs(), b.unsigned_abs());
        }
        counts.insert(n * 50);
    }
    let direct =
        "SELECT g, ddsketch(a), joint_histogram(a, b), second_counts(n * 50) FROM events GROUP BY g ORDER BY g";
    let twice = "SELECT g, ddsketch_merge(s), joint_histogram_merge(j), second_counts_merge(c) FROM (\
        SELECT g, n % 7 AS part, ddsketch(a) AS s, joint_histogram(a, b) AS j, second_counts(n * 50) AS c \
        FROM events GROUP BY 1, 2) GROUP BY g ORDER BY g";
    for sql in [direct, twice] {
        let batches = run(sql).await;
        let bytes = |column: usize| batches[0].column(column).as_binary::<i32>().value(1).to_vec();
        assert_eq!(bytes(1), sketch.to_bytes(), "{sql}");
        assert_eq!(bytes(2), joint.to_bytes(), "{sql}");
        assert_eq!(bytes(3), counts.to_bytes(), "{sql}");
    }
}

#[tokio::test]
async fn accessors_read_exact_figures_and_pass_null_on() {
    let sql = "SELECT ddsketch_count(s), ddsketch_sum(s), ddsketch_min(s), ddsketch_max(s), ddsketch_mean(s), \
        ddsketch_quantile(s, 0.5), ddsketch_count(e), ddsketch_quantile(e, 0.5), second_counts_count(c), \
        second_counts_span(c), dispersion(c), joint_histogram_count(j) FROM (SELECT ddsketch(n) AS s, \
        ddsketch(n) FILTER (WHERE n < 0) AS e, second_counts(n * 1000) AS c, joint_histogram(n, n) AS j \
        FROM events WHERE n < 41)";
    let batch = &run(sql).await[0];
    // 0..=40: 41 values, sum 820, median 20; one arrival a second has no dispersion.
    let shown: Vec<String> = (0..12)
        .map(|column| arrow::util::display::array_value_to_string(batch.column(column), 0).expect("prints"))
        .collect();
    assert_eq!(shown, ["41", "820", "0", "40", "20.0", "20.0", "", "", "41", "41", "0.0", "41"]);
}

#[tokio::test]
async fn null_and_negative_values_are_skipped() {
    let text =
        run("SELECT ddsketch_count(ddsketch(CASE WHEN n < 5 THEN n - 3 WHEN n < 7 THEN NULL END)) AS n FROM events")
            .await;
    // -3, -2, -1 are no durations; 0 and 1 are.
    assert!(pretty_format_batches(&text).expect("prints").to_string().contains("| 2 |"));
}

#[tokio::test]
async fn wrong_arguments_are_refused_by_name() {
    assert!(fails("SELECT ddsketch(n / 2.0) FROM events").await.contains("whole numbers"));
    assert!(fails("SELECT ddsketch_merge(n) FROM events").await.contains("bytes that ddsketch gives"));
    assert!(fails("SELECT joint_histogram(n) FROM events").await.contains("2 argument(s)"));
    assert!(fails("SELECT ddsketch(DISTINCT n), ddsketch(DISTINCT a) FROM events").await.contains("DISTINCT"));
    assert!(fails("SELECT ddsketch_count(X'07ff') FROM events").await.contains("no ddsketch"));
}
