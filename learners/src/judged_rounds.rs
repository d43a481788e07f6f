//! A file of logged decisions, judged: every estimator, intervals for one look and for any number of them, and a verdict.

use std::fmt::Write as _;
use std::path::Path;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionConfig, SessionContext};
use serde::{Deserialize, Serialize};

use crate::error::{LearnError, Result};
use crate::ope::{
    self, ConfidenceSequence, Estimate, EvaluationConfig, Logged, MethodEstimate, Parameters, PseudoOutcome, Rounds,
    SequenceConfig, Support, Verdict, empirical_bernstein,
};
use crate::report::interval;

/// What a file's decisions say of a target policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgedRounds {
    /// Decisions.
    pub rounds: usize,
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What the decisions offer.
    pub support: Support,
    /// What the logging policy earned.
    pub logging: Option<Estimate>,
    /// The target's value minus that, doubly robust; the verdict rests on it. None where support is insufficient.
    pub difference: Option<Estimate>,
    /// What every estimator says of the target's value; empty where support is insufficient.
    pub methods: Vec<MethodEstimate>,
    /// The target's value a cluster and its difference to what was earned, at every moment of the log together. None without a range of
    /// rewards, and where support is insufficient.
    pub at_any_time: Option<[Estimate; 2]>,
    /// The target's value a cluster by empirical Bernstein, for any number of clusters; none without ranges of rewards and weights.
    pub bernstein: Option<Estimate>,
}

/// How to judge.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JudgeOptions {
    /// Intervals and limits.
    pub evaluation: EvaluationConfig,
    /// Parameters of the estimators that have one; what is missing is tuned.
    pub parameters: Parameters,
    /// Least and largest reward that can occur, where they are known.
    pub reward_range: Option<(f64, f64)>,
    /// The largest weight that the logging policy allows, where it is known: one over the least probability that it gives.
    pub weight_max: Option<f64>,
}

