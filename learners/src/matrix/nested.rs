//! Nested cross-validation on a score matrix: every query is judged once, by routers that were trained and set up on the other folds.
//!
//! What a router's settings are (a number of neighbours, a ridge, a network's shape) is chosen on inner folds of the training part: those
//! that see all scores by the area of quality over cost on the inner fold, those that see logs by their squared error on the decisions
//! logged there. An inner fit leaves out two folds, and serves either as the other's judge.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::area::{aiq, rates};
use super::classic::Factored;
use super::data::Matrix;
use super::experiment::{MatrixConfig, POLICY_GRADIENT, context, correct, learn, logged_domain_means, uniform_logs};
use super::measures::{Frame, Setting, Strong, Tried, estimates};
use super::nested_report::{NestedReport, NestedScore};
use super::pairs::order;
use super::policies::{Guesses, Seen, cluster_means, domain_means, model_means, nearest_means, truth};
use super::published::{Costs, MatrixSet};
use super::similar::{Neighbours, clusters_of};
use crate::error::{LearnError, Result};
use crate::policy_gradient::PolicyGradientConfig;
use crate::reward_model::RewardModelConfig;
use crate::training_set::Sample;

/// How to run it. Where a setting has several values, inner folds choose among them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NestedConfig {
    /// Seed of the folds, the logging draws, the training and the intervals.
    pub seed: u64,
    /// Folds that judge; at least 3.
    pub folds: usize,
    /// Logged decisions per query, models drawn uniformly; half as many as there are models, at least two, where none is given.
    pub passes: Option<usize>,
    /// Dimensions of the hashed text embedding.
    pub embedding_dim: usize,
    /// Reward models of the learned policy.
    pub reward_models: Vec<RewardModelConfig>,
    /// Networks whose guesses are averaged.
    pub ensemble: usize,
    /// The policy gradient on top of them; none leaves it out.
    pub policy_gradient: Option<PolicyGradientConfig>,
    /// Neighbours of the k-nearest-neighbour baselines.
    pub neighbours: Vec<usize>,
    /// Clusters of the k-means baselines.
    pub clusters: Vec<usize>,
    /// Factors of the matrix-factorisation baseline.
    pub factors: Vec<usize>,
    /// Ridge of that one, a query.
    pub ridges: Vec<f64>,
    /// Resamples of the queries for the intervals.
    pub bootstraps: usize,
    /// Coverage that the intervals aim for.
    pub confidence: f64,
}

impl Default for NestedConfig {
    fn default() -> Self {
        let network = |hidden: &[usize], weight_decay: f32| RewardModelConfig {
            hidden: hidden.to_vec(),
            weight_decay,
            ..RewardModelConfig::default()
        };
        Self {
            seed: 1,
            folds: 5,
            passes: None,
            embedding_dim: 256,
            // The last is where training begins: a table by domain.
            reward_models: vec![
                network(&[64], 0.3),
                network(&[64], 1.0),
                network(&[], 0.3),
                RewardModelConfig { epochs: 0, ..network(&[64], 0.3) },
            ],
            ensemble: 3,
            policy_gradient: Some(PolicyGradientConfig::default()),
            neighbours: vec![10, 20, 40, 80, 160],
            clusters: vec![8, 16, 32, 64],
            factors: vec![1, 2, 4, 8],
            ridges: vec![1e-4, 1e-3, 1e-2, 1e-1],
            bootstraps: 500,
            confidence: 0.95,
        }
    }
}

