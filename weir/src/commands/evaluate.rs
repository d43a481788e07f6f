//! `weir evaluate`: a bundle on logged traffic, or the learner on a score matrix whose oracle is known.

use std::path::Path;

use serde::Serialize;
use weir_learners::matrix::{
    CascadeConfig, CascadeReport, CoverageConfig, Matrix, MatrixConfig, MatrixReport, NestedConfig, PAIRS_FILE,
    PairsReport, cascade_experiment, judge_policy, load_llmrouter, load_llmrouter_nq, load_matrix_sets, load_pairs,
    matrices_to_markdown, matrix_experiment, matrix_folders, nested_experiment, pairs_experiment,
};
use weir_learners::ope::{EvaluationConfig, IntervalKind, Verdict};
use weir_learners::sessions::{CutBack, SessionExperimentConfig, SimulatorConfig, session_experiment};
use weir_learners::{ActionPart, JudgeOptions, Outcome, PartJudged, Report, WEIGHT_MAX, Wanted, part_interval};
use weir_policy_publisher::Registry;
use weir_policy_runtime::{Bundle, Policy, REPORT_JSON_FILE};
use weir_traffic::matrix::Split;

use super::{configuration, existing_store, print_json};
use crate::cli::{Common, EvaluateArgs};
use crate::config::Config;
use crate::error::{Failure, Result};
use crate::progress::Progress;
use crate::training::InForce;
use crate::{energy, outcome, services, training};

/// A file that only the LLMRouter matrix has.
const LLMROUTER_FILE: &str = "nq_queries.parquet";

/// Seeds of a coverage study, where nobody says.
const COVERAGE_SEEDS: u64 = 200;

/// Runs the evaluation that was asked for.
pub async fn run(common: &Common, args: EvaluateArgs) -> Result<()> {
    nothing_is_ignored(&args)?;
    if let Some(file) = &args.rounds {
        return rounds(common, file, &args).await;
    }
    if args.session_simulator {
        return session_simulator(common, args.seed, args.cut_back);
    }
    if let Some(folder) = &args.matrices {
        return matrices(common, folder, args.encoder.as_deref(), args.seed).await;
    }
    match (&args.matrix, &args.bundle) {
        (Some(folder), None) if args.cascade => cascades(common, folder, args.seed).await,
        (Some(folder), None) => matrix(common, folder, &args).await,
        (Some(folder), Some(bundle)) => bundle_on_matrix(common, folder, bundle, args.seed).await,
        (None, Some(bundle)) => logged(common, bundle, &args).await,
        (None, None) => Err(Failure::user(
            "name a bundle folder or policy id to evaluate, a score matrix with --matrix DIR, all of them with --matrices DIR, logged \
             decisions with --rounds FILE, or --session-simulator",
        )),
    }
}

/// Refuses an option of another kind of evaluation. The parser does not, where the option that it belongs to cannot be given.
fn nothing_is_ignored(args: &EvaluateArgs) -> Result<()> {
    let (rounds, matrix) = (args.rounds.is_some(), args.matrix.is_some());
    let belongs = [
        ("--encoder", args.encoder.is_some(), "--matrices", args.matrices.is_some()),
        ("--cascade", args.cascade, "--matrix", matrix),
        ("--cut-back", args.cut_back, "--session-simulator", args.session_simulator),
        ("--reward-range", args.reward_range.is_some(), "--rounds", rounds),
        ("--weight-max", args.weight_max.is_some(), "--rounds", rounds),
        ("--bootstraps", args.bootstraps.is_some(), "--rounds", rounds),
        ("--confidence", args.confidence.is_some(), "--rounds", rounds),
        ("--coverage-seeds", args.coverage_seeds.is_some(), "--matrix", matrix),
    ];
    match belongs.iter().find(|(_, given, _, its)| *given && !its) {
        None => Ok(()),
        Some((option, _, owner, _)) => Err(Failure::user(format!("{option} goes with {owner} only: leave it out"))),
    }
}

