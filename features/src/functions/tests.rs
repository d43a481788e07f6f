//! Claims about the functions, through SQL.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::util::display::array_value_to_string;
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
    let shown: Vec<String> =
        (0..12).map(|column| array_value_to_string(batch.column(column), 0).expect("prints")).collect();
    assert_eq!(shown, ["41", "820", "0", "40", "20.0", "20.0", "", "", "41", "41", "0.0", "41"]);
}

/// Each is aggregated over partitions and batches, then by merging the groups of a subquery.
#[tokio::test]
async fn every_summary_is_the_same_in_one_pass_and_in_parts() {
    let functions = [
        ("moments(a)", "moments_merge", "moments_mean(s) || ' ' || moments_variance(s)"),
        ("beta_counts(n % 4 = 0)", "beta_counts_merge", "beta_counts_yes(s) || ' of ' || beta_counts_no(s)"),
        ("fixed_histogram(a, '100,2500')", "fixed_histogram_merge", "fixed_histogram_json(s)"),
        ("decayed_sum(b, n * 1000, 600000)", "decayed_sum_merge", "decayed_sum_at(s, 4000000)"),
        ("distinct_count(CAST(a AS VARCHAR))", "distinct_count_merge", "distinct_count_estimate(s)"),
        ("name_counts(g)", "name_counts_merge", "name_counts_json(s)"),
        ("transition_counts(g, CAST(n % 3 AS VARCHAR))", "transition_counts_merge", "transition_counts_json(s)"),
        ("heavy_hitters(g, CAST(n AS VARCHAR))", "heavy_hitters_merge", "heavy_hitters_json(s, 5)"),
        ("id_sample(CAST(n AS VARCHAR))", "id_sample_merge", "id_sample_json(s)"),
        ("first_last(n, g)", "first_last_merge", "first_last_first(s) || first_last_last_ms(s)"),
    ];
    for (of_values, merge, read) in functions {
        let whole = format!("SELECT {of_values} AS s FROM events");
        let parts =
            format!("SELECT {merge}(p) AS s FROM (SELECT n % 7 AS part, {of_values} AS p FROM events GROUP BY 1)");
        let one = run(&whole).await;
        let bytes = one[0].column(0).as_binary::<i32>().value(0).to_vec();
        let many = run(&parts).await;
        assert_eq!(many[0].column(0).as_binary::<i32>().value(0), bytes, "{of_values}");
        for sql in [whole, parts] {
            let read = run(&format!("SELECT CAST({read} AS VARCHAR) FROM ({sql})")).await;
            assert!(read[0].column(0).is_valid(0), "{read:?}");
        }
    }
}

#[tokio::test]
async fn figures_of_summaries_are_those_of_plain_sql() {
    let pairs = [
        ("moments_mean(moments(a))", "avg(a)"),
        ("round(moments_variance(moments(a)), 3)", "round(var_samp(a), 3)"),
        ("moments_max(moments(a))", "max(a)"),
        ("beta_counts_rate(beta_counts(n % 4 = 0))", "avg(CASE WHEN n % 4 = 0 THEN 1.0 ELSE 0.0 END)"),
        (
            "fixed_histogram_share_below(fixed_histogram(a, '100,2500'), 2500)",
            "CAST(count(*) FILTER (WHERE a < 2500) AS DOUBLE) / count(a)",
        ),
        ("ddsketch_share_to(ddsketch(n), 40)", "CAST(count(*) FILTER (WHERE n <= 40) AS DOUBLE) / count(n)"),
        (
            "joint_histogram_share_to(joint_histogram(n, n) FILTER (WHERE n < 30), 20)",
            "CAST(count(*) FILTER (WHERE n <= 10) AS DOUBLE) / 30",
        ),
        ("dispersion_at(second_counts(n * 250), 1)", "dispersion(second_counts(n * 250))"),
        ("ddsketch_sum(second_counts_by_window(second_counts(n * 250), 1))", "count(n)"),
        ("distinct_count_estimate(distinct_count(CAST(n % 200 AS VARCHAR)))", "count(DISTINCT n % 200)"),
        ("name_counts_of(name_counts(g), 'g1')", "count(*) FILTER (WHERE g = 'g1')"),
        ("first_last_first(first_last(-n, CAST(n AS VARCHAR)))", "CAST(max(n) AS VARCHAR)"),
        ("heavy_hitters_events(heavy_hitters(g, CAST(n AS VARCHAR)))", "count(*)"),
    ];
    for (summary, plain) in pairs {
        let found = run(&format!("SELECT CAST({summary} AS VARCHAR), CAST({plain} AS VARCHAR) FROM events")).await;
        let text = |column: usize| array_value_to_string(found[0].column(column), 0).expect("prints");
        assert_eq!(text(0), text(1), "{summary}");
    }
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
    assert!(fails("SELECT fixed_histogram(n, '3,2') FROM events").await.contains("that rise"));
    assert!(fails("SELECT name_counts(n) FROM events").await.contains("CAST to VARCHAR"));
    assert!(fails("SELECT beta_counts(n) FROM events").await.contains("true or false"));
    assert!(fails("SELECT ddsketch(DISTINCT n), ddsketch(DISTINCT a) FROM events").await.contains("DISTINCT"));
    assert!(fails("SELECT ddsketch_count(X'07ff') FROM events").await.contains("no ddsketch"));
}

/// The cases of `ActionParts`, which takes names to pieces, and names that are none of its form.
#[tokio::test]
async fn an_actions_name_is_taken_to_pieces() {
    let names = "(VALUES ('b;provider=own;reasoning=high'), ('b;reasoning=low'), ('gpt-5'), (';provider=x'), (NULL)) AS names(name)";
    let parts = ["model", "provider", "reasoning"].map(|part| format!("action_part(name, '{part}')")).join(", ");
    let found = run(&format!("SELECT {parts} FROM {names}")).await;
    let shown = arrow::util::pretty::pretty_format_batches(&found).unwrap().to_string();
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .skip(3)
        .map(|line| line.split('|').map(str::trim).collect())
        .filter(|row: &Vec<&str>| row.len() == 5)
        .collect();
    let row = |model, provider, reasoning| vec!["", model, provider, reasoning, ""];
    assert_eq!(
        rows,
        [
            row("b", "own", "high"),
            row("b", "", "low"),
            row("gpt-5", "", ""),
            row(";provider=x", "", ""),
            row("", "", "")
        ]
    );
    let plain = run("SELECT action_part(name, 'model') AS model FROM (VALUES ('a'), (NULL)) AS names(name)").await;
    assert_eq!(plain[0].column(0).null_count(), 1);
    assert!(fails("SELECT action_part('a', 'size')").await.contains("'model', 'provider' or 'reasoning'"));
}
