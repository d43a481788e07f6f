//! Learn from simulated logs on some queries, judge on the others.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use weir_policy_runtime::{Feature, FeatureSpec, MlpScratch, Objective, OwnedContext, Policy, Scratch};

use super::area::areas;
use super::classic::Factored;
use super::coverage::{self, CoverageConfig};
use super::data::{Matrix, MatrixQuery};
use super::policies::{Choices, Corrections, Guesses, Seen, cluster_means, domain_means, nearest_means, truth};
use super::report::{Arm, MatrixReport, score_arms};
use super::similar::{Neighbours, clusters_of};
use crate::error::{LearnError, Result};
use crate::feature_fit::fit_features;
use crate::network::runtime_network;
use crate::ope::{TableRow, cross_fitted_table};
use crate::policy_gradient::{self, PolicyGradientConfig};
use crate::reward_model::{self, RewardModelConfig};
use crate::training_set::Sample;

/// How to run the experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MatrixConfig {
    /// Seed of the split, the logging draws and the training.
    pub seed: u64,
    /// Share of the queries that logs are drawn on.
    pub train_share: f64,
    /// Logged decisions per training query.
    pub passes: usize,
    /// Dimensions of the hashed text embedding.
    pub embedding_dim: usize,
    /// The reward model.
    pub reward_model: RewardModelConfig,
    /// Networks whose guesses are averaged, each with its own seed.
    pub ensemble: usize,
    /// The policy gradient on top of them; none leaves it out.
    pub policy_gradient: Option<PolicyGradientConfig>,
    /// Neighbours of the k-nearest-neighbour baseline.
    pub neighbours: usize,
    /// Clusters of the k-means baseline.
    pub clusters: usize,
    /// Factors of the matrix-factorisation baseline.
    pub factors: usize,
    /// Ridge of that one, a query.
    pub ridge: f64,
    /// Resamples of the queries for the intervals.
    pub bootstraps: usize,
    /// Coverage that the intervals aim for.
    pub confidence: f64,
    /// Coverage of off-policy intervals; none leaves it out.
    pub coverage: Option<CoverageConfig>,
}

impl Default for MatrixConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            train_share: 0.7,
            passes: 4,
            embedding_dim: 256,
            reward_model: RewardModelConfig::default(),
            ensemble: 1,
            policy_gradient: Some(PolicyGradientConfig::default()),
            neighbours: 40,
            clusters: 32,
            factors: 4,
            ridge: 1e-3,
            bootstraps: 2000,
            confidence: 0.95,
            coverage: Some(CoverageConfig::default()),
        }
    }
}