/// Reads a `.parquet`, `.csv` or `.jsonl` file of decisions; [`Rounds`] says which columns.
///
/// # Errors
/// [`LearnError::Unreadable`] when it is no such file, [`LearnError::BadRounds`] when its rows cannot be evaluated.
pub async fn read_rounds(path: &Path) -> Result<Rounds> {
    let unreadable = |why: String| LearnError::Unreadable { what: path.display().to_string(), why };
    if !path.is_file() {
        return Err(unreadable("there is no such file".to_owned()));
    }
    // One partition keeps the rows in the order of the file.
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let place = path.to_string_lossy().into_owned();
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    let extension = format!(".{}", path.extension().unwrap_or_default().to_string_lossy());
    let rows = match ending.as_str() {
        "parquet" => session.read_parquet(place, ParquetReadOptions::default().file_extension(&extension)).await,
        "csv" => session.read_csv(place, CsvReadOptions::new().file_extension(&extension)).await,
        "jsonl" | "json" | "ndjson" => {
            session.read_json(place, JsonReadOptions::default().file_extension(&extension)).await
        }
        _ => return Err(unreadable("give a file that ends with .parquet, .csv or .jsonl".to_owned())),
    };
    // The reader says where it was, and below that what was wrong.
    let why = |error: DataFusionError| unreadable(first_line(&error.find_root().to_string()));
    let batches: Vec<RecordBatch> = rows.map_err(why)?.collect().await.map_err(why)?;
    Rounds::from_batches(&batches)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Judges the target policy that the decisions describe.
///
/// # Errors
/// [`LearnError::BadRounds`] when a reward lies outside the range, or a weight above its bound.
pub fn judge_rounds(rounds: &Rounds, options: &JudgeOptions) -> Result<JudgedRounds> {
    let rows = rounds.logged();
    within_ranges(rounds, &rows, options)?;
    let evaluation = ope::evaluate(&rows, &options.evaluation);
    let logging = ope::logging_value(&rows, &options.evaluation);
    let mut judged = JudgedRounds {
        rounds: rows.len(),
        verdict: evaluation.verdict,
        support: evaluation.support,
        logging,
        difference: None,
        methods: Vec::new(),
        at_any_time: None,
        bernstein: None,
    };
    let Some(estimates) = evaluation.estimates else { return Ok(judged) };
    judged.difference = Some(estimates.difference);
    judged.methods = ope::estimate_all(rounds, options.parameters, &options.evaluation);
    if let Some(range) = options.reward_range {
        let sequence = SequenceConfig {
            confidence: options.evaluation.confidence,
            reward_range: range,
            // Without the probabilities of every choice there are no guesses to cut.
            truncation: 0.0,
            ..SequenceConfig::default()
        };
        judged.at_any_time = at_any_time(&rows, &sequence);
        judged.bernstein = options.weight_max.and_then(|weight_max| bernstein(&rows, range, weight_max, options));
    }
    Ok(judged)
}

fn within_ranges(rounds: &Rounds, rows: &[Logged], options: &JudgeOptions) -> Result<()> {
    if let Some((low, high)) = options.reward_range {
        let (least, most) = rounds.reward_range();
        if !(low.is_finite() && high.is_finite() && low < high && low <= least && most <= high) {
            return Err(LearnError::BadRounds(format!(
                "rewards lie between {least} and {most}, outside the range of {low} to {high}: give the range that can occur"
            )));
        }
    }
    if let Some(most) = options.weight_max {
        let weights = rows.iter().map(|row| row.target_probability / row.propensity);
        let largest = weights.fold(0.0, f64::max);
        if !(largest <= most && most.is_finite()) {
            return Err(LearnError::BadRounds(format!(
                "a weight of {largest:.3} lies above the largest one of {most}: give one over the least logged probability"
            )));
        }
    }
    Ok(())
}

/// Decisions of each cluster, in the order in which clusters begin.
fn by_cluster(rows: &[Logged]) -> Vec<Vec<&Logged>> {
    let count = rows.iter().map(|row| row.cluster + 1).max().unwrap_or(0);
    let mut clusters: Vec<Vec<&Logged>> = vec![Vec::new(); count];
    rows.iter().for_each(|row| clusters[row.cluster].push(row));
    clusters.retain(|cluster| !cluster.is_empty());
    clusters
}

fn at_any_time(rows: &[Logged], config: &SequenceConfig) -> Option<[Estimate; 2]> {
    let mut value = ConfidenceSequence::of_value(*config);
    let mut difference = ConfidenceSequence::of_difference(*config);
    for cluster in by_cluster(rows) {
        let weight = |row: &Logged| row.target_probability / row.propensity;
        let target: Vec<PseudoOutcome> =
            cluster.iter().map(|row| PseudoOutcome::without_guesses(weight(row), row.reward, config)).collect();
        let earned: Vec<PseudoOutcome> =
            cluster.iter().map(|row| PseudoOutcome::of_logging(row.reward, config)).collect();
        value.push(&target);
        difference.push_pair(&target, &earned);
    }
    Some([value.interval()?, difference.interval()?])
}

/// Of the means of `w r` by cluster, which lie between the least and the largest that rewards and weights allow.
fn bernstein(rows: &[Logged], range: (f64, f64), weight_max: f64, options: &JudgeOptions) -> Option<Estimate> {
    let mean = |cluster: &Vec<&Logged>| {
        let scores = cluster.iter().map(|row| row.target_probability / row.propensity * row.reward);
        scores.sum::<f64>() / cluster.len() as f64
    };
    let values: Vec<f64> = by_cluster(rows).iter().map(mean).collect();
    let range = ((weight_max * range.0).min(0.0), (weight_max * range.1).max(0.0));
    empirical_bernstein(&values, range, options.evaluation.confidence)
}

impl JudgedRounds {
    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: std::fmt::Arguments<'_>| writeln!(out, "{text}").expect("a String takes any text");
        line(format_args!("{} decisions: {}", self.rounds, self.verdict.words()));
        if let Verdict::InsufficientSupport { reasons } = &self.verdict {
            reasons.iter().for_each(|reason| line(format_args!("  {reason}")));
        }
        let support = &self.support;
        line(format_args!(
            "  {} clusters, effectively {:.1}; {:.1} effective decisions; largest weight {:.2}; {:.2} % of choices unsupported",
            support.clusters,
            support.effective_clusters,
            support.effective_rows,
            support.weight_max,
            100.0 * support.unsupported_mass
        ));
        if let Some(weight) = &support.mean_weight {
            line(format_args!("  mean weight {}, which has to hold 1", interval(weight)));
        }
        if let Some(logging) = &self.logging {
            line(format_args!("  {:<18} {}", "logging policy", interval(logging)));
        }
        for MethodEstimate { method, parameter, estimate, is_consistent } in &self.methods {
            let tuned = parameter.map(|parameter| format!(", λ = {parameter:.3}")).unwrap_or_default();
            let shown = if *is_consistent { "" } else { " (shown, never decisive)" };
            line(format_args!("  {:<18} {}{tuned}{shown}", method.name(), interval(estimate)));
        }
        if let Some(difference) = &self.difference {
            line(format_args!("  difference         {}, doubly robust", interval(difference)));
        }
        if let Some([value, difference]) = &self.at_any_time {
            line(format_args!(
                "  at every moment together, a cluster: value {}, difference {}",
                interval(value),
                interval(difference)
            ));
        }
        if let Some(value) = &self.bernstein {
            line(format_args!(
                "  for any number of clusters (empirical Bernstein), a cluster: value {}",
                interval(value)
            ));
        }
        out
    }
}
