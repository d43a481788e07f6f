//! `weir evaluate`: a bundle on logged traffic, or the learner on a score matrix whose oracle is known.

use std::path::Path;

use weir_learners::matrix::{
    CoverageConfig, MatrixConfig, judge_policy, load_llmrouter, load_llmrouter_nq, matrix_experiment,
};
use weir_learners::ope::{EvaluationConfig, Verdict};
use weir_policy_publisher::Registry;
use weir_policy_runtime::{Bundle, Policy};
use weir_traffic::matrix::Split;

use super::{configuration, existing_store, print_json};
use crate::cli::{Common, EvaluateArgs};
use crate::config::Config;
use crate::error::{Failure, Result};
use crate::{services, training};

/// Runs the evaluation that was asked for.
pub async fn run(common: &Common, args: EvaluateArgs) -> Result<()> {
    match (&args.matrix, &args.bundle) {
        (Some(folder), None) => matrix(common, folder, &args).await,
        (Some(folder), Some(bundle)) => bundle_on_matrix(common, folder, bundle, args.seed).await,
        (None, Some(bundle)) => logged(common, bundle, args.seed).await,
        (None, None) => {
            Err(Failure::user("name a bundle folder or policy id to evaluate, or a score matrix with --matrix DIR"))
        }
    }
}

/// A bundle folder, or a policy of the registry.
async fn find(config: &Config, named: &str) -> Result<Bundle> {
    if Path::new(named).is_dir() {
        return Bundle::read_dir(Path::new(named)).map_err(Failure::user);
    }
    let registry = Registry::open(&existing_store(config).await?, services::trust(config)?).await?;
    let id = registry.resolve(named).await?;
    Ok(registry.bundle(&id).await?.0)
}

/// A policy that was learned from tables, on the queries that `weir replay` marked as its test split.
async fn bundle_on_matrix(common: &Common, folder: &Path, named: &str, seed: u64) -> Result<()> {
    let bundle = find(&configuration(common)?, named).await?;
    let policy = Policy::load(&bundle).map_err(Failure::user)?;
    let matrix = load_llmrouter(folder).await?;
    let config = MatrixConfig { seed, coverage: None, ..MatrixConfig::default() };
    let report = judge_policy(&matrix, &policy, |query| Split::of_text(&query.text) == Split::Train, &config)?;
    if common.json {
        return print_json(&report);
    }
    println!("{}", report.to_markdown());
    Ok(())
}

async fn logged(common: &Common, named: &str, seed: u64) -> Result<()> {
    let config = configuration(common)?;
    let store = existing_store(&config).await?;
    let bundle = find(&config, named).await?;
    let policy = Policy::load(&bundle).map_err(Failure::user)?;
    let mut set = weir_learners::training_set(&store).await?;
    training::keep_unseen(&mut set, &bundle.manifest.lineage)?;
    let evaluation = EvaluationConfig { seed, ..EvaluationConfig::default() };
    let lineup = weir_learners::evaluate_policy(&set, &policy, &evaluation)?;
    if common.json {
        return print_json(&serde_json::json!({ "policy_id": bundle.id, "report": lineup }));
    }
    println!("policy {}: {}", bundle.id, lineup.candidate.verdict.words());
    let rows = std::iter::once(("candidate", &lineup.candidate))
        .chain(lineup.baselines.iter().map(|baseline| (baseline.name.as_str(), &baseline.evaluation)));
    for (name, evaluation) in rows {
        match (&evaluation.estimates, &evaluation.verdict) {
            (Some(found), _) => println!(
                "  {name:<24} value {:.4} ({:.4} to {:.4}), difference to logging {:+.4} ({:+.4} to {:+.4})",
                found.dr.value,
                found.dr.low,
                found.dr.high,
                found.difference.value,
                found.difference.low,
                found.difference.high
            ),
            (None, Verdict::InsufficientSupport { reasons }) => {
                println!("  {name:<24} insufficient support: {}", reasons.join("; "));
            }
            (None, _) => {}
        }
    }
    Ok(())
}

async fn matrix(common: &Common, folder: &Path, args: &EvaluateArgs) -> Result<()> {
    if !folder.is_dir() {
        return Err(Failure::user(format!("there is no score matrix at {}", folder.display())));
    }
    let coverage =
        (args.coverage_seeds > 0).then(|| CoverageConfig { seeds: args.coverage_seeds, ..CoverageConfig::default() });
    let main = MatrixConfig { seed: args.seed, coverage, ..MatrixConfig::default() };
    let nq = MatrixConfig { coverage: None, ..main.clone() };
    let reports = [
        matrix_experiment(&load_llmrouter(folder).await?, &main)?,
        matrix_experiment(&load_llmrouter_nq(folder).await?, &nq)?,
    ];
    if common.json {
        return print_json(&reports);
    }
    for report in &reports {
        println!("{}", report.to_markdown());
    }
    Ok(())
}
