//! How often the rules for boundary declarations are right, on answers that models gave: what they find in public sets was
//! read, and is listed with what it was.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::prelude::{ParquetReadOptions, SessionContext};

/// Sets of answers of models, and the files that hold them.
const SETS: [(&str, &str); 15] = [
    ("hallu_begin", "data"),
    ("hallu_factbench", "data"),
    ("hallu_faithbench_nc", "data"),
    ("hallu_faithdial_audit", "data"),
    ("hallu_halueval", "data"),
    ("hallu_halueval2", "data"),
    ("hallu_haluquestqa", "data"),
    ("hallu_refchecker", "data"),
    ("hallu_summedits", "data"),
    ("hallu_xsum_spans", "data"),
    ("hallu_xsum_tokens", "data"),
    ("hallu_uhgeval_zh", "data"),
    ("routing_llmrouter", "nq_scores"),
    ("routing_routellm", "pairs"),
    ("routing_hhem_summaries", "archive_summaries"),
];

/// What was found in the sets and read: the set, the place of the answer's hash, the rule, and whether a reader agrees that the
/// model declares a boundary.
const READ: &str = include_str!("traces/declarations.tsv");

#[test]
fn what_the_rules_find_in_real_answers_is_what_a_reader_finds() {
    let Some(data) = weir_tests::shared("data") else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let (mut answers, mut found) = (0, BTreeSet::new());
    for (set, file) in SETS {
        let rows = runtime.block_on(async {
            let ctx = SessionContext::new();
            weir_features::register_functions(&ctx);
            let path = data.join(format!("{set}/{file}.parquet"));
            let path = path.to_str().expect("a plain path");
            ctx.register_parquet("answers", path, ParquetReadOptions::default()).await.expect("the set opens");
            let column = match set {
                "routing_routellm" => "strong_response",
                "routing_hhem_summaries" => "summary",
                _ => "response",
            };
            let sql = format!(
                "SELECT found['declaration'] AS rule, CAST(spread(answer, 1000000007) AS VARCHAR) AS hash \
                FROM (SELECT answer, boundary_declaration(answer) AS found \
                    FROM (SELECT DISTINCT CAST({column} AS VARCHAR) AS answer FROM answers WHERE {column} IS NOT NULL))"
            );
            ctx.sql(&sql).await.expect("plans").collect().await.expect("runs")
        });
        for batch in &rows {
            answers += batch.num_rows();
            let text = |name: &str| {
                cast(batch.column_by_name(name).expect("is there"), &DataType::Utf8)
                    .expect("text")
                    .as_string::<i32>()
                    .clone()
            };
            let (rules, hashes) = (text("rule"), text("hash"));
            for row in (0..batch.num_rows()).filter(|row| rules.is_valid(*row)) {
                let finding = [set, hashes.value(row), rules.value(row)].join("\t");
                found.insert(finding);
            }
        }
    }
    let read: BTreeMap<&str, &str> = READ.lines().filter_map(|line| line.rsplit_once('\t')).collect();
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, read.keys().copied().collect::<Vec<_>>(), "what is found is what was read");
    let right = read.values().filter(|right| **right == "yes").count();
    println!("{answers} answers, {} found, of which a reader agrees with {right}", found.len());
    assert!(right * 10 >= found.len() * 8, "{right} of {}", found.len());
}