/// Session policies where the truth is known.
fn session_simulator(common: &Common, seed: u64, cut_back: bool) -> Result<()> {
    let simulator =
        SimulatorConfig { cut_back: cut_back.then(CutBack::default), ..SessionExperimentConfig::default().simulator };
    let config = SessionExperimentConfig { seed, simulator, ..SessionExperimentConfig::default() };
    let progress = Progress::wait("learning from simulated sessions", common.json);
    let report = session_experiment(&config)?;
    drop(progress);
    if common.json {
        return print_json(&report);
    }
    print!("{}", report.to_markdown());
    Ok(())
}

/// Decisions that another system logged, beside what a target policy would have done.
async fn rounds(common: &Common, file: &Path, args: &EvaluateArgs) -> Result<()> {
    let reward_range = match args.reward_range.as_deref() {
        None => None,
        Some(&[low, high]) if low < high && low.is_finite() && high.is_finite() => Some((low, high)),
        Some(_) => return Err(Failure::user("--reward-range takes the least and the largest reward, such as 0,1")),
    };
    if args.weight_max.is_some_and(|weight| !(1.0..=WEIGHT_MAX).contains(&weight)) {
        return Err(Failure::user(format!(
            "--weight-max takes a number from 1 to {WEIGHT_MAX}: 1 over the least logged probability"
        )));
    }
    let mut evaluation = EvaluationConfig { seed: args.seed, ..EvaluationConfig::default() };
    if let Some(confidence) = args.confidence {
        if !(0.5..1.0).contains(&confidence) {
            return Err(Failure::user(format!("--confidence {confidence}: give a share from 0.5 to below 1")));
        }
        evaluation.confidence = confidence;
    }
    if let Some(bootstraps) = args.bootstraps {
        evaluation.interval = IntervalKind::ClusterBootstrap;
        evaluation.bootstraps = bootstraps as usize;
    }
    let rounds = weir_learners::read_rounds(file).await?;
    let options = JudgeOptions { evaluation, reward_range, weight_max: args.weight_max, ..JudgeOptions::default() };
    let judged = weir_learners::judge_rounds(&rounds, &options)?;
    if common.json {
        return print_json(&judged);
    }
    print!("{}", judged.to_text());
    Ok(())
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
    is_matrix(folder)?;
    let bundle = find(&configuration(common)?, named).await?;
    if !training::trained_on_tag(&bundle.manifest.lineage, "split", Split::Train.name()) {
        return Err(Failure::user(
            "this policy was not trained on a matrix's training queries alone (lineage.data.tag is not split=train), so the \
             others would be no exam; train it with `weir learn policy --tag split=train`",
        ));
    }
    let policy = Policy::load(&bundle).map_err(Failure::user)?;
    let matrix = part_of(folder, &policy).await?;
    let config = MatrixConfig { seed, coverage: None, ..MatrixConfig::default() };
    let report = judge_policy(&matrix, &policy, |query| Split::of_text(&query.text) == Split::Train, &config)?;
    if common.json {
        return print_json(&report);
    }
    println!("{}", report.to_markdown());
    Ok(())
}

/// The part of the matrix whose models the policy knows; each part has models of its own.
async fn part_of(folder: &Path, policy: &Policy) -> Result<Matrix> {
    let knows = |matrix: &Matrix| {
        matrix.models.iter().all(|model| policy.actions().iter().any(|action| action.model == model.model))
    };
    let main = load_llmrouter(folder).await;
    if main.as_ref().is_ok_and(knows) {
        return Ok(main?);
    }
    let questions = load_llmrouter_nq(folder).await;
    if questions.as_ref().is_ok_and(knows) {
        return Ok(questions?);
    }
    // A part that cannot be read may be the one that was meant.
    main?;
    questions?;
    let names: Vec<&str> = policy.actions().iter().map(|action| action.model.as_str()).collect();
    Err(Failure::user(format!(
        "no part of the score matrix in {} is about this policy's models, which are {}",
        folder.display(),
        names.join(", ")
    )))
}

