//! Choosing a model from guesses of quality and cost, within a budget.

use std::collections::BTreeMap;

use weir_policy_runtime::{Mlp, MlpScratch, Objective, Preference};

use super::data::Matrix;
use super::similar::Neighbours;
use crate::training_set::Sample;

/// Guessed quality and cost of every model on every query of a matrix, shaped like the matrix itself.
#[derive(Default)]
pub(super) struct Guesses {
    pub quality: Vec<f64>,
    pub cost_usd: Vec<f64>,
    /// What policy learning adds.
    pub corrections: Option<Corrections>,
}

/// Corrections of the utility, for any exchange rate.
pub(super) struct Corrections {
    pub network: Mlp,
    pub preference: Preference,
    /// Features of every query, with a last place for the preference, shape `[queries, inputs]`.
    pub inputs: Vec<f32>,
}

impl Corrections {
    /// Writes each model's correction in units of quality at `usd` quality per dollar.
    fn write(&self, query: usize, usd: f64, room: &mut Room) {
        let objective = Objective { quality: 1.0, usd };
        let width = self.network.inputs();
        room.input.clear();
        room.input.extend_from_slice(&self.inputs[query * width..(query + 1) * width]);
        room.input[width - 1] = self.preference.input(&objective) as f32;
        let scale = self.preference.scale(&objective);
        room.corrections.clear();
        let outputs = self.network.forward(&room.input, &mut room.scratch);
        room.corrections.extend(outputs.iter().map(|output| scale * f64::from(*output)));
    }
}

/// Room for one query's corrections.
#[derive(Default)]
struct Room {
    input: Vec<f32>,
    scratch: MlpScratch,
    corrections: Vec<f64>,
}

impl Guesses {
    /// The best guess for each of `queries` at an exchange rate of `usd` quality per dollar, ties to the cheaper model.
    pub(super) fn choices(&self, matrix: &Matrix, queries: &[usize], usd: f64) -> Vec<usize> {
        let mut room = Room::default();
        queries.iter().map(|&query| self.choose(matrix, query, usd, &mut room)).collect()
    }

    fn choose(&self, matrix: &Matrix, query: usize, usd: f64, room: &mut Room) -> usize {
        if let Some(corrections) = &self.corrections {
            corrections.write(query, usd, room);
        }
        let utility = |model: usize| {
            let cell = matrix.cell(query, model);
            let correction = room.corrections.get(model).copied().unwrap_or_default();
            (self.quality[cell] - usd * self.cost_usd[cell] + correction, -self.cost_usd[cell])
        };
        let better = |a: &usize, b: &usize| utility(*a).partial_cmp(&utility(*b)).unwrap_or(std::cmp::Ordering::Equal);
        (0..matrix.models.len()).max_by(better).unwrap_or(0)
    }

    fn mean_cost(&self, matrix: &Matrix, queries: &[usize], usd: f64) -> f64 {
        let choices = self.choices(matrix, queries, usd);
        let costs = queries.iter().zip(choices).map(|(&query, model)| self.cost_usd[matrix.cell(query, model)]);
        costs.sum::<f64>() / queries.len().max(1) as f64
    }

    /// Most guessed quality for `queries` at no more than `budget_usd` on average: the two exchange rates on either
    /// side of the budget (the dual of the budget, by bisection) and the share of decisions that go to the dearer one,
    /// so that the budget is spent whole. A budget that is never reached gives one rate, zero.
    fn rates_within(&self, matrix: &Matrix, queries: &[usize], budget_usd: f64) -> (f64, f64, f64) {
        if self.mean_cost(matrix, queries, 0.0) <= budget_usd * (1.0 + 1e-9) {
            return (0.0, 0.0, 0.0);
        }
        let (mut low, mut high) = (0.0, 1.0 / budget_usd);
        while self.mean_cost(matrix, queries, high) > budget_usd && high < 1e9 / budget_usd {
            high *= 4.0;
        }
        for _ in 0..50 {
            let middle = f64::midpoint(low, high);
            if self.mean_cost(matrix, queries, middle) > budget_usd { low = middle } else { high = middle }
        }
        let (dear, cheap) = (self.mean_cost(matrix, queries, low), self.mean_cost(matrix, queries, high));
        let share = if dear > cheap { ((budget_usd - cheap) / (dear - cheap)).clamp(0.0, 1.0) } else { 0.0 };
        (low, high, share)
    }

