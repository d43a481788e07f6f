//! A matrix in folds: training routers on some, and choosing their settings on inner ones.
//!
//! What a router's settings are (a number of neighbours, a ridge, a network's shape) is chosen on inner folds of the training part: for
//! those that see all scores by the area of quality over cost on the inner fold, for those that see logs by how well they guess the
//! differences between models that were logged there. Networks are averaged: which, and with what weights, is chosen by the same
//! differences. An inner fit leaves out two folds, and serves either as the other's judge.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::area::{aiq, rates};
use super::classic::Factored;
use super::data::Matrix;
use super::experiment::{MatrixConfig, POLICY_GRADIENT, context, correct, learn, logged_domain_means, uniform_logs};
use super::nested::NestedConfig;
use super::policies::{Guesses, Seen, cluster_means, domain_means, model_means, nearest_means, truth};
use super::similar::{Neighbours, clusters_of};
use crate::error::{LearnError, Result};
use crate::reward_model::RewardModelConfig;
use crate::training_set::Sample;

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
pub(super) struct Settings {
    /// Reward models that are averaged; one that was picked often has a larger share.
    reward_models: Vec<usize>,
    /// Place of the best candidate of each family.
    families: [usize; FAMILIES.len()],
}

impl Settings {
    pub(super) fn in_words(&self, config: &NestedConfig) -> String {
        let mut picks: BTreeMap<usize, usize> = BTreeMap::new();
        self.reward_models.iter().for_each(|model| *picks.entry(*model).or_default() += 1);
        let in_words = |(model, picks): (usize, usize)| {
            let RewardModelConfig { hidden, weight_decay, epochs, .. } = &config.reward_models[model];
            format!("{picks} x (hidden {hidden:?}, weight decay {weight_decay}, at most {epochs} passes)")
        };
        let networks: Vec<String> = picks.into_iter().map(in_words).collect();
        let [near, clusters, factors, near_logs, clusters_logs] = self.families;
        let (rank, ridge) = grid(config)[factors];
        format!(
            "{}; {} neighbours, {} clusters, {rank} factors at ridge {ridge}; of the same logs {} neighbours, {} clusters",
            networks.join(" + "),
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
pub(super) struct Study<'a> {
    matrix: &'a Matrix,
    config: &'a NestedConfig,
    embeddings: Vec<Vec<f32>>,
    neighbours: Neighbours,
    fold_of: Vec<usize>,
    /// Logged decisions of each query.
    pub passes: usize,
    /// Decisions on all queries, shape `[passes, queries]`; whoever trains is given those of its training queries.
    logs: Vec<Sample>,
}

impl<'a> Study<'a> {
    pub(super) fn new(matrix: &'a Matrix, config: &'a NestedConfig) -> Result<Self> {
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

    pub(super) fn part(&self, takes: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..self.fold_of.len()).filter(|query| takes(self.fold_of[*query])).collect()
    }

    fn logs_on(&self, queries: &[usize]) -> Vec<Sample> {
        let of_pass = |pass: usize| queries.iter().map(move |query| pass * self.fold_of.len() + query);
        (0..self.passes).flat_map(of_pass).map(|at| self.logs[at].clone()).collect()
    }

    /// Settings for each outer fold.
    pub(super) fn choose_settings(&self) -> Result<Vec<Settings>> {
        let folds = self.config.folds;
        let reward_models = self.config.reward_models.len();
        let mut families: Vec<[Vec<f64>; FAMILIES.len()]> = vec![Default::default(); folds];
        let mut networks: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); reward_models]; folds];
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
                for (errors, guesses) in networks[outer].iter_mut().zip(&learned) {
                    errors.extend(self.errors(guesses, &judge));
                }
            }
        }
        let of = |(families, networks): ([Vec<f64>; FAMILIES.len()], Vec<Vec<f64>>)| Settings {
            reward_models: picked(&networks),
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

    /// Mean squared error of the guessed differences.
    fn loss(&self, guesses: &Guesses, judge: &[usize]) -> f64 {
        mean_square(&self.errors(guesses, judge))
    }

    /// Errors of the guessed difference between two models that were both logged on one query of `judge`. Differences are what a router
    /// chooses by; how hard a query is for all models, which is most of an error of quality itself, decides nothing.
    fn errors(&self, guesses: &Guesses, judge: &[usize]) -> Vec<f64> {
        let queries = self.fold_of.len();
        let mut errors = Vec::new();
        for &query in judge {
            let error = |pass: usize| {
                let sample = &self.logs[pass * queries + query];
                let guess = guesses.quality[self.matrix.cell(query, sample.action)];
                (sample.action, guess - sample.quality.unwrap_or_default())
            };
            for (one, other) in (0..self.passes).flat_map(|one| (0..one).map(move |other| (one, other))) {
                let (one, other) = (error(one), error(other));
                if one.0 != other.0 {
                    errors.push(one.1 - other.1);
                }
            }
        }
        errors
    }

    /// The mean of what the picked reward models guess, each as often as it was picked, and what the first pick guesses alone.
    fn averaged(&self, logs: &[Sample], picked: &[usize]) -> Result<(Guesses, Guesses)> {
        let cells = self.matrix.quality.len();
        let mut mean = Guesses { quality: vec![0.0; cells], cost_usd: vec![0.0; cells], ..Guesses::default() };
        let mut first = Guesses::default();
        let models: BTreeSet<usize> = picked.iter().copied().collect();
        for model in models {
            let share = picked.iter().filter(|pick| **pick == model).count() as f64 / picked.len() as f64;
            let guesses = learn(self.matrix, logs, &self.embeddings, &self.learner(model, self.config.ensemble))?;
            for (mean, own) in [(&mut mean.quality, &guesses.quality), (&mut mean.cost_usd, &guesses.cost_usd)] {
                mean.iter_mut().zip(own).for_each(|(mean, own)| *mean += share * own);
            }
            if model == picked[0] {
                first = guesses;
            }
        }
        Ok((mean, first))
    }

    /// All routers for the queries of an outer fold, none of which has seen a score of them, but the oracle.
    pub(super) fn arms(&self, fold: usize, settings: &Settings) -> Result<Vec<(&'static str, Guesses)>> {
        let (held_out, train) = (self.part(|at| at == fold), self.part(|at| at != fold));
        let (matrix, embeddings) = (self.matrix, &self.embeddings);
        let logs = self.logs_on(&train);
        let (learned, alone) = self.averaged(&logs, &settings.reward_models)?;
        let learner = self.learner(settings.reward_models[0], self.config.ensemble);
        let corrected = self.config.policy_gradient.as_ref();
        // Corrections are learned beside the guesses of one reward model, and belong to these.
        let corrected = corrected.map(|gradient| correct(&alone, matrix, &logs, embeddings, (&learner, gradient)));
        let corrected = corrected.transpose()?;
        let (of_all, _) = self.averaged(&all_scores(matrix, &train, embeddings), &settings.reward_models)?;
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

/// Picks that make an average.
const PICKS: usize = 10;

/// Ensemble selection (Caruana et al. 2004): the model whose errors, averaged with those picked so far, are least in square, again and
/// again; a model may be picked often. The first is the best alone, and the only one where there is nothing to choose by.
fn picked(errors: &[Vec<f64>]) -> Vec<usize> {
    let count = errors.first().map_or(0, Vec::len);
    if count == 0 {
        return vec![0];
    }
    let mut sums = vec![0.0; count];
    let mut picked = Vec::with_capacity(PICKS);
    for _ in 0..PICKS {
        let square = |own: &Vec<f64>| sums.iter().zip(own).map(|(sum, own)| (sum + own).powi(2)).sum::<f64>();
        // Guesses that are no numbers come last.
        let with = |own: &Vec<f64>| Some(-square(own)).filter(|square| !square.is_nan()).unwrap_or(f64::NEG_INFINITY);
        let best = most_of(&errors.iter().map(with).collect::<Vec<f64>>());
        sums.iter_mut().zip(&errors[best]).for_each(|(sum, own)| *sum += own);
        picked.push(best);
    }
    picked
}

fn mean_square(errors: &[f64]) -> f64 {
    errors.iter().map(|error| error * error).sum::<f64>() / errors.len().max(1) as f64
}

/// Cost and quality of a model on a query.
pub(super) fn earned(matrix: &Matrix, query: usize, model: usize) -> (f64, f64) {
    let cell = matrix.cell(query, model);
    (matrix.cost_usd[cell], matrix.quality[cell])
}

pub(super) fn least(values: &[f64]) -> usize {
    (0..values.len()).min_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap_or(0)
}

/// Place of the largest, the first of equals.
pub(super) fn most_of(values: &[f64]) -> usize {
    (0..values.len()).rev().max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::nested::tests::{quick, three_kinds};
    use super::*;

    /// Of two models that err by 1 and -3, three parts of the first and one of the second do not err at all; a third that errs by 2
    /// everywhere is never picked.
    #[test]
    fn models_are_averaged_so_that_their_errors_cancel() {
        let errors = [vec![1.0, -1.0], vec![-3.0, 3.0], vec![2.0, 2.0]];
        let picks = picked(&errors);
        assert_eq!((picks[0], picks.len()), (0, PICKS));
        let count = |model| picks.iter().filter(|pick| **pick == model).count();
        assert!((2..=3).contains(&count(1)) && count(2) == 0, "{picks:?}");
        assert_eq!(picked(&[vec![], vec![]]), [0]);
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
}
