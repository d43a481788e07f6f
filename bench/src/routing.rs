//! What a policy learned from bandit logs earns on queries that it has not seen, beside the usual alternatives.
//!
//! The data are a public score matrix; logs show the policy one model's score per decision, as a router's would. The
//! baselines saw every score of the training queries, the oracle those of the test queries too.

use std::error::Error;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use weir_learners::matrix::{MatrixConfig, MatrixReport, load_llmrouter, load_llmrouter_nq, matrix_experiment};

use crate::usage::Mark;

/// Key of the last line, and how the report's name of that policy begins.
const POLICIES: [(&str, &str); 8] = [
    ("ours", "learned policy"),
    ("best_single", "best single model"),
    ("per_domain", "best model per domain, all scores"),
    ("per_domain_same_logs", "best model per domain, same logs"),
    ("knn", "nearest neighbours, all scores"),
    ("k_means", "clusters, all scores"),
    ("matrix_factorisation", "matrix factorisation, all scores"),
    ("oracle", "oracle"),
];

/// Runs the experiment on both parts of the data and prints; without the data it says so.
pub fn run(folder: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let folder = folder.map_or_else(default_folder, Path::to_owned);
    if !folder.is_dir() {
        println!("skipped: no ../shared");
        println!("{}", json!({ "skipped": "no ../shared" }));
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let nine = runtime.block_on(load_llmrouter(&folder))?;
    let questions = runtime.block_on(load_llmrouter_nq(&folder))?;
    let mut line = Map::new();
    // The second part has a twelfth of the queries: each is asked more often.
    for (matrix, passes) in [(nine, 4), (questions, 8)] {
        let config = MatrixConfig { passes, coverage: None, ..MatrixConfig::default() };
        let mark = Mark::now();
        let report = matrix_experiment(&matrix, &config)?;
        let used = mark.used();
        eprintln!("{}", report.to_markdown());
        let mut set = summary(&report)?;
        set.insert("cpu_s".to_owned(), json!(used.cpu_s));
        line.insert(report.matrix.clone(), Value::Object(set));
    }
    line.insert("optimised".to_owned(), json!(!cfg!(debug_assertions)));
    println!("{}", Value::Object(line));
    Ok(())
}

pub fn default_folder() -> PathBuf {
    let shared = std::env::var_os("WEIR_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    shared.join("data/routing_llmrouter")
}

/// Quality with its interval and cost of every policy, at the best single model's price and at half of it.
fn summary(report: &MatrixReport) -> Result<Map<String, Value>, Box<dyn Error>> {
    let mut set = Map::new();
    let mut half_price = Map::new();
    for (key, name) in POLICIES {
        let mut any = false;
        for score in report.scores.iter().filter(|score| score.policy.starts_with(name)) {
            let value = json!({
                "policy": score.policy,
                "quality": score.quality.value,
                "low": score.quality.low,
                "high": score.quality.high,
                "over_best_single": score.quality_over_best_single,
                "cost_share": score.cost_usd.value / report.best_single_usd,
            });
            let full = score.price == "full price";
            any |= full;
            if full { &mut set } else { &mut half_price }.insert(key.to_owned(), value);
        }
        if !any {
            return Err(format!("the report on {} has no {name}", report.matrix).into());
        }
    }
    let areas = report.areas.iter().map(|area| (area.policy.clone(), json!(area.aiq)));
    set.insert("aiq".to_owned(), Value::Object(areas.collect()));
    set.insert("half_price".to_owned(), Value::Object(half_price));
    set.insert("confidence".to_owned(), json!(report.config.confidence));
    set.insert("logged_decisions".to_owned(), json!(report.logged_decisions));
    set.insert("test_queries".to_owned(), json!(report.test_queries));
    Ok(set)
}