/// Judges the learned policy and all baselines on one matrix.
///
/// # Errors
/// When the matrix is too small for its folds, or the configuration makes no sense.
pub fn nested_experiment(set: &MatrixSet, config: &NestedConfig) -> Result<NestedReport> {
    let study = Study::new(&set.matrix, config)?;
    let settings = study.choose_settings()?;
    let (matrix, queries) = (&set.matrix, set.matrix.queries.len());
    let is_pair = set.no_pair().is_none();
    let mut tried: Vec<(Tried, Vec<f64>)> = Vec::new();
    let mut best_singles = vec![0; matrix.models.len()];
    for (fold, settings) in settings.iter().enumerate() {
        let (held_out, train) = (study.part(|at| at == fold), study.part(|at| at != fold));
        let costs = matrix.mean_costs(&train);
        let cheapest = least(&costs);
        let most = costs.iter().copied().fold(0.0, f64::max);
        let best_single = most_of(&matrix.means(&matrix.quality, &train));
        best_singles[best_single] += 1;
        let mut add = |at: usize, policy: &str, path: Vec<Setting>, gains: Option<Vec<f64>>| {
            if tried.len() == at {
                let path = vec![vec![(0.0, 0.0); queries]; path.len()];
                let strong = if gains.is_some() { Strong::Order(Vec::new()) } else { Strong::None };
                let one = Tried { policy: policy.to_owned(), path, beside: Vec::new(), strong };
                tried.push((one, vec![0.0; queries]));
            }
            let (one, ranks) = &mut tried[at];
            for (whole, own) in one.path.iter_mut().zip(path) {
                held_out.iter().zip(own).for_each(|(&query, earned)| whole[query] = earned);
            }
            // Ranked within the fold: guesses of two folds compare the wrong way round (see `pairs_experiment`).
            for (rank, place) in gains.iter().flat_map(|gains| order(gains).into_iter().enumerate()) {
                ranks[held_out[place]] = 1.0 - rank as f64 / held_out.len() as f64;
            }
        };
        let always = |model: usize| held_out.iter().map(|&query| earned(matrix, query, model)).collect::<Setting>();
        let arms = study.arms(fold, settings)?;
        for (at, (policy, guesses)) in arms.iter().enumerate() {
            let choices = |usd: f64| guesses.choices(matrix, &held_out, usd);
            let setting = |usd: f64| {
                held_out.iter().zip(choices(usd)).map(|(&query, model)| earned(matrix, query, model)).collect()
            };
            let path = rates(most).map(setting).chain([always(cheapest)]).collect();
            add(at, policy, path, is_pair.then(|| gains(matrix, guesses, &held_out)));
        }
        add(arms.len(), "best single model", vec![always(best_single)], None);
        let blind = held_out.iter().map(|&query| mean_earned(matrix, query)).collect();
        add(arms.len() + 1, "uniform", vec![blind, always(cheapest)], None);
    }
    let mut routers: Vec<Tried> = Vec::new();
    for (mut one, ranks) in tried {
        if let Strong::Order(found) = &mut one.strong {
            *found = order(&ranks);
        }
        routers.push(one);
    }
    let at = |policy: &str| routers.iter().position(|tried| tried.policy == policy).unwrap_or(0);
    let (best_single, uniform) = (at("best single model"), at("uniform"));
    let (oracle, learned) = (at("oracle"), at("learned policy"));
    let models = 0..matrix.models.len();
    let all: Vec<usize> = (0..queries).collect();
    // The hull of all single models, the best that they give for any price.
    routers[best_single].beside =
        models.map(|model| all.iter().map(|&query| earned(matrix, query, model)).collect()).collect();
    if is_pair {
        routers[uniform].strong = Strong::Blind;
    }
    let means = matrix.mean_costs(&all);
    let range = means.iter().fold((f64::INFINITY, 0.0_f64), |(l, m), cost| (l.min(*cost), m.max(*cost)));
    let costs_usd = (set.costs != Costs::None).then_some(range);
    let frame = Frame { matrix, best_single, oracle, learned, costs_usd };
    let found = estimates(&routers, &frame, (config.seed, config.bootstraps, config.confidence));
    let scores = routers.into_iter().zip(found).map(|(tried, figures)| NestedScore { policy: tried.policy, figures });
    let mut best_single: Vec<(String, usize)> = Vec::new();
    for (model, folds) in best_singles.into_iter().enumerate().filter(|(_, folds)| *folds > 0) {
        best_single.push((matrix.models[model].model.clone(), folds));
    }
    Ok(NestedReport {
        matrix: matrix.name.clone(),
        note: set.note.to_owned(),
        cost_note: matrix.cost_note.clone(),
        models: matrix.models.len(),
        queries,
        passes: study.passes,
        best_single,
        unsupported: set.unsupported(),
        settings: settings.iter().map(|settings| settings.in_words(config)).collect(),
        config: config.clone(),
        scores: scores.collect(),
    })
}

/// Fewest queries of a fold.
const FOLD_QUERIES_MIN: usize = 20;
/// Candidates of a fit: routers that see all scores, and those that see logs, by nearest neighbours and clusters.
const FAMILIES: [&str; 5] = [
    "nearest neighbours, all scores",
    "clusters, all scores",
    "matrix factorisation, all scores",
    "nearest neighbours, same logs",
    "clusters, same logs",
];