/// Runs the experiment on one matrix: splits the queries, draws logs on one part, learns from them, judges on the other.
///
/// # Errors
/// When the matrix is too small to split, or the configuration makes no sense.
pub fn matrix_experiment(matrix: &Matrix, config: &MatrixConfig) -> Result<MatrixReport> {
    if !(config.train_share > 0.0 && config.train_share < 1.0) || config.passes == 0 || config.embedding_dim == 0 {
        return Err(LearnError::Config("train_share must lie in (0, 1); passes and embedding_dim above 0".to_owned()));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut order: Vec<usize> = (0..matrix.queries.len()).collect();
    order.shuffle(&mut rng);
    let (train, test) = order.split_at((order.len() as f64 * config.train_share).round() as usize);
    let embeddings = matrix.embeddings(config.embedding_dim);
    let logs = uniform_logs(matrix, train, &embeddings, config.passes, &mut rng);
    let learned = learn(matrix, &logs, &embeddings, config)?;
    let from_logs = logged_domain_means(matrix, &logs);
    let corrected = config.policy_gradient.as_ref();
    let corrected = corrected.map(|gradient| correct(&learned, matrix, &logs, &embeddings, (config, gradient)));
    let others = Others { corrected: corrected.transpose()?, from_logs: Some(from_logs), published: None };
    let exam = Exam { matrix, train, test, embeddings: &embeddings, config };
    exam.judge(&learned, others, logs.len())
}

/// Judges a policy that was learned elsewhere (from logs that passed through a router and the tables, say) on the
/// queries that `is_train` says no to; budgets and baselines come from the others.
///
/// It is judged twice: as published, with its own probabilities, and as "learned policy", where its guesses of quality
/// and cost choose greedily within each budget, so that it compares with the others at equal cost.
///
/// # Errors
/// When the policy lacks a model of the matrix, or a part is too small.
pub fn judge_policy(
    matrix: &Matrix,
    policy: &Policy,
    is_train: impl Fn(&MatrixQuery) -> bool,
    config: &MatrixConfig,
) -> Result<MatrixReport> {
    let place = matrix.models.iter().map(|model| {
        let found = policy.actions().iter().position(|action| action.model == model.model);
        found.ok_or_else(|| LearnError::Config(format!("the policy does not know model {} of the matrix", model.model)))
    });
    let place = place.collect::<Result<Vec<usize>>>()?;
    let spec_dim = policy.spec().features.features.iter().find_map(|feature| match feature {
        Feature::Embedding { dim, .. } => Some(*dim),
        _ => None,
    });
    let dim = spec_dim.unwrap_or(config.embedding_dim);
    let embeddings = matrix.embeddings(dim);
    let mut guesses = Guesses { quality: Vec::new(), cost_usd: Vec::new(), ..Guesses::default() };
    let mut scratch = Scratch::default();
    for query in 0..matrix.queries.len() {
        let predicted = policy.predict(&context(matrix, query, &embeddings).as_context(), &mut scratch);
        guesses.quality.extend(place.iter().map(|&action| predicted.quality[action]));
        guesses.cost_usd.extend(place.iter().map(|&action| predicted.cost_usd[action]));
    }
    let (train, test): (Vec<usize>, Vec<usize>) =
        (0..matrix.queries.len()).partition(|&query| is_train(&matrix.queries[query]));
    // Models that the matrix does not score cannot be chosen.
    let allowed: Vec<bool> = (0..policy.actions().len()).map(|action| place.contains(&action)).collect();
    let mut published = Vec::with_capacity(test.len() * place.len());
    for &query in &test {
        let context = context(matrix, query, &embeddings);
        let probabilities = policy
            .propensities(&context.as_context(), &allowed, &mut scratch)
            .map_err(|error| LearnError::Artefact(error.to_string()))?;
        published.extend(place.iter().map(|&action| probabilities[action]));
    }
    let exam = Exam { matrix, train: &train, test: &test, embeddings: &embeddings, config };
    exam.judge(&guesses, Others { published: Some(published), ..Others::default() }, 0)
}

/// The arm of the policy gradient.
pub(super) const POLICY_GRADIENT: &str = "learned policy, corrected by its gradient";

/// Fewest queries of a part.
const PART_QUERIES_MIN: usize = 20;

/// What is judged beside the learned guesses.
#[derive(Default)]
struct Others {
    /// The guesses with what policy learning adds.
    corrected: Option<Guesses>,
    /// What the same logs' means by domain guess.
    from_logs: Option<Guesses>,
    /// A policy's own probabilities, shape `[test queries, models]`.
    published: Option<Vec<f64>>,
}

/// A matrix split in two, and how to judge on it.
struct Exam<'a> {
    matrix: &'a Matrix,
    train: &'a [usize],
    test: &'a [usize],
    embeddings: &'a [Vec<f32>],
    config: &'a MatrixConfig,
}

