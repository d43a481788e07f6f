//! A weak and a strong model: which queries are worth the strong one?
//!
//! Measures as RouteLLM defines them (arXiv 2406.18665): PGR is the share of the gap between both models that is recovered at a share of
//! calls to the strong one; APGR its mean over all shares; CPT(x) the least share of calls at which PGR reaches x. A router that draws
//! blindly has an APGR of one half.
//!
//! Every query is guessed by routers that were trained on the other folds, and ranked among its own. Nothing is tuned on any of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::prelude::SessionContext;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use weir_policy_runtime::Action;

use super::classic::Factored;
use super::data::{Matrix, MatrixQuery, answer_lengths};
use super::experiment::{MatrixConfig, learn, logged_domain_means, uniform_logs};
use super::policies::{Guesses, Seen, cluster_means, domain_means, nearest_means, truth};
use super::similar::{Neighbours, clusters_of};
use crate::error::{LearnError, Result};
use crate::ope::{Estimate, fold_of, percentile_estimate};
use crate::parquet_table::register_parquet;
use crate::report::interval;

const FOLDS: usize = 5;
const BOOTSTRAPS_MAX: usize = 500;
const WEAK: usize = 0;
const STRONG: usize = 1;

const PAIRS_SQL: &str = include_str!("../sql/matrix_pairs.sql");
const LENGTHS_SQL: &str = include_str!("../sql/matrix_pairs_lengths.sql");
const COLUMNS: [&str; 8] =
    ["query_id", "query", "subject", "benchmark", "weak_score", "strong_score", "weak_model", "strong_model"];

/// The file of a folder of pairs.
pub const PAIRS_FILE: &str = "pairs.parquet";

/// What one router recovers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairScore {
    /// The router.
    pub router: String,
    /// Mean recovered share of the gap over all shares of strong calls; 0.5 is blind.
    pub apgr: Estimate,
    /// Share of strong calls at which half of the gap is recovered.
    pub cpt_50: Estimate,
    /// The same for four fifths.
    pub cpt_80: Estimate,
}

/// One benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairsReport {
    /// Which.
    pub benchmark: String,
    /// Queries judged, each by routers that had not seen it.
    pub queries: usize,
    /// Decisions that the learned router saw in a fold, one score each.
    pub logged_decisions: usize,
    /// The weak model, and its mean score.
    pub weak: (String, f64),
    /// The strong one.
    pub strong: (String, f64),
    /// Mean of the better of both.
    pub oracle: f64,
    /// Coverage that intervals aim for.
    pub confidence: f64,
    /// Every router.
    pub scores: Vec<PairScore>,
}

/// Reads the pairs of a folder, one matrix a benchmark; a strong call costs 1 and a weak one nothing.
///
/// # Errors
/// [`LearnError::Unreadable`] when the file or a column of it is missing, or holds no pair.
pub async fn load_pairs(folder: &Path) -> Result<Vec<Matrix>> {
    let session = SessionContext::new();
    register_parquet(&session, "pairs", &folder.join(PAIRS_FILE), &COLUMNS).await?;
    let mut matrices: BTreeMap<String, Matrix> = BTreeMap::new();
    for batch in session.sql(PAIRS_SQL).await?.collect().await? {
        let texts = [0, 1, 2, 3, 6, 7].map(|column| cast(batch.column(column), &DataType::Utf8));
        let [id, text, domain, benchmark, weak, strong] = texts;
        let (id, text, domain, benchmark, weak, strong) = (id?, text?, domain?, benchmark?, weak?, strong?);
        let string = |column: &arrow::array::ArrayRef, row| column.as_string::<i32>().value(row).to_owned();
        let (weak_score, strong_score) = (batch.column(4).as_primitive::<Float64Type>(), batch.column(5));
        let strong_score = strong_score.as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let name = string(&benchmark, row);
            let matrix = matrices.entry(name.clone()).or_insert_with(|| Matrix {
                name,
                queries: Vec::new(),
                models: [&weak, &strong].map(|model| action(&string(model, row))).to_vec(),
                quality: Vec::new(),
                cost_usd: Vec::new(),
                cost_note: "a strong call is 1".to_owned(),
                answer_chars: None,
                encoded: None,
            });
            matrix.queries.push(MatrixQuery {
                id: string(&id, row),
                text: string(&text, row),
                domain: string(&domain, row),
            });
            matrix.quality.extend([weak_score.value(row), strong_score.value(row)]);
            matrix.cost_usd.extend([0.0, 1.0]);
        }
    }
    if matrices.is_empty() {
        return Err(LearnError::Unreadable {
            what: folder.join(PAIRS_FILE).display().to_string(),
            why: "it holds no query with both scores".to_owned(),
        });
    }
    let lengths = answer_lengths(&session, "pairs", &["weak_response", "strong_response"], LENGTHS_SQL).await?;
    Ok(matrices.into_values().map(|matrix| matrix.with_answer_chars(&lengths)).collect())
}