/// What inner folds chose for one outer fold.
struct Settings {
    reward_model: usize,
    /// Place of the best candidate of each family.
    families: [usize; FAMILIES.len()],
}

impl Settings {
    fn in_words(&self, config: &NestedConfig) -> String {
        let network = &config.reward_models[self.reward_model];
        let [near, clusters, factors, near_logs, clusters_logs] = self.families;
        let (rank, ridge) = grid(config)[factors];
        format!(
            "hidden {:?}, weight decay {}, at most {} passes; {} neighbours, {} clusters, {rank} factors at ridge {ridge}; of the same logs {} neighbours, {} \
             clusters",
            network.hidden,
            network.weight_decay,
            network.epochs,
            config.neighbours[near],
            config.clusters[clusters],
            config.neighbours[near_logs],
            config.clusters[clusters_logs]
        )
    }
}

fn grid(config: &NestedConfig) -> Vec<(usize, f64)> {
    let of = |&rank: &usize| config.ridges.iter().map(move |ridge| (rank, *ridge));
    config.factors.iter().flat_map(of).collect()
}

/// A matrix in folds, with its logs.
struct Study<'a> {
    matrix: &'a Matrix,
    config: &'a NestedConfig,
    embeddings: Vec<Vec<f32>>,
    neighbours: Neighbours,
    fold_of: Vec<usize>,
    passes: usize,
    /// Decisions on all queries, shape `[passes, queries]`; whoever trains is given those of its training queries.
    logs: Vec<Sample>,
}

impl<'a> Study<'a> {
    fn new(matrix: &'a Matrix, config: &'a NestedConfig) -> Result<Self> {
        let queries = matrix.queries.len();
        let lists = [config.neighbours.len(), config.clusters.len(), config.reward_models.len(), grid(config).len()];
        if config.folds < 3 || config.embedding_dim == 0 || lists.contains(&0) || config.passes == Some(0) {
            return Err(LearnError::Config(
                "folds must be at least 3, embedding_dim and passes above 0, and every list of settings must have one"
                    .to_owned(),
            ));
        }
        if queries < FOLD_QUERIES_MIN * config.folds {
            return Err(LearnError::NotEnoughData(format!(
                "{queries} queries are too few for {} folds: at least {FOLD_QUERIES_MIN} each are needed",
                config.folds
            )));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let mut order: Vec<usize> = (0..queries).collect();
        order.shuffle(&mut rng);
        let mut fold_of = vec![0; queries];
        order.into_iter().enumerate().for_each(|(at, query)| fold_of[query] = at % config.folds);
        let embeddings = matrix.embeddings(config.embedding_dim);
        let passes = config.passes.unwrap_or((matrix.models.len() / 2).max(2));
        let all: Vec<usize> = (0..queries).collect();
        let logs = uniform_logs(matrix, &all, &embeddings, passes, &mut rng);
        Ok(Self { matrix, config, neighbours: Neighbours::new(&embeddings), embeddings, fold_of, passes, logs })
    }

    fn part(&self, takes: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..self.fold_of.len()).filter(|query| takes(self.fold_of[*query])).collect()
    }

    fn logs_on(&self, queries: &[usize]) -> Vec<Sample> {
        let of_pass = |pass: usize| queries.iter().map(move |query| pass * self.fold_of.len() + query);
        (0..self.passes).flat_map(of_pass).map(|at| self.logs[at].clone()).collect()
    }