impl Exam<'_> {
    fn judge(
        &self,
        learned: &Guesses,
        Others { corrected, from_logs, published }: Others,
        logged_decisions: usize,
    ) -> Result<MatrixReport> {
        let Self { matrix, train, test, config, .. } = *self;
        if train.len().min(test.len()) < PART_QUERIES_MIN {
            return Err(LearnError::NotEnoughData(format!(
                "{} training and {} test queries are too few: at least {PART_QUERIES_MIN} each are needed",
                train.len(),
                test.len()
            )));
        }
        let train_quality = matrix.means(&matrix.quality, train);
        let train_cost = matrix.mean_costs(train);
        let best_single = argmax(&train_quality);
        let full_usd = train_cost[best_single];
        let affordable = |budget: f64| {
            let within = |model: &usize| train_cost[*model] <= budget * (1.0 + 1e-9);
            let models = (0..train_quality.len()).filter(within);
            models.max_by(|a, b| train_quality[*a].total_cmp(&train_quality[*b]))
        };
        let full_information = domain_means(matrix, train);
        let all: Vec<usize> = (0..matrix.queries.len()).collect();
        let seen = Seen::all(matrix);
        let neighbours = Neighbours::new(self.embeddings);
        let nearest = nearest_means(matrix, train, &all, (&neighbours, config.neighbours), &seen);
        let clusters = clusters_of(train, self.embeddings, config.clusters, config.seed);
        let clustered = cluster_means(matrix, train, &clusters, &seen);
        let factored = Factored::new(matrix, train, self.embeddings).guesses(config.factors, config.ridge);
        let oracle = truth(matrix);

        let mut arms: Vec<Arm> =
            published.into_iter().map(|probabilities| Arm::drawn("policy as published", probabilities)).collect();
        for (price, budget) in [("full price", full_usd), ("half price", full_usd / 2.0)] {
            let mut arm = |name: &str, guesses: &Guesses, rate_from: &[usize]| {
                arms.push(Arm::chosen(name, price, budget, guesses.within(matrix, rate_from, test, budget)));
            };
            arm("learned policy", learned, train);
            if let Some(corrected) = &corrected {
                arm(POLICY_GRADIENT, corrected, train);
            }
            if let Some(from_logs) = &from_logs {
                arm("best model per domain, same logs", from_logs, train);
            }
            arm("best model per domain, all scores", &full_information, train);
            arm("nearest neighbours, all scores", &nearest, train);
            arm("clusters, all scores", &clustered, train);
            arm("matrix factorisation, all scores", &factored, train);
            arm("oracle", &oracle, test);
            if let Some(model) = affordable(budget) {
                let name = format!("best single model ({})", matrix.models[model].model);
                arms.push(Arm::chosen(&name, price, budget, Choices::always(model, test.len())));
            }
        }
        arms.push(Arm::uniform());
        let mut curves = vec![("learned policy", learned)];
        curves.extend(corrected.as_ref().map(|corrected| (POLICY_GRADIENT, corrected)));
        curves.extend(from_logs.as_ref().map(|from_logs| ("best model per domain, same logs", from_logs)));
        curves.extend([
            ("best model per domain, all scores", &full_information),
            ("nearest neighbours, all scores", &nearest),
            ("clusters, all scores", &clustered),
            ("matrix factorisation, all scores", &factored),
            ("oracle", &oracle),
        ]);
        Ok(MatrixReport {
            matrix: matrix.name.clone(),
            cost_note: matrix.cost_note.clone(),
            models: matrix.models.len(),
            train_queries: train.len(),
            test_queries: test.len(),
            logged_decisions,
            best_single: matrix.models[best_single].model.clone(),
            best_single_usd: full_usd,
            config: config.clone(),
            areas: areas(matrix, test, &curves, config),
            scores: score_arms(matrix, test, best_single, &arms, config),
            coverage: config.coverage.as_ref().map(|coverage| coverage::measure(matrix, test, learned, coverage)),
        })
    }
}