    /// Choices for `test` at the rates that keep `train` within the budget.
    pub(super) fn within(&self, matrix: &Matrix, train: &[usize], test: &[usize], budget_usd: f64) -> Choices {
        let (low, high, share) = self.rates_within(matrix, train, budget_usd);
        Choices { dear: self.choices(matrix, test, low), cheap: self.choices(matrix, test, high), dear_share: share }
    }
}

/// A model for each query, drawn between two: the dearer one with probability `dear_share`.
pub(super) struct Choices {
    pub dear: Vec<usize>,
    pub cheap: Vec<usize>,
    pub dear_share: f64,
}

impl Choices {
    /// The same model for every query.
    pub(super) fn always(model: usize, queries: usize) -> Self {
        Self { dear: vec![model; queries], cheap: vec![model; queries], dear_share: 0.0 }
    }
}

/// The same guesses for every query of a domain: means over the training queries, all scores seen.
pub(super) fn domain_means(matrix: &Matrix, train: &[usize]) -> Guesses {
    let models = matrix.models.len();
    let mut by_domain: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &query in train {
        by_domain.entry(&matrix.queries[query].domain).or_default().push(query);
    }
    let means = |queries: &[usize]| (matrix.means(&matrix.quality, queries), matrix.mean_costs(queries));
    let overall = means(train);
    let by_domain: BTreeMap<&str, _> =
        by_domain.into_iter().map(|(domain, queries)| (domain, means(&queries))).collect();
    let mut guesses = Guesses { quality: Vec::new(), cost_usd: Vec::new(), ..Guesses::default() };
    for query in &matrix.queries {
        let (quality, cost_usd) = by_domain.get(query.domain.as_str()).unwrap_or(&overall);
        guesses.quality.extend_from_slice(&quality[..models]);
        guesses.cost_usd.extend_from_slice(&cost_usd[..models]);
    }
    guesses
}

/// The scores that a baseline may look at, summed by cell of the matrix.
pub(super) struct Seen {
    times: Vec<f64>,
    quality: Vec<f64>,
    cost_usd: Vec<f64>,
    /// Observations that a model's overall mean counts for beside those of a group.
    prior: f64,
}

impl Seen {
    /// Every score, once.
    pub(super) fn all(matrix: &Matrix) -> Self {
        let times = vec![1.0; matrix.quality.len()];
        Self { times, quality: matrix.quality.clone(), cost_usd: matrix.cost_usd.clone(), prior: 0.0 }
    }

    /// What logs show. A group that hardly tried a model says little about it: the prior is that of the tables by domain.
    pub(super) fn logged(matrix: &Matrix, logs: &[Sample]) -> Self {
        const PRIOR: f64 = 10.0;
        let at: BTreeMap<&str, usize> =
            matrix.queries.iter().enumerate().map(|(query, known)| (known.id.as_str(), query)).collect();
        let cells = matrix.quality.len();
        let mut seen =
            Self { times: vec![0.0; cells], quality: vec![0.0; cells], cost_usd: vec![0.0; cells], prior: PRIOR };
        for sample in logs {
            let Some(&query) = at.get(sample.cluster.as_str()) else { continue };
            let cell = matrix.cell(query, sample.action);
            seen.times[cell] += 1.0;
            seen.quality[cell] += sample.quality.unwrap_or_default();
            seen.cost_usd[cell] += sample.cost_usd.unwrap_or_default();
        }
        seen
    }

