//! How often off-policy intervals hold the truth, on real scores with simulated choices.
//!
//! The target policy is fixed: inverse-gap weighting of the learned guesses. The truth is its mean quality over the
//! test queries, known from the full matrix. Each seed draws logs anew; the estimators see the logs only.

use std::fmt::Write as _;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use weir_policy_runtime::inverse_gap_weights;

use super::data::Matrix;
use super::policies::Guesses;
use crate::evaluate::unsupported_mass;
use crate::ope::{self, Evaluation, EvaluationConfig, Logged, Verdict};

/// How to measure coverage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoverageConfig {
    /// How many times logs are drawn.
    pub seeds: u64,
    /// Decisions per query and seed.
    pub passes: usize,
    /// γ of the target policy.
    pub gamma: f64,
    /// Exploration floor of the target policy.
    pub floor: f64,
    /// Nominal levels.
    pub levels: Vec<f64>,
    /// How the evaluation is made; its confidence is replaced by each level.
    pub evaluation: EvaluationConfig,
}

impl Default for CoverageConfig {
    fn default() -> Self {
        Self {
            seeds: 200,
            passes: 3,
            gamma: 100.0,
            floor: 0.05,
            levels: vec![0.9, 0.95],
            evaluation: EvaluationConfig::default(),
        }
    }
}

/// One estimator at one level in one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoverageCell {
    /// How the logs were drawn.
    pub scenario: String,
    /// `ips`, `snips`, `dr` or `difference`.
    pub estimator: String,
    /// Nominal level.
    pub level: f64,
    /// Share of the answered seeds whose interval held the truth.
    pub covered: f64,
    /// 95 % interval of that share, as only so many seeds were drawn (Wilson 1927).
    pub covered_low: f64,
    /// Its upper end.
    pub covered_high: f64,
    /// Mean width of the interval.
    pub width: f64,
    /// Seeds that were answered.
    pub answered: u64,
    /// Seeds that were refused for lack of support.
    pub refused: u64,
    /// Answered seeds with the verdict "better".
    pub better: u64,
}

/// Coverage over all scenarios.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoverageReport {
    /// Mean quality of the target policy over the test queries.
    pub target_value: f64,
    /// Mean quality of the uniform policy there.
    pub uniform_value: f64,
    /// All cells.
    pub cells: Vec<CoverageCell>,
}

impl CoverageReport {
    /// The table for people.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = format!(
            "Off-policy intervals of a fixed target policy (true value {:.4}, uniform {:.4}):\n\n\
             | logs | estimator | nominal | covered | mean width | refused | \"better\" |\n|---|---|---|---|---|---|---|\n",
            self.target_value, self.uniform_value
        );
        for cell in &self.cells {
            let shown = if cell.answered > 0 {
                format!("{:.3} ({:.3} to {:.3}) | {:.4}", cell.covered, cell.covered_low, cell.covered_high, cell.width)
            } else {
                "no number | no number".to_owned()
            };
            writeln!(
                out,
                "| {} | {} | {:.2} | {shown} | {} of {} | {} |",
                cell.scenario,
                cell.estimator,
                cell.level,
                cell.refused,
                cell.refused + cell.answered,
                cell.better
            )
            .expect("a String takes any text");
        }
        out
    }
}

/// How the logs of a scenario are drawn.
struct Scenario {
    /// Tells its random draws from the other scenarios'.
    number: u64,
    name: &'static str,
    /// Queries are drawn anew each seed, with replacement, so that they are a sample of the test queries; otherwise
    /// they are the test queries themselves, and an interval that allows for other queries is wide.
    resample: bool,
    queries: Option<usize>,
    logging: Logging,
    /// The target is the logging policy in other words: no difference to find.
    no_gain: bool,
}

enum Logging {
    Uniform,
    /// The model after each query's favourite of the target gets what the others leave; each other gets this much.
    Skewed(f64),
    /// Each query's favourite of the target gets this much, the others share the rest.
    Avoiding(f64),
}

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        number: 0,
        name: "uniform, queries sampled",
        resample: true,
        queries: None,
        logging: Logging::Uniform,
        no_gain: false,
    },
    Scenario {
        number: 1,
        name: "uniform, same queries",
        resample: false,
        queries: None,
        logging: Logging::Uniform,
        no_gain: false,
    },
    Scenario {
        number: 2,
        name: "skewed, queries sampled",
        resample: true,
        queries: None,
        logging: Logging::Skewed(0.04),
        no_gain: false,
    },
    Scenario {
        number: 3,
        name: "no gain, queries sampled",
        resample: true,
        queries: None,
        logging: Logging::Uniform,
        no_gain: true,
    },
    Scenario {
        number: 4,
        name: "short: 60 queries",
        resample: true,
        queries: Some(60),
        logging: Logging::Uniform,
        no_gain: false,
    },
    Scenario {
        number: 5,
        name: "short: favourite logged at 0.2 %",
        resample: true,
        queries: None,
        logging: Logging::Avoiding(0.002),
        no_gain: false,
    },
];

/// Coverage on the test queries of `matrix`, with `guesses` as the target policy's scores and as reward model.
pub(super) fn measure(matrix: &Matrix, test: &[usize], guesses: &Guesses, config: &CoverageConfig) -> CoverageReport {
    let world = World::new(matrix, test, guesses, config);
    let mut cells = Vec::new();
    for scenario in &SCENARIOS {
        for &level in &config.levels {
            cells.extend(run(&world, scenario, level, config));
        }
    }
    let value = |policy: &[f64]| world.value(policy);
    CoverageReport { target_value: value(&world.target), uniform_value: value(&world.uniform), cells }
}

/// The test queries as dense arrays, shape `[queries, models]`.
struct World {
    models: usize,
    queries: usize,
    quality: Vec<f64>,
    guesses: Vec<f64>,
    target: Vec<f64>,
    uniform: Vec<f64>,
}