fn action(model: &str) -> Action {
    Action { model: model.to_owned(), input_usd_per_mtok: None, output_usd_per_mtok: None }
}

/// Trains and judges every router by cross-validation.
///
/// # Errors
/// When there are too few queries, or both models are equally good.
pub fn pairs_experiment(matrix: &Matrix, config: &MatrixConfig) -> Result<PairsReport> {
    const QUERIES_MIN: usize = 100;
    let all: Vec<usize> = (0..matrix.queries.len()).collect();
    let means = matrix.means(&matrix.quality, &all);
    if all.len() < QUERIES_MIN || means[STRONG] <= means[WEAK] {
        return Err(LearnError::NotEnoughData(format!(
            "{} queries, and the strong model scores {:.4} where the weak one does {:.4}: at least {QUERIES_MIN} are needed, and a gap",
            all.len(),
            means[STRONG],
            means[WEAK]
        )));
    }
    let embeddings = matrix.embeddings(config.embedding_dim);
    let (neighbours, seen) = (Neighbours::new(&embeddings), Seen::all(matrix));
    let mut gains: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut logged_decisions = 0;
    for fold in 0..FOLDS {
        let (held_out, train): (Vec<usize>, Vec<usize>) = all.iter().partition(|query| fold_of(**query, FOLDS) == fold);
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed.wrapping_add(fold as u64));
        let logs = uniform_logs(matrix, &train, &embeddings, config.passes, &mut rng);
        logged_decisions = logs.len();
        let clusters = clusters_of(&train, &embeddings, config.clusters, config.seed);
        let routers: [(&str, Guesses); 6] = [
            ("learned policy", learn(matrix, &logs, &embeddings, config)?),
            ("best model per domain, same logs", logged_domain_means(matrix, &logs)),
            ("best model per domain, all scores", domain_means(matrix, &train)),
            (
                "nearest neighbours, all scores",
                nearest_means(matrix, &train, &held_out, (&neighbours, config.neighbours), &seen),
            ),
            ("clusters, all scores", cluster_means(matrix, &train, &clusters, &seen)),
            (
                "matrix factorisation, all scores",
                Factored::new(matrix, &train, &embeddings).guesses(config.factors, config.ridge),
            ),
        ];
        for (name, guesses) in routers {
            let at = gains.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
                gains.push((name, vec![0.0; all.len()]));
                gains.len() - 1
            });
            let guessed: Vec<f64> = held_out.iter().map(|query| gain(matrix, &guesses, *query)).collect();
            // A threshold of its own for each fold: a fold whose own gap is large was left with a small one to learn from, so that
            // guesses of two folds compare the wrong way round.
            for (rank, place) in order(&guessed).into_iter().enumerate() {
                gains[at].1[held_out[place]] = 1.0 - rank as f64 / held_out.len() as f64;
            }
        }
    }
    let known = truth(matrix);
    gains.push(("oracle", all.iter().map(|query| gain(matrix, &known, *query)).collect()));
    let orders: Vec<Vec<usize>> = gains.iter().map(|(_, gains)| order(gains)).collect();
    let mut draws: Vec<[Vec<f64>; 3]> = vec![Default::default(); orders.len()];
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    for _ in 0..config.bootstraps.min(BOOTSTRAPS_MAX) {
        let mut times = vec![0.0; all.len()];
        all.iter().for_each(|_| times[rng.random_range(0..all.len())] += 1.0);
        for (order, draws) in orders.iter().zip(&mut draws) {
            let Some(found) = recovered(matrix, order, &times) else { continue };
            draws.iter_mut().zip(found).for_each(|(draws, value)| draws.push(value));
        }
    }
    let whole = vec![1.0; all.len()];
    let scores = gains.iter().zip(&orders).zip(draws).map(|(((name, _), order), draws)| {
        let values = recovered(matrix, order, &whole).unwrap_or([f64::NAN; 3]);
        let [apgr, cpt_50, cpt_80] = draws;
        let estimate = |value, mut draws: Vec<f64>| percentile_estimate(value, &mut draws, config.confidence);
        PairScore {
            router: (*name).to_owned(),
            apgr: estimate(values[0], apgr),
            cpt_50: estimate(values[1], cpt_50),
            cpt_80: estimate(values[2], cpt_80),
        }
    });
    let better = |query: &usize| {
        let cell = matrix.cell(*query, 0);
        matrix.quality[cell].max(matrix.quality[cell + 1])
    };
    Ok(PairsReport {
        benchmark: matrix.name.clone(),
        queries: all.len(),
        logged_decisions,
        weak: (matrix.models[WEAK].model.clone(), means[WEAK]),
        strong: (matrix.models[STRONG].model.clone(), means[STRONG]),
        oracle: all.iter().map(better).sum::<f64>() / all.len() as f64,
        confidence: config.confidence,
        scores: scores.collect(),
    })
}