/// The outcome that a bundle's own report judged it by.
fn judged_by(bundle: &Bundle) -> Option<Outcome> {
    let report = bundle.files.get(REPORT_JSON_FILE)?;
    serde_json::from_slice::<Report>(report).ok()?.outcome
}

async fn logged(common: &Common, named: &str, args: &EvaluateArgs) -> Result<()> {
    let config = configuration(common)?;
    let store = existing_store(&config).await?;
    let bundle = find(&config, named).await?;
    let policy = Policy::load(&bundle).map_err(Failure::user)?;
    if policy.spec().per_turn {
        return Err(Failure::user(
            "this policy decides turn by turn of whole sessions, which single requests cannot judge: its report (report.md in the bundle) has \
             what held-out sessions say; `weir learn sessions` makes a new one",
        ));
    }
    // Without an operator's file a policy is judged by what it was trained for.
    let outcome = match config.objective.outcome {
        Some(_) => outcome::of(&config)?.outcome,
        None => judged_by(&bundle).unwrap_or_else(|| policy.spec().objective.into()),
    };
    let wanted = Wanted {
        tag: None,
        risk: outcome.looks_at_risk(),
        settled_share: args.settled_share,
        action_parts: ActionPart::of_actions(policy.actions()),
    };
    let mut set = weir_learners::training_set_of(&store, &wanted).await?;
    if args.estimate_propensities {
        weir_learners::estimate_propensities(&mut set);
    }
    energy::fill(&mut set, &config.energy)?;
    let holdout_share = training::holdout_share(&bundle.manifest.lineage)?;
    let registry = Registry::open(&store, services::trust(&config)?).await?;
    let in_force = InForce::of(&registry, Some(&bundle.id), &ActionPart::of_actions(policy.actions())).await?;
    let evaluation = EvaluationConfig { seed: args.seed, ..EvaluationConfig::default() };
    let in_force = in_force.as_ref().map(InForce::as_learners_see_it);
    let lineup = weir_learners::evaluate_policy(&set, &policy, in_force, &outcome, &evaluation, Some(holdout_share))?;
    if common.json {
        return print_json(&serde_json::json!({ "policy_id": bundle.id, "report": lineup }));
    }
    println!("policy {}: {}", bundle.id, lineup.verdict());
    let held = lineup.in_force.as_ref();
    let rows = std::iter::once(("candidate", &lineup.candidate))
        .chain(held.map(|held| ("policy in force", &held.evaluation)))
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
    if let Some(difference) = held.and_then(|held| held.difference) {
        println!(
            "difference to the policy in force {:+.4} ({:+.4} to {:+.4})",
            difference.value, difference.low, difference.high
        );
    }
    if let Some(quality) = lineup.quality_at_any_time {
        println!(
            "quality a session, difference to logging {:+.4} ({:+.4} to {:+.4}) at every moment of the logs together",
            quality.value, quality.low, quality.high
        );
    }
    for PartJudged { part, value, difference, .. } in &lineup.parts {
        if let Some((value, difference)) = value.as_ref().zip(difference.as_ref()) {
            let (value, difference) = (part_interval(*part, value), part_interval(*part, difference));
            println!("  {:<24} value {value}, difference to logging {difference}", part.in_words());
        }
    }
    for rail in lineup.parts.iter().filter_map(PartJudged::guardrail_sentence) {
        println!("guardrail: {rail}");
    }
    println!("{}", lineup.data.sentence());
    lineup.data.notes().iter().for_each(|note| println!("{note}"));
    Ok(())
}

/// A weak and a strong model on the same queries.
async fn pairs(common: &Common, folder: &Path, seed: u64) -> Result<()> {
    let config = MatrixConfig { seed, passes: 2, coverage: None, ..MatrixConfig::default() };
    let progress = Progress::wait("learning and judging on pairs of scores", common.json);
    let mut reports = Vec::new();
    for matrix in load_pairs(folder).await? {
        reports.push(pairs_experiment(&matrix, &config)?);
    }
    drop(progress);
    print_reports(common, &reports, PairsReport::to_markdown)
}