    /// Settings for each outer fold.
    fn choose_settings(&self) -> Result<Vec<Settings>> {
        let folds = self.config.folds;
        let reward_models = self.config.reward_models.len();
        let mut families: Vec<[Vec<f64>; FAMILIES.len()]> = vec![Default::default(); folds];
        let mut networks = vec![vec![0.0; reward_models]; folds];
        for (first, second) in (0..folds).flat_map(|first| (first + 1..folds).map(move |second| (first, second))) {
            let train = self.part(|fold| fold != first && fold != second);
            let ask = self.part(|fold| fold == first || fold == second);
            let logs = self.logs_on(&train);
            let found = self.candidates(&train, &ask, &logs);
            // Networks take longest: each outer fold has two inner ones for them.
            let is_neighbour = second == first + 1 || (first == 0 && second == folds - 1);
            let learned = (0..if is_neighbour && reward_models > 1 { reward_models } else { 0 })
                .map(|at| learn(self.matrix, &logs, &self.embeddings, &self.learner(at, 1)))
                .collect::<Result<Vec<_>>>()?;
            for (outer, inner) in [(first, second), (second, first)] {
                let judge = self.part(|fold| fold == inner);
                for (family, guesses) in found.iter().enumerate() {
                    let sees_all = FAMILIES[family].ends_with("all scores");
                    let scores = guesses.iter().map(|guesses| {
                        if sees_all { self.area(guesses, &train, &judge) } else { -self.loss(guesses, &judge) }
                    });
                    let sums = &mut families[outer][family];
                    sums.resize(guesses.len(), 0.0);
                    sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score);
                }
                for (sum, guesses) in networks[outer].iter_mut().zip(&learned) {
                    *sum -= self.loss(guesses, &judge);
                }
            }
        }
        let of = |(families, networks): ([Vec<f64>; FAMILIES.len()], Vec<f64>)| Settings {
            reward_model: most_of(&networks),
            families: families.map(|scores| most_of(&scores)),
        };
        Ok(families.into_iter().zip(networks).map(of).collect())
    }

    /// Every candidate of every family.
    fn candidates(&self, train: &[usize], ask: &[usize], logs: &[Sample]) -> [Vec<Guesses>; FAMILIES.len()] {
        let Self { matrix, config, embeddings, .. } = self;
        let (all, logged) = (Seen::all(matrix), Seen::logged(matrix, logs));
        let clusters = config.clusters.iter().map(|&clusters| clusters_of(train, embeddings, clusters, config.seed));
        let clusters: Vec<Vec<usize>> = clusters.collect();
        let nearest = |seen: &Seen| {
            let of = |&count: &usize| nearest_means(matrix, train, ask, (&self.neighbours, count), seen);
            config.neighbours.iter().map(of).collect()
        };
        let clustered =
            |seen: &Seen| clusters.iter().map(|clusters| cluster_means(matrix, train, clusters, seen)).collect();
        let factored = Factored::new(matrix, train, embeddings);
        let factored = grid(config).into_iter().map(|(rank, ridge)| factored.guesses(rank, ridge)).collect();
        [nearest(&all), clustered(&all), factored, nearest(&logged), clustered(&logged)]
    }

    fn learner(&self, reward_model: usize, ensemble: usize) -> MatrixConfig {
        MatrixConfig {
            seed: self.config.seed,
            embedding_dim: self.config.embedding_dim,
            reward_model: self.config.reward_models[reward_model].clone(),
            ensemble,
            ..MatrixConfig::default()
        }
    }

    /// Area of quality over cost on `judge`.
    fn area(&self, guesses: &Guesses, train: &[usize], judge: &[usize]) -> f64 {
        let costs = self.matrix.mean_costs(train);
        let most = costs.iter().copied().fold(0.0, f64::max);
        let mean = |choices: Vec<usize>| {
            let sums = judge.iter().zip(choices).map(|(&query, model)| earned(self.matrix, query, model));
            let (cost, quality) = sums.fold((0.0, 0.0), |sums, one| (sums.0 + one.0, sums.1 + one.1));
            (cost / judge.len() as f64, quality / judge.len() as f64)
        };
        let cheapest = mean(vec![least(&costs); judge.len()]);
        let points: Vec<(f64, f64)> =
            rates(most).map(|usd| mean(guesses.choices(self.matrix, judge, usd))).chain([cheapest]).collect();
        aiq(&points, costs[least(&costs)], most)
    }

    /// Mean squared error of the guessed difference between two models that were both logged on one query of `judge`. Differences are what a
    /// router chooses by; how hard a query is for all models, which is most of a squared error of quality itself, decides nothing.
    fn loss(&self, guesses: &Guesses, judge: &[usize]) -> f64 {
        let queries = self.fold_of.len();
        let (mut sum, mut pairs) = (0.0, 0);
        for &query in judge {
            let error = |pass: usize| {
                let sample = &self.logs[pass * queries + query];
                let guess = guesses.quality[self.matrix.cell(query, sample.action)];
                (sample.action, guess - sample.quality.unwrap_or_default())
            };
            for (one, other) in (0..self.passes).flat_map(|one| (0..one).map(move |other| (one, other))) {
                let (one, other) = (error(one), error(other));
                if one.0 != other.0 {
                    sum += (one.1 - other.1).powi(2);
                    pairs += 1;
                }
            }
        }
        sum / f64::from(pairs.max(1))
    }

    /// All routers for the queries of an outer fold, none of which has seen a score of them, but the oracle.
    fn arms(&self, fold: usize, settings: &Settings) -> Result<Vec<(&'static str, Guesses)>> {
        let (held_out, train) = (self.part(|at| at == fold), self.part(|at| at != fold));
        let (matrix, embeddings) = (self.matrix, &self.embeddings);
        let logs = self.logs_on(&train);
        let learner = self.learner(settings.reward_model, self.config.ensemble);
        let learned = learn(matrix, &logs, embeddings, &learner)?;
        let corrected = self.config.policy_gradient.as_ref();
        let corrected = corrected.map(|gradient| correct(&learned, matrix, &logs, embeddings, (&learner, gradient)));
        let corrected = corrected.transpose()?;
        let of_all = learn(matrix, &all_scores(matrix, &train, embeddings), embeddings, &learner)?;
        let mut arms = vec![("learned policy", learned)];
        arms.extend(corrected.map(|corrected| (POLICY_GRADIENT, corrected)));
        arms.push(("learned policy, all scores", of_all));
        arms.push(("one model for all, same logs", model_means(matrix, &train, &Seen::logged(matrix, &logs))));
        arms.push(("best model per domain, same logs", logged_domain_means(matrix, &logs)));
        arms.push(("best model per domain, all scores", domain_means(matrix, &train)));
        let candidates = self.candidates(&train, &held_out, &logs).into_iter().zip(FAMILIES).zip(settings.families);
        for ((mut guesses, family), chosen) in candidates {
            arms.push((family, guesses.swap_remove(chosen)));
        }
        arms.push(("oracle", truth(matrix)));
        Ok(arms)
    }
}