/// What the strong model is guessed to add.
pub(super) fn gain(matrix: &Matrix, guesses: &Guesses, query: usize) -> f64 {
    let cell = matrix.cell(query, 0);
    guesses.quality[cell + STRONG] - guesses.quality[cell + WEAK]
}

/// Queries in the order in which they are given to the strong model; equal guesses in an order of their own, not the file's.
pub(super) fn order(gains: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..gains.len()).collect();
    let shuffled = |query: usize| fold_of(query, usize::MAX);
    order.sort_by(|a, b| gains[*b].total_cmp(&gains[*a]).then(shuffled(*a).cmp(&shuffled(*b))));
    order
}

/// APGR, CPT(50 %) and CPT(80 %), where each query counts so many times; `None` where a resample has no gap.
pub(super) fn recovered(matrix: &Matrix, order: &[usize], times: &[f64]) -> Option<[f64; 3]> {
    let total: f64 = times.iter().sum();
    let gap: f64 = order
        .iter()
        .map(|&query| {
            times[query] * (matrix.quality[matrix.cell(query, STRONG)] - matrix.quality[matrix.cell(query, WEAK)])
        })
        .sum();
    if gap <= 0.0 {
        return None;
    }
    let (mut gained, mut calls, mut area) = (0.0, 0.0, 0.0);
    let mut reached = [None; 2];
    for &query in order {
        let before = gained / gap;
        let cell = matrix.cell(query, 0);
        gained += times[query] * (matrix.quality[cell + STRONG] - matrix.quality[cell + WEAK]);
        calls += times[query];
        area += times[query] / total * f64::midpoint(before, gained / gap);
        for (at, share) in [0.5, 0.8].into_iter().enumerate() {
            if reached[at].is_none() && gained / gap >= share - 1e-12 {
                reached[at] = Some(calls / total);
            }
        }
    }
    Some([area, reached[0].unwrap_or(1.0), reached[1].unwrap_or(1.0)])
}

/// PGR at a share of strong calls, the query on the edge taken in part; `None` where there is no gap.
pub(super) fn recovered_at(matrix: &Matrix, order: &[usize], times: &[f64], share: f64) -> Option<f64> {
    let added = |query: usize| matrix.quality[matrix.cell(query, STRONG)] - matrix.quality[matrix.cell(query, WEAK)];
    let gap: f64 = order.iter().map(|&query| times[query] * added(query)).sum();
    if gap <= 0.0 {
        return None;
    }
    let mut left = share * times.iter().sum::<f64>();
    let mut gained = 0.0;
    for &query in order {
        let taken = times[query].min(left);
        gained += taken * added(query);
        left -= taken;
    }
    Some(gained / gap)
}