/// Price of a call to RouteLLM's two models, USD per million tokens (arXiv 2406.18665): its matrices have no costs of their own.
const ROUTELLM_USD: (f64, f64) = (0.24, 24.7);

/// Cascades on the matrices of a folder.
async fn cascades(common: &Common, folder: &Path, seed: u64) -> Result<()> {
    is_matrix(folder)?;
    let progress = Progress::wait("learning and judging cascades on the score matrix", common.json);
    let mut config = CascadeConfig { seed, ..CascadeConfig::default() };
    let matrices = if folder.join(PAIRS_FILE).is_file() {
        let (cheap, strong) = ROUTELLM_USD;
        let note = format!("{cheap} USD per million tokens of a weak and {strong} of a strong call, of equal lengths");
        config.call_usd = Some((cheap, strong, note));
        load_pairs(folder).await?
    } else {
        vec![load_llmrouter(folder).await?, load_llmrouter_nq(folder).await?]
    };
    let reports = matrices.iter().map(|matrix| cascade_experiment(matrix, &config));
    let reports = reports.collect::<weir_learners::Result<Vec<_>>>()?;
    drop(progress);
    print_reports(common, &reports, CascadeReport::to_markdown)
}

/// Every known score matrix in a folder.
async fn matrices(common: &Common, folder: &Path, encoder: Option<&str>, seed: u64) -> Result<()> {
    let folders = matrix_folders(folder);
    if folders.is_empty() {
        return Err(Failure::user(format!(
            "there is no folder of a known score matrix in {}; it should hold such as routing_llmrouter or routing_routellm",
            folder.display()
        )));
    }
    let progress = Progress::wait("learning and judging on the score matrices", common.json);
    let config = NestedConfig { seed, ..NestedConfig::default() };
    let mut reports = Vec::new();
    for folder in folders {
        for mut set in load_matrix_sets(&folder).await? {
            if let Some(command) = encoder {
                set.matrix = set.matrix.encoded_by(command)?;
            }
            reports.push(nested_experiment(&set, &config)?);
        }
    }
    drop(progress);
    if common.json {
        return print_json(&reports);
    }
    print!("{}", matrices_to_markdown(&reports));
    Ok(())
}

fn is_matrix(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    Err(Failure::user(format!("there is no score matrix at {}", folder.display())))
}

async fn matrix(common: &Common, folder: &Path, args: &EvaluateArgs) -> Result<()> {
    is_matrix(folder)?;
    if folder.join(PAIRS_FILE).is_file() {
        return pairs(common, folder, args.seed).await;
    }
    let beside = folder.parent().unwrap_or(Path::new("."));
    if !folder.join(LLMROUTER_FILE).is_file() && matrix_folders(beside).iter().any(|known| known == folder) {
        return Err(Failure::user(format!(
            "this matrix is judged by nested cross-validation, with all that lie beside it: `weir evaluate --matrices {}`",
            beside.display()
        )));
    }
    let coverage_seeds = args.coverage_seeds.unwrap_or(COVERAGE_SEEDS);
    let coverage = (coverage_seeds > 0).then(|| CoverageConfig { seeds: coverage_seeds, ..CoverageConfig::default() });
    let main = MatrixConfig { seed: args.seed, coverage, ..MatrixConfig::default() };
    let nq = MatrixConfig { coverage: None, ..main.clone() };
    let progress = Progress::wait("learning and judging on the score matrix", common.json);
    let reports = [
        matrix_experiment(&load_llmrouter(folder).await?, &main)?,
        matrix_experiment(&load_llmrouter_nq(folder).await?, &nq)?,
    ];
    drop(progress);
    print_reports(common, &reports, MatrixReport::to_markdown)
}

fn print_reports<R: Serialize>(common: &Common, reports: &[R], to_markdown: impl Fn(&R) -> String) -> Result<()> {
    if common.json {
        return print_json(&reports);
    }
    reports.iter().for_each(|report| println!("{}", to_markdown(report)));
    Ok(())
}
