//! What each policy earns on queries that none of them has seen.

use std::fmt::Write as _;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::area::AreaScore;
use super::coverage::CoverageReport;
use super::data::Matrix;
use super::experiment::MatrixConfig;
use super::policies::Choices;
use crate::ope::{Estimate, percentile_estimate};
use crate::report::interval;

/// What one policy earns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyScore {
    /// The policy.
    pub policy: String,
    /// The price that it was to keep on the training queries: the best single model's, or half of it.
    pub price: String,
    /// That price, USD per query; none where no budget was set.
    pub budget_usd: Option<f64>,
    /// Mean quality on the test queries.
    pub quality: Estimate,
    /// Mean quality minus that of the best single model, query by query.
    pub quality_over_best_single: Estimate,
    /// Mean cost on the test queries, USD.
    pub cost_usd: Estimate,
}

/// The experiment's outcome. Intervals are bootstrap percentiles over test queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MatrixReport {
    /// Which matrix.
    pub matrix: String,
    /// What its costs are.
    pub cost_note: String,
    /// Models to choose from.
    pub models: usize,
    /// Queries that logs were drawn on.
    pub train_queries: usize,
    /// Queries judged on.
    pub test_queries: usize,
    /// Logged decisions that the policy was learned from, one score each; 0 where it was learned elsewhere.
    pub logged_decisions: usize,
    /// The best single model on the training queries.
    pub best_single: String,
    /// Its mean cost there, USD per query: the full price.
    pub best_single_usd: f64,
    /// How it was run.
    pub config: MatrixConfig,
    /// Every policy.
    pub scores: Vec<PolicyScore>,
    /// Quality over the whole range of costs, by policy.
    pub areas: Vec<AreaScore>,
    /// How often off-policy intervals hold the truth.
    pub coverage: Option<CoverageReport>,
}

impl MatrixReport {
    /// The report for people.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| writeln!(out, "{text}").expect("a String takes any text");
        line(format!("# {}: {} models\n", self.matrix, self.models));
        line(format!(
            "Learned from {} logged decisions; {} training queries, judged on {} others. Full price is that of {}, {:.3e} USD \
             per query; cost is {}. Intervals: {:.0} %, over test queries.\n",
            self.logged_decisions,
            self.train_queries,
            self.test_queries,
            self.best_single,
            self.best_single_usd,
            self.cost_note,
            self.config.confidence * 100.0
        ));
        line("| policy | price | quality | over best single | cost, share of full price |".to_owned());
        line("|---|---|---|---|---|".to_owned());
        for score in &self.scores {
            line(format!(
                "| {} | {} | {} | {} | {:.2} |",
                score.policy,
                score.price,
                interval(&score.quality),
                interval(&score.quality_over_best_single),
                score.cost_usd.value / self.best_single_usd
            ));
        }
        line("\n| policy | quality over all costs (AIQ) | over single models |".to_owned());
        line("|---|---|---|".to_owned());
        for area in &self.areas {
            line(format!("| {} | {} | {} |", area.policy, interval(&area.aiq), interval(&area.over_single_models)));
        }
        if let Some(coverage) = &self.coverage {
            line(String::new());
            line(coverage.to_markdown());
        }
        out
    }
}

/// A policy as its choices on the test queries.
pub(super) struct Arm {
    policy: String,
    price: String,
    budget_usd: Option<f64>,
    chooses: Chooses,
}

/// What a policy chooses for the test queries.
enum Chooses {
    Models(Choices),
    /// Probabilities of all models, shape `[test queries, models]`.
    At(Vec<f64>),
    Uniformly,
}

impl Arm {
    pub(super) fn chosen(policy: &str, price: &str, budget_usd: f64, choices: Choices) -> Self {
        Self {
            policy: policy.to_owned(),
            price: price.to_owned(),
            budget_usd: Some(budget_usd),
            chooses: Chooses::Models(choices),
        }
    }

    pub(super) fn uniform() -> Self {
        Self { policy: "uniform".to_owned(), price: "none".to_owned(), budget_usd: None, chooses: Chooses::Uniformly }
    }

    /// A policy that draws with its own probabilities, whatever that costs.
    pub(super) fn drawn(policy: &str, probabilities: Vec<f64>) -> Self {
        let chooses = Chooses::At(probabilities);
        Self { policy: policy.to_owned(), price: "none".to_owned(), budget_usd: None, chooses }
    }

    /// What each test query earns on average over the policy's draws.
    fn earned(&self, matrix: &Matrix, test: &[usize], plane: &[f64]) -> Vec<f64> {
        let models = matrix.models.len();
        let of = |(position, &query): (usize, &usize)| match &self.chooses {
            Chooses::Models(Choices { dear, cheap, dear_share }) => {
                let at = |model: usize| plane[matrix.cell(query, model)];
                dear_share * at(dear[position]) + (1.0 - dear_share) * at(cheap[position])
            }
            Chooses::At(probabilities) => {
                let drawn = &probabilities[position * models..(position + 1) * models];
                drawn.iter().zip(&plane[query * models..]).map(|(p, x)| p * x).sum()
            }
            Chooses::Uniformly => plane[query * models..(query + 1) * models].iter().sum::<f64>() / models as f64,
        };
        test.iter().enumerate().map(of).collect()
    }
}

pub(super) fn score_arms(
    matrix: &Matrix,
    test: &[usize],
    best_single: usize,
    arms: &[Arm],
    config: &MatrixConfig,
) -> Vec<PolicyScore> {
    let single: Vec<f64> = test.iter().map(|&query| matrix.quality[matrix.cell(query, best_single)]).collect();
    let mut columns = Vec::new();
    for arm in arms {
        let quality = arm.earned(matrix, test, &matrix.quality);
        let over = quality.iter().zip(&single).map(|(q, s)| q - s).collect();
        columns.extend([quality, over, arm.earned(matrix, test, &matrix.cost_usd)]);
    }
    let estimates = bootstrap_means(&columns, config.seed, config.bootstraps, config.confidence);
    let scores = arms.iter().zip(estimates.chunks(3)).map(|(arm, estimates)| PolicyScore {
        policy: arm.policy.clone(),
        price: arm.price.clone(),
        budget_usd: arm.budget_usd,
        quality: estimates[0],
        quality_over_best_single: estimates[1],
        cost_usd: estimates[2],
    });
    scores.collect()
}

/// Means of the columns with percentile intervals over resampled rows, the same rows for all columns.
pub(super) fn bootstrap_means(columns: &[Vec<f64>], seed: u64, bootstraps: usize, confidence: f64) -> Vec<Estimate> {
    let rows = columns.first().map_or(0, Vec::len);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draws = vec![Vec::with_capacity(bootstraps); columns.len()];
    for _ in 0..bootstraps.max(1) {
        let picked: Vec<usize> = (0..rows).map(|_| rng.random_range(0..rows)).collect();
        for (column, draw) in columns.iter().zip(&mut draws) {
            draw.push(picked.iter().map(|&row| column[row]).sum::<f64>() / rows as f64);
        }
    }
    columns
        .iter()
        .zip(&mut draws)
        .map(|(column, draw)| percentile_estimate(column.iter().sum::<f64>() / rows as f64, draw, confidence))
        .collect()
}
