//! Routing by reputation on public score matrices, beside the best single model, each subject's best by its raw rate, and an
//! oracle; learned from logged verdicts of one model a query, tried on queries that were held out.

use std::path::Path;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::prelude::{ParquetReadOptions, SessionContext};

struct Matrix {
    name: &'static str,
    folder: &'static str,
    files: &'static [&'static str],
    /// Gives query_id, domain, model and score.
    scores: &'static str,
}

const MATRICES: [Matrix; 3] = [
    Matrix {
        name: "RouteLLM, MMLU and GSM8K: 2 models, 58 subjects",
        folder: "routing_routellm",
        files: &["pairs"],
        scores: "SELECT query_id, coalesce(subject, benchmark) AS domain, weak_model AS model, weak_score AS score FROM pairs \
            UNION ALL SELECT query_id, coalesce(subject, benchmark), strong_model, strong_score FROM pairs",
    },
    Matrix {
        name: "LLMRouter: 9 models, 14 tasks",
        folder: "routing_llmrouter",
        files: &["queries", "scores"],
        scores: "SELECT scores.query_id, task AS domain, model, score FROM scores JOIN queries ON queries.query_id = scores.query_id",
    },
    Matrix {
        name: "SWE-bench agents: 24 models, 12 repositories",
        folder: "routing_swebench_agents_nc",
        files: &["runs"],
        scores: "SELECT query_id, repo AS domain, model, score FROM runs",
    },
];

/// Draws of which model each query was sent to.
const SEEDS: u32 = 10;

/// Means over the seeds of the columns of the query.
async fn played(matrix: &Matrix, folder: &Path, share: f64) -> Vec<f64> {
    let ctx = SessionContext::new();
    weir_features::register_functions(&ctx);
    for name in matrix.files {
        let file = folder.join(format!("{name}.parquet"));
        let file = file.to_str().expect("a plain path");
        ctx.register_parquet(*name, file, ParquetReadOptions::default()).await.expect("the data set opens");
    }
    let mut sums: Vec<f64> = Vec::new();
    for seed in 0..SEEDS {
        let sql = include_str!("traces/reputation_routing.sql")
            .replace("{scores}", matrix.scores)
            .replace("{seed}", &seed.to_string())
            .replace("{share}", &share.to_string());
        let row = ctx.sql(&sql).await.expect("plans").collect().await.expect("runs").remove(0);
        let figure = |column: &ArrayRef| {
            let column = arrow::compute::cast(column, &DataType::Float64).expect("a number");
            column.as_primitive::<Float64Type>().value(0)
        };
        sums.resize(row.num_columns(), 0.0);
        sums.iter_mut().zip(row.columns().iter().map(figure)).for_each(|(sum, figure)| *sum += figure);
    }
    sums.into_iter().map(|sum| sum / f64::from(SEEDS)).collect()
}

#[test]
fn routing_by_reputation_keeps_to_the_best_model_until_a_subject_shows_another() {
    let Some(data) = weir_tests::shared("data") else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    for matrix in &MATRICES {
        println!("\n{}\n", matrix.name);
        println!(
            "| verdicts | by reputation | best of each subject, raw | best single | at random | oracle | captured |"
        );
        println!("|---:|---:|---:|---:|---:|---:|---:|");
        for share in [0.02, 0.1, 0.5, 1.0] {
            let figures = runtime.block_on(played(matrix, &data.join(matrix.folder), share));
            let [reputation, domain, single, random, oracle, _, _, seen] = figures[..] else { panic!("{figures:?}") };
            let captured = |value: f64| 100.0 * (value - random) / (oracle - random);
            println!(
                "| {seen:.0} | {reputation:.4} | {domain:.4} | {single:.4} | {random:.4} | {oracle:.4} | {:.1} %, {:.1} %, {:.1} % |",
                captured(reputation),
                captured(domain),
                captured(single)
            );
            // Models of a subject that lean on others are never chosen by a few lucky verdicts for long. Tolerance: with
            // hardly a verdict a model, who is chosen is chance.
            let few = matrix.folder.contains("swebench") && share < 0.5;
            assert!(few || reputation > domain - 0.01, "{}: {figures:?}", matrix.name);
            assert!(reputation > random && reputation < oracle, "{}: {figures:?}", matrix.name);
            // With all verdicts and few models, subjects are told apart.
            assert!(
                share < 1.0 || matrix.folder.contains("swebench") || reputation > single,
                "{}: {figures:?}",
                matrix.name
            );
        }
    }
}