    /// Mean quality and cost of each model over `queries`, drawn to `overall` by the prior.
    fn means(&self, matrix: &Matrix, queries: &[usize], overall: &Means) -> Means {
        let mean = |plane: &[f64], model: usize, overall: f64| {
            let cells = queries.iter().map(|&query| matrix.cell(query, model));
            let (sum, times) = cells.fold((0.0, 0.0), |(sum, n), cell| (sum + plane[cell], n + self.times[cell]));
            let weight = times + self.prior;
            if weight > 0.0 { (sum + self.prior * overall) / weight } else { overall }
        };
        let of = |plane: &[f64], overall: &[f64]| {
            overall.iter().enumerate().map(|(model, overall)| mean(plane, model, *overall)).collect()
        };
        Means { quality: of(&self.quality, &overall.quality), cost_usd: of(&self.cost_usd, &overall.cost_usd) }
    }

    /// The same over all of `train`, drawn to the mean of all models.
    fn overall(&self, matrix: &Matrix, train: &[usize]) -> Means {
        let models = matrix.models.len();
        let mean = |plane: &[f64]| {
            let cells = train.iter().flat_map(|&query| matrix.cell(query, 0)..matrix.cell(query + 1, 0));
            let (sum, times) = cells.fold((0.0, 0.0), |(sum, n), cell| (sum + plane[cell], n + self.times[cell]));
            vec![if times > 0.0 { sum / times } else { 0.0 }; models]
        };
        let of_all = Means { quality: mean(&self.quality), cost_usd: mean(&self.cost_usd) };
        self.means(matrix, train, &of_all)
    }
}

/// Quality and cost of each model.
#[derive(Clone)]
struct Means {
    quality: Vec<f64>,
    cost_usd: Vec<f64>,
}

/// Means over the `count` nearest training queries; for the queries of `ask`, the others stay 0.
pub(super) fn nearest_means(
    matrix: &Matrix,
    train: &[usize],
    ask: &[usize],
    (neighbours, count): (&Neighbours, usize),
    seen: &Seen,
) -> Guesses {
    let cells = matrix.quality.len();
    let mut guesses = Guesses { quality: vec![0.0; cells], cost_usd: vec![0.0; cells], ..Guesses::default() };
    let mut may_ask = vec![false; matrix.queries.len()];
    train.iter().for_each(|&query| may_ask[query] = true);
    let overall = seen.overall(matrix, train);
    for &query in ask {
        let nearest: Vec<usize> = neighbours.of(query, &may_ask, count).collect();
        let means = seen.means(matrix, &nearest, &overall);
        let own = matrix.cell(query, 0)..matrix.cell(query + 1, 0);
        guesses.quality[own.clone()].copy_from_slice(&means.quality);
        guesses.cost_usd[own].copy_from_slice(&means.cost_usd);
    }
    guesses
}

/// Means over the training queries of each query's cluster, which is what Avengers does (arXiv 2505.19797).
pub(super) fn cluster_means(matrix: &Matrix, train: &[usize], cluster_of: &[usize], seen: &Seen) -> Guesses {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    train.iter().for_each(|&query| members.entry(cluster_of[query]).or_default().push(query));
    let overall = seen.overall(matrix, train);
    let means: BTreeMap<usize, Means> =
        members.into_iter().map(|(cluster, queries)| (cluster, seen.means(matrix, &queries, &overall))).collect();
    let mut guesses = Guesses::default();
    for cluster in cluster_of {
        let Means { quality, cost_usd } = means.get(cluster).unwrap_or(&overall);
        guesses.quality.extend_from_slice(quality);
        guesses.cost_usd.extend_from_slice(cost_usd);
    }
    guesses
}

/// The same guesses for every query: each model's means.
pub(super) fn model_means(matrix: &Matrix, train: &[usize], seen: &Seen) -> Guesses {
    cluster_means(matrix, train, &vec![0; matrix.queries.len()], seen)
}

/// The truth, as nobody knows it before choosing.
pub(super) fn truth(matrix: &Matrix) -> Guesses {
    Guesses { quality: matrix.quality.clone(), cost_usd: matrix.cost_usd.clone(), ..Guesses::default() }
}
