//! Nested cross-validation on a score matrix: every query is judged once, by routers that were trained and set up on the other folds.

use serde::{Deserialize, Serialize};

use super::area::rates;
use super::data::Matrix;
use super::measures::{Frame, Setting, Strong, Tried, estimates};
use super::nested_report::{NestedReport, NestedScore};
use super::pairs::order;
use super::policies::Guesses;
use super::published::{Costs, MatrixSet};
use super::study::{Study, earned, least, most_of};
use crate::error::Result;
use crate::policy_gradient::PolicyGradientConfig;
use crate::reward_model::RewardModelConfig;

/// How to run it. Where a setting has several values, inner folds choose among them; of reward models they choose an average.
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
    /// Networks of each reward model whose guesses are averaged.
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
        text_features: text_features(matrix, config.embedding_dim),
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

fn text_features(matrix: &Matrix, dim: usize) -> String {
    match &matrix.encoded {
        Some(encoded) => format!("{} numbers by `{}`", encoded.vectors.first().map_or(0, Vec::len), encoded.by),
        None if matrix.has_texts() => format!("hashed n-grams, {dim} numbers"),
        None => "none in the data".to_owned(),
    }
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

fn mean_earned(matrix: &Matrix, query: usize) -> (f64, f64) {
    let models = matrix.models.len();
    let sums = (0..models).map(|model| earned(matrix, query, model));
    let (cost, quality) = sums.fold((0.0, 0.0), |sums, one| (sums.0 + one.0, sums.1 + one.1));
    (cost / models as f64, quality / models as f64)
}

#[cfg(test)]
pub(super) mod tests {
    use weir_policy_runtime::Action;

    use super::super::data::MatrixQuery;
    use super::super::measures::Measure;
    use super::*;

    /// Three models on texts of three kinds, each with a model of its own.
    pub(in crate::matrix) fn three_kinds() -> Matrix {
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
            encoded: None,
        }
    }

    pub(in crate::matrix) fn quick() -> NestedConfig {
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

    #[test]
    fn every_query_is_judged_once_and_the_oracle_is_the_best_of_all() {
        let set = MatrixSet { matrix: three_kinds(), costs: Costs::Recorded, note: "made up" };
        let report = nested_experiment(&set, &quick()).unwrap();
        let figure = |policy: &str, measure| {
            let score = report.scores.iter().find(|score| score.policy == policy).unwrap();
            score.figures[&measure].value
        };
        // Each model answers its third: (1 + 0.2 + 0.2) / 3 for a blind draw; the oracle has all.
        for (policy, by_hand) in [("uniform", 1.4 / 3.0), ("oracle", 1.0)] {
            let found = figure(policy, Measure::Quality);
            assert!((found - by_hand).abs() < 1e-9, "{policy}: {found}");
        }
        // The kind that is most frequent in the training part is the least frequent in the rest.
        assert!(figure("best single model", Measure::Quality) <= 1.4 / 3.0 + 1e-9);
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