impl PairsReport {
    /// For people.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| writeln!(out, "{text}").expect("a String takes any text");
        line(format!("# {}: {} and {}\n", self.benchmark, self.weak.0, self.strong.0));
        line(format!(
            "{} queries in {FOLDS} folds, each guessed by routers trained on the other four; the learned policy saw {} decisions there, one \
             score each. Weak {:.4}, strong {:.4}, the better of both {:.4}. Intervals: {:.0} %, over queries.\n",
            self.queries,
            self.logged_decisions,
            self.weak.1,
            self.strong.1,
            self.oracle,
            100.0 * self.confidence
        ));
        line("| router | APGR | CPT(50 %) | CPT(80 %) |".to_owned());
        line("|---|---|---|---|".to_owned());
        for score in &self.scores {
            line(format!(
                "| {} | {} | {} | {} |",
                score.router,
                interval(&score.apgr),
                interval(&score.cpt_50),
                interval(&score.cpt_80)
            ));
        }
        line("| blind | 0.5000 | 0.5000 | 0.8000 |".to_owned());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(scores: &[(f64, f64)]) -> Matrix {
        let query = |n: usize| MatrixQuery { id: n.to_string(), text: n.to_string(), domain: "d".to_owned() };
        Matrix {
            name: "pairs".to_owned(),
            queries: (0..scores.len()).map(query).collect(),
            models: vec![action("weak"), action("strong")],
            quality: scores.iter().flat_map(|(weak, strong)| [*weak, *strong]).collect(),
            cost_usd: scores.iter().flat_map(|_| [0.0, 1.0]).collect(),
            cost_note: String::new(),
            answer_chars: None,
            encoded: None,
        }
    }

    /// Ten queries: four that only the strong one answers, one that only the weak one does. The gap is 3. In the best order the fourth
    /// call recovers 4/3; half is reached with the second (2/3), four fifths with the third (1).
    #[test]
    fn measures_are_their_definitions() {
        let mut scores = vec![(0.0, 1.0); 4];
        scores.extend([(1.0, 1.0); 5]);
        scores.push((1.0, 0.0));
        let matrix = matrix(&scores);
        let best: Vec<usize> = (0..10).collect();
        let [apgr, half, most] = recovered(&matrix, &best, &[1.0; 10]).unwrap();
        // Trapezoids of 1/10 over 0, 1/3, 2/3, 1, 4/3, then 4/3 until 9/10, and down to 1.
        let by_hand = (1.0 / 6.0 + 0.5 + 5.0 / 6.0 + 7.0 / 6.0 + 5.0 * 4.0 / 3.0 + 7.0 / 6.0) / 10.0;
        assert!((apgr - by_hand).abs() < 1e-12, "{apgr} by hand {by_hand}");
        assert!((half - 0.2).abs() < 1e-12 && (most - 0.3).abs() < 1e-12);
        // Two calls recover 2/3; a quarter of ten calls half of the third query besides.
        for (share, by_hand) in [(0.2, 2.0 / 3.0), (0.25, 2.5 / 3.0), (1.0, 1.0)] {
            let found = recovered_at(&matrix, &best, &[1.0; 10], share).unwrap();
            assert!((found - by_hand).abs() < 1e-12, "{found} at a share of {share}");
        }
        assert!(recovered(&matrix, &best, &[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]).is_none(), "no gap");
    }

    #[test]
    fn equal_guesses_are_in_no_order_of_the_file() {
        let order = order(&vec![0.0; 1_000]);
        let first_half = order[..500].iter().filter(|query| **query < 500).count();
        // Hypergeometric: 250, standard deviation 7.9.
        assert!((210..=290).contains(&first_half), "{first_half}");
    }
}