fn argmax(values: &[f64]) -> usize {
    (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap_or(0)
}

/// What a router under a uniform policy would have logged: one model per decision, drawn with probability `1 / K`.
pub(super) fn uniform_logs(
    matrix: &Matrix,
    queries: &[usize],
    embeddings: &[Vec<f32>],
    passes: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Sample> {
    let models = matrix.models.len();
    let mut logs = Vec::with_capacity(queries.len() * passes);
    for pass in 0..passes {
        for &query in queries {
            let action = rng.random_range(0..models);
            let cell = matrix.cell(query, action);
            logs.push(Sample {
                context: context(matrix, query, embeddings),
                action,
                executed_as_intended: true,
                propensity: Some(1.0 / models as f64),
                logged_distribution: Some(vec![1.0 / models as f64; models]),
                quality: Some(matrix.quality[cell]),
                cost_usd: Some(matrix.cost_usd[cell]),
                cluster: matrix.queries[query].id.clone(),
                time_ms: (pass * queries.len() + query) as i64,
                ..Sample::default()
            });
        }
    }
    logs
}

pub(super) fn context(matrix: &Matrix, query: usize, embeddings: &[Vec<f32>]) -> OwnedContext {
    OwnedContext {
        domain: Some(matrix.queries[query].domain.clone()),
        embedding: Some(embeddings[query].clone()),
        embedding_model: Some(matrix.embedding_model(embeddings[query].len())),
        ..OwnedContext::default()
    }
}

/// The reward model's guesses for every query of the matrix, learned from the logs.
pub(super) fn learn(
    matrix: &Matrix,
    logs: &[Sample],
    embeddings: &[Vec<f32>],
    config: &MatrixConfig,
) -> Result<Guesses> {
    let models = matrix.models.len();
    let contexts: Vec<_> = logs.iter().map(|sample| &sample.context).collect();
    let features: FeatureSpec = fit_features(&contexts);
    let rows: Vec<usize> = (0..logs.len()).collect();
    let cells = matrix.quality.len();
    let mut guesses = Guesses { quality: vec![0.0; cells], cost_usd: vec![0.0; cells], ..Guesses::default() };
    let members = config.ensemble.max(1);
    for member in 0..members {
        let seed = config.seed.wrapping_add(1000 * member as u64);
        let network = reward_model::train(logs, &rows, &features, models, &config.reward_model, seed.into())?;
        let mut scratch = MlpScratch::default();
        let mut input = vec![0.0; features.width()];
        for query in 0..matrix.queries.len() {
            features.encode(&context(matrix, query, embeddings).as_context(), &mut input);
            let outputs = network.forward(&input, &mut scratch);
            for model in 0..models {
                let cell = matrix.cell(query, model);
                guesses.quality[cell] += 1.0 / (1.0 + (-f64::from(outputs[model])).exp()) / members as f64;
                guesses.cost_usd[cell] += f64::from(outputs[models + model]).exp() / members as f64;
            }
        }
    }
    Ok(guesses)
}

/// The guesses with corrections learned from the same logs by the doubly robust policy gradient.
pub(super) fn correct(
    learned: &Guesses,
    matrix: &Matrix,
    logs: &[Sample],
    embeddings: &[Vec<f32>],
    (config, gradient): (&MatrixConfig, &PolicyGradientConfig),
) -> Result<Guesses> {
    let contexts: Vec<_> = logs.iter().map(|sample| &sample.context).collect();
    let features: FeatureSpec = fit_features(&contexts);
    let rows: Vec<usize> = (0..logs.len()).collect();
    let settings = (&config.reward_model, gradient);
    let objective = (&Objective { quality: 1.0, usd: 0.0 }, 0.0);
    let found =
        policy_gradient::train(logs, &rows, &features, matrix.models.len(), settings, objective, config.seed.into())?;
    let mut inputs = vec![0.0; matrix.queries.len() * (features.width() + 1)];
    for (query, input) in inputs.chunks_exact_mut(features.width() + 1).enumerate() {
        features.encode(&context(matrix, query, embeddings).as_context(), &mut input[..features.width()]);
    }
    Ok(Guesses {
        quality: learned.quality.clone(),
        cost_usd: learned.cost_usd.clone(),
        corrections: Some(Corrections {
            network: runtime_network(&found.layers)?,
            preference: found.preference,
            inputs,
        }),
    })
}

/// The same guesses for every query of a domain: shrunken means of what was logged.
pub(super) fn logged_domain_means(matrix: &Matrix, logs: &[Sample]) -> Guesses {
    let models = matrix.models.len();
    let mut domains: Vec<&str> = matrix.queries.iter().map(|query| query.domain.as_str()).collect();
    domains.sort_unstable();
    domains.dedup();
    let cell_of = |domain: &str| domains.binary_search(&domain).unwrap_or(0);
    let table = |reward: &dyn Fn(&Sample) -> Option<f64>| {
        let rows: Vec<TableRow> = logs
            .iter()
            .map(|sample| TableRow {
                cell: cell_of(sample.context.domain.as_deref().unwrap_or_default()),
                action: sample.action,
                reward: reward(sample),
                cluster: 0,
                weight: 1.0,
            })
            .collect();
        let table = cross_fitted_table(&rows, domains.len(), models, 1).swap_remove(0);
        matrix
            .queries
            .iter()
            .flat_map(|query| {
                let cell = cell_of(&query.domain);
                table[cell * models..(cell + 1) * models].to_vec()
            })
            .collect::<Vec<f64>>()
    };
    Guesses {
        quality: table(&|sample| sample.quality),
        cost_usd: table(&|sample| sample.cost_usd),
        ..Guesses::default()
    }
}