/// Every model on every query, as if each had been logged.
fn all_scores(matrix: &Matrix, queries: &[usize], embeddings: &[Vec<f32>]) -> Vec<Sample> {
    let models = matrix.models.len();
    let of = |&query: &usize| {
        let sample = Sample {
            context: context(matrix, query, embeddings),
            executed_as_intended: true,
            cluster: matrix.queries[query].id.clone(),
            ..Sample::default()
        };
        (0..models).map(move |action| {
            let cell = matrix.cell(query, action);
            Sample {
                action,
                quality: Some(matrix.quality[cell]),
                cost_usd: Some(matrix.cost_usd[cell]),
                ..sample.clone()
            }
        })
    };
    queries.iter().flat_map(of).collect()
}

/// What the strong model is guessed to add to each query: where a policy corrects its guesses by the price of a call, the share of prices
/// up to one that it would pay for it, and then the guess.
fn gains(matrix: &Matrix, guesses: &Guesses, queries: &[usize]) -> Vec<f64> {
    const PRICES: usize = 16;
    let guessed = queries.iter().map(|&query| super::pairs::gain(matrix, guesses, query));
    if guesses.corrections.is_none() {
        return guessed.collect();
    }
    let mut found: Vec<f64> = guessed.map(|gain| gain / (100 * PRICES) as f64).collect();
    for price in 0..PRICES {
        let choices = guesses.choices(matrix, queries, price as f64 / PRICES as f64);
        found.iter_mut().zip(choices).for_each(|(found, model)| *found += model as f64 / PRICES as f64);
    }
    found
}

fn earned(matrix: &Matrix, query: usize, model: usize) -> (f64, f64) {
    let cell = matrix.cell(query, model);
    (matrix.cost_usd[cell], matrix.quality[cell])
}

fn mean_earned(matrix: &Matrix, query: usize) -> (f64, f64) {
    let models = matrix.models.len();
    let sums = (0..models).map(|model| earned(matrix, query, model));
    let (cost, quality) = sums.fold((0.0, 0.0), |sums, one| (sums.0 + one.0, sums.1 + one.1));
    (cost / models as f64, quality / models as f64)
}

fn least(values: &[f64]) -> usize {
    (0..values.len()).min_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap_or(0)
}