impl World {
    fn new(matrix: &Matrix, test: &[usize], guesses: &Guesses, config: &CoverageConfig) -> Self {
        let models = matrix.models.len();
        let gather = |plane: &[f64]| -> Vec<f64> {
            test.iter().flat_map(|&query| plane[query * models..(query + 1) * models].to_vec()).collect()
        };
        let guesses = gather(&guesses.quality);
        let mut target = vec![0.0; guesses.len()];
        for (scores, out) in guesses.chunks(models).zip(target.chunks_mut(models)) {
            inverse_gap_weights(scores, &vec![true; models], config.gamma, config.floor, out);
        }
        let uniform = vec![1.0 / models as f64; guesses.len()];
        Self { models, queries: test.len(), quality: gather(&matrix.quality), guesses, target, uniform }
    }

    fn value(&self, policy: &[f64]) -> f64 {
        policy.iter().zip(&self.quality).map(|(p, q)| p * q).sum::<f64>() / self.queries as f64
    }

    fn logging(&self, logging: &Logging) -> Vec<f64> {
        let mut out = self.uniform.clone();
        for (probabilities, target) in out.chunks_mut(self.models).zip(self.target.chunks(self.models)) {
            let favourite = (0..self.models).max_by(|a, b| target[*a].total_cmp(&target[*b])).unwrap_or(0);
            let others = (self.models - 1) as f64;
            match logging {
                Logging::Uniform => {}
                Logging::Skewed(rest) => {
                    probabilities.fill(*rest);
                    probabilities[(favourite + 1) % self.models] = 1.0 - others * rest;
                }
                Logging::Avoiding(share) => {
                    probabilities.fill((1.0 - share) / others);
                    probabilities[favourite] = *share;
                }
            }
        }
        out
    }

    fn draw(
        &self,
        scenario: &Scenario,
        logging: &[f64],
        target: &[f64],
        config: &CoverageConfig,
        seed: u64,
    ) -> Vec<Logged> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = scenario.queries.unwrap_or(self.queries);
        let floor = config.evaluation.limits.propensity_floor;
        let mut rows = Vec::with_capacity(count * config.passes);
        for cluster in 0..count {
            let query = if scenario.resample { rng.random_range(0..self.queries) } else { cluster };
            let cells = query * self.models..(query + 1) * self.models;
            let (probabilities, target, guesses) =
                (&logging[cells.clone()], &target[cells.clone()], &self.guesses[cells.clone()]);
            let q_hat_policy = target.iter().zip(guesses).map(|(p, q)| p * q).sum();
            let unsupported = unsupported_mass(target, probabilities, floor);
            for _ in 0..config.passes {
                let action = drawn(probabilities, rng.random());
                rows.push(Logged {
                    propensity: probabilities[action],
                    reward: self.quality[cells.start + action],
                    target_probability: target[action],
                    q_hat_logged: guesses[action],
                    q_hat_policy,
                    unsupported_mass: Some(unsupported),
                    cluster,
                });
            }
        }
        rows
    }
}

fn drawn(probabilities: &[f64], u: f64) -> usize {
    let mut cumulative = 0.0;
    for (action, probability) in probabilities.iter().enumerate() {
        cumulative += probability;
        if u < cumulative {
            return action;
        }
    }
    probabilities.len() - 1
}

/// Which of the estimates.
type Pick = fn(&ope::Estimates) -> ope::Estimate;

fn run(world: &World, scenario: &Scenario, level: f64, config: &CoverageConfig) -> Vec<CoverageCell> {
    let logging = world.logging(&scenario.logging);
    let target = if scenario.no_gain { &logging } else { &world.target };
    let truth = world.value(target);
    let truths = [truth, truth, truth, truth - world.value(&logging)];
    let evaluation = EvaluationConfig { confidence: level, ..config.evaluation.clone() };
    let outcomes: Vec<Evaluation> = (0..config.seeds)
        .map(|seed| seed.wrapping_mul(SCENARIOS.len() as u64).wrapping_add(scenario.number))
        .map(|seed| ope::evaluate(&world.draw(scenario, &logging, target, config, seed), &evaluation))
        .collect();
    let answered: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.estimates.as_ref()).collect();
    let better = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Better).count() as u64;
    let count = answered.len().max(1) as f64;
    let cell = |(name, truth, pick): (&str, f64, Pick)| {
        let covered = answered.iter().filter(|estimates| pick(estimates).covers(truth)).count() as f64 / count;
        let (covered_low, covered_high) = wilson(covered, count);
        CoverageCell {
            scenario: scenario.name.to_owned(),
            estimator: name.to_owned(),
            level,
            covered,
            covered_low,
            covered_high,
            width: answered.iter().map(|estimates| pick(estimates).high - pick(estimates).low).sum::<f64>() / count,
            answered: answered.len() as u64,
            refused: config.seeds - answered.len() as u64,
            better,
        }
    };
    let estimators: [(&str, f64, Pick); 4] = [
        ("ips", truths[0], |e| e.ips),
        ("snips", truths[1], |e| e.snips),
        ("dr", truths[2], |e| e.dr),
        ("difference", truths[3], |e| e.difference),
    ];
    estimators.into_iter().map(cell).collect()
}

/// 95 % interval of a binomial share.
fn wilson(share: f64, count: f64) -> (f64, f64) {
    let z2 = crate::stats::normal_quantile(0.975).powi(2);
    let centre = (share + z2 / (2.0 * count)) / (1.0 + z2 / count);
    let half = (z2 * (share * (1.0 - share) + z2 / (4.0 * count)) / count).sqrt() / (1.0 + z2 / count);
    (centre - half, centre + half)
}