/// Place of the largest, the first of equals.
fn most_of(values: &[f64]) -> usize {
    (0..values.len()).rev().max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use weir_policy_runtime::Action;

    use super::super::data::MatrixQuery;
    use super::*;

    /// Three models on texts of three kinds, each with a model of its own.
    fn three_kinds() -> Matrix {
        let action = |model: &str| Action { model: model.into(), input_usd_per_mtok: None, output_usd_per_mtok: None };
        let kinds = ["prove the theorem about primes", "translate this letter to French", "write a loop in Rust"];
        let query = |n: usize| MatrixQuery {
            id: format!("q{n:03}"),
            text: format!("{} number {n}", kinds[n % 3]),
            domain: format!("part {}", n % 2),
        };
        Matrix {
            name: "three".into(),
            queries: (0..150).map(query).collect(),
            models: ["a", "b", "c"].map(action).to_vec(),
            quality: (0..450).map(|cell| if (cell / 3) % 3 == cell % 3 { 1.0 } else { 0.2 }).collect(),
            cost_usd: [1.0, 2.0, 3.0].repeat(150),
            cost_note: String::new(),
            answer_chars: None,
        }
    }

    fn quick() -> NestedConfig {
        let network = |hidden: &[usize]| RewardModelConfig {
            hidden: hidden.to_vec(),
            epochs: 8,
            batch_rows: 64,
            ..RewardModelConfig::default()
        };
        NestedConfig {
            folds: 3,
            embedding_dim: 32,
            reward_models: vec![network(&[8]), network(&[])],
            ensemble: 2,
            policy_gradient: Some(PolicyGradientConfig { epochs: 3, ..PolicyGradientConfig::default() }),
            neighbours: vec![5, 40],
            clusters: vec![2, 3],
            factors: vec![1, 2],
            ridges: vec![1e-3, 1e-1],
            bootstraps: 50,
            ..NestedConfig::default()
        }
    }

    /// Another world on one fold: its scores and costs are turned round. Nothing that is chosen for its queries may notice.
    #[test]
    fn nothing_of_a_fold_is_known_to_its_own_routers() {
        let (matrix, config) = (three_kinds(), quick());
        let study = Study::new(&matrix, &config).unwrap();
        let mut other = matrix.clone();
        for query in study.part(|fold| fold == 1) {
            let cells = matrix.cell(query, 0)..matrix.cell(query + 1, 0);
            cells.clone().for_each(|cell| other.quality[cell] = 1.0 - matrix.quality[cell]);
            other.cost_usd[cells].reverse();
        }
        let elsewhere = Study::new(&other, &config).unwrap();
        let arms = |study: &Study<'_>| study.arms(1, &study.choose_settings().unwrap()[1]).unwrap();
        let (here, there) = (arms(&study), arms(&elsewhere));
        let held_out = study.part(|fold| fold == 1);
        let choices = |matrix, guesses: &Guesses| -> Vec<Vec<usize>> {
            rates(3.0).map(|usd| guesses.choices(matrix, &held_out, usd)).collect()
        };
        for ((name, own), (_, others)) in here.iter().zip(&there) {
            let is_same = choices(&matrix, own) == choices(&other, others);
            assert_eq!(is_same, *name != "oracle", "{name}");
        }
        assert_eq!(here.len(), 12);
    }

    #[test]
    fn every_query_is_judged_once_and_the_oracle_is_the_best_of_all() {
        let set = MatrixSet { matrix: three_kinds(), costs: Costs::Recorded, note: "made up" };
        let report = nested_experiment(&set, &quick()).unwrap();
        let figure = |policy: &str, measure| {
            let score = report.scores.iter().find(|score| score.policy == policy).unwrap();
            score.figures[&measure].value
        };
        use super::super::measures::Measure;
        // Each model answers its third: (1 + 0.2 + 0.2) / 3 for any one of them and a blind draw; the oracle has all.
        for (policy, by_hand) in [("best single model", 1.4 / 3.0), ("uniform", 1.4 / 3.0), ("oracle", 1.0)] {
            let found = figure(policy, Measure::Quality);
            assert!((found - by_hand).abs() < 1e-9, "{policy}: {found}");
        }
        assert!((figure("oracle", Measure::OracleCapture) - 1.0).abs() < 1e-12);
        // Kinds differ in their words, not in their domain: neighbours find them, a table by domain does not.
        assert!(figure("nearest neighbours, all scores", Measure::Quality) > 0.9);
        assert!(figure("best model per domain, all scores", Measure::Quality) < 0.6);
        assert!(report.unsupported.contains_key(&Measure::Apgr) && !report.unsupported.contains_key(&Measure::Aiq));
        for score in &report.scores {
            assert!(figure("oracle", Measure::Aiq) >= score.figures[&Measure::Aiq].value, "{}", score.policy);
        }
        assert!(nested_experiment(&set, &NestedConfig { folds: 10, ..quick() }).is_err(), "15 queries a fold");
    }
}
