//! Cascades on a score matrix: what they earn, what they cost, and whether their promise holds.
//!
//! Queries are split in three: the accept score and the levels come from the first part, the threshold from the second, and the third is
//! judged. An escalation pays for both calls.
//!
//! The promise `P(risk > alpha) <= delta` is about the draw of the second part. It is tried as it stands: the queries outside the first
//! part are taken for the whole population, whose risk at each level is known; second parts are drawn from it with replacement, and how
//! often the level chosen has a risk above `alpha` is counted.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use weir_policy_runtime::hash_embedding::hash_embedding;
use weir_policy_runtime::{Answer, OwnedContext};

use super::cascade_arms::{Arm, Query, scored};
use super::cascade_report::{CascadeReport, Guarantee};
use super::data::Matrix;
use super::experiment::context;
use crate::cascade::{
    AcceptConfig, AcceptFit, AcceptRow, CascadeLoss, JudgedAnswer, RiskBound, RiskConfig, ThresholdChoice,
    choose_threshold, fit_accept, levels,
};
use crate::error::{LearnError, Result};

/// How to run the experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeConfig {
    /// Seed of the split, the draws and the intervals.
    pub seed: u64,
    /// Share of the queries that the accept score is fitted on.
    pub train_share: f64,
    /// Share of the queries that thresholds are tested on.
    pub calibrate_share: f64,
    /// Dimensions of the hashed text embedding.
    pub embedding_dim: usize,
    /// The accept score.
    pub accept: AcceptConfig,
    /// Risks that are promised, in units of quality.
    pub alphas: Vec<f64>,
    /// Probability with which a promise may fail.
    pub delta: f64,
    /// Levels of the score that can become thresholds.
    pub levels: usize,
    /// Second parts drawn to try the promise.
    pub draws: usize,
    /// Resamples of the test queries for the intervals.
    pub bootstraps: usize,
    /// Coverage that the intervals aim for.
    pub confidence: f64,
    /// Cost of a cheap and of a strong call, USD, in place of the matrix' own, and where it comes from.
    pub call_usd: Option<(f64, f64, String)>,
}

impl Default for CascadeConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            train_share: 0.4,
            calibrate_share: 0.3,
            embedding_dim: 64,
            accept: AcceptConfig::default(),
            alphas: vec![0.01, 0.02, 0.05],
            delta: 0.1,
            levels: 100,
            draws: 1000,
            bootstraps: 1000,
            confidence: 0.95,
            call_usd: None,
        }
    }
}

/// The kinds of promises that are tried, and whether what they earn is shown.
const PROMISES: [(CascadeLoss, RiskBound, bool); 3] = [
    (CascadeLoss::Harm, RiskBound::HoeffdingBentkus, true),
    (CascadeLoss::Net, RiskBound::Betting, true),
    (CascadeLoss::Net, RiskBound::HoeffdingBentkus, false),
];

/// Runs the experiment: the strong model is the best of the first part, the cheap one the best at half of its cost or less.
///
/// # Errors
/// When a part is too small, no model is that much cheaper, or the configuration makes no sense.
pub fn cascade_experiment(matrix: &Matrix, config: &CascadeConfig) -> Result<CascadeReport> {
    check(config)?;
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut order: Vec<usize> = (0..matrix.queries.len()).collect();
    order.shuffle(&mut rng);
    let part = |share: f64| (order.len() as f64 * share).round() as usize;
    let (train, others) = order.split_at(part(config.train_share));
    let calibrated = part(config.calibrate_share).min(others.len());
    let (cheap, strong) = pair(matrix, train, config)?;

    let rows = accept_rows(matrix, (cheap, strong), config);
    let of_prompts: Vec<AcceptRow> =
        rows.iter().map(|row| AcceptRow { answer: Answer::default(), ..row.clone() }).collect();
    let (accept, accept_levels, accept_scores) = fitted(&rows, train, config)?;
    let (router_levels, router_scores) = if matrix.answer_chars.is_some() {
        let (_, levels, scores) = fitted(&of_prompts, train, config)?;
        (levels, scores)
    } else {
        (accept_levels.clone(), accept_scores.clone())
    };
    let usd = |query: usize, model: usize| matrix.cost_usd[matrix.cell(query, model)];
    let query = |&query: &usize| {
        let listed = config.call_usd.as_ref().map(|(cheap, strong, _)| (*cheap, *strong));
        let (cheap_usd, strong_usd) = listed.unwrap_or((usd(query, cheap), usd(query, strong)));
        Query {
            cheap: matrix.quality[matrix.cell(query, cheap)],
            strong: matrix.quality[matrix.cell(query, strong)],
            cheap_usd,
            strong_usd,
            accept_score: accept_scores[query],
            router_score: router_scores[query],
        }
    };
    let population: Vec<Query> = others.iter().map(query).collect();
    let (calibrate, test) = population.split_at(calibrated);
    if test.len() < PART_QUERIES_MIN || calibrate.len() < PART_QUERIES_MIN {
        return Err(LearnError::NoCascade(format!(
            "{} queries to test thresholds on and {} to judge on are too few: at least {PART_QUERIES_MIN} each are needed",
            calibrate.len(),
            test.len()
        )));
    }

    let mut arms = vec![Arm::strong(test), Arm::cheap(test), Arm::knowing(test)];
    let mut guarantees = Vec::new();
    for &alpha in &config.alphas {
        for (loss, bound, is_shown) in PROMISES {
            let risk = RiskConfig { loss, bound, alpha, delta: config.delta };
            guarantees.push(tried(&population, calibrated, &accept_levels, &risk, config, &mut rng));
            if is_shown {
                let chosen = threshold(calibrate, |query| query.accept_score, &accept_levels, &risk);
                arms.push(Arm::cascade(test, &risk, chosen));
                let chosen = threshold(calibrate, |query| query.router_score, &router_levels, &risk);
                arms.push(Arm::router(test, &risk, chosen));
            }
        }
    }
    Ok(CascadeReport {
        matrix: matrix.name.clone(),
        cheap: matrix.models[cheap].model.clone(),
        strong: matrix.models[strong].model.clone(),
        cost_note: config.call_usd.as_ref().map_or_else(|| matrix.cost_note.clone(), |(_, _, note)| note.clone()),
        train_queries: train.len(),
        calibrate_queries: calibrate.len(),
        test_queries: test.len(),
        knows_answer_length: matrix.answer_chars.is_some(),
        strong_usd: mean(test.iter().map(|query| query.strong_usd)),
        accept: accept.metrics,
        config: config.clone(),
        scores: scored(arms, config),
        guarantees,
    })
}

const PART_QUERIES_MIN: usize = 20;

fn check(config: &CascadeConfig) -> Result<()> {
    let share = |value: f64| value > 0.0 && value < 1.0;
    if !share(config.train_share)
        || !share(config.calibrate_share)
        || config.train_share + config.calibrate_share >= 1.0
    {
        return Err(LearnError::Config("train_share and calibrate_share must leave something to judge on".to_owned()));
    }
    if !config.alphas.iter().copied().all(share) || !share(config.delta) || !share(config.confidence) {
        return Err(LearnError::Config("alphas, delta and confidence must lie in (0, 1)".to_owned()));
    }
    if config.levels == 0 || config.embedding_dim == 0 {
        return Err(LearnError::Config("levels and embedding_dim must be above 0".to_owned()));
    }
    Ok(())
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

/// The cheap and the strong model.
fn pair(matrix: &Matrix, train: &[usize], config: &CascadeConfig) -> Result<(usize, usize)> {
    const COST_SHARE_MAX: f64 = 0.5;
    let (quality, cost) = (matrix.means(&matrix.quality, train), matrix.mean_costs(train));
    let best = |models: &mut dyn Iterator<Item = usize>| models.max_by(|a, b| quality[*a].total_cmp(&quality[*b]));
    let strong = best(&mut (0..quality.len())).unwrap_or(0);
    let affordable = |model: &usize| match config.call_usd {
        Some(_) => *model != strong,
        None => cost[*model] <= cost[strong] * COST_SHARE_MAX,
    };
    let cheap = best(&mut (0..quality.len()).filter(affordable)).filter(|cheap| *cheap != strong);
    cheap.map(|cheap| (cheap, strong)).ok_or_else(|| {
        LearnError::NoCascade(format!(
            "no model costs half of {} or less, which is the best on the training queries: there is nothing to cascade from",
            matrix.models[strong].model
        ))
    })
}

/// All queries with the cheap model's answer; good is what the strong one would not have bettered.
fn accept_rows(matrix: &Matrix, (cheap, strong): (usize, usize), config: &CascadeConfig) -> Vec<AcceptRow> {
    let embeddings: Vec<Vec<f32>> =
        matrix.queries.iter().map(|query| hash_embedding(&query.text, config.embedding_dim)).collect();
    let row = |query: usize| {
        let quality = |model: usize| matrix.quality[matrix.cell(query, model)];
        let chars = matrix.answer_chars.as_ref().map(|chars| chars[matrix.cell(query, cheap)]);
        // Standardised on a scale of logarithms, characters are as good as tokens.
        let prompt_chars = matrix.queries[query].text.chars().count() as u32;
        AcceptRow {
            context: OwnedContext { prompt_tokens: Some(prompt_chars), ..context(matrix, query, &embeddings) },
            answer: Answer { completion_tokens: chars.map(|chars| chars as u32), verifier_score: None },
            good: 1.0 - CascadeLoss::Harm.of(quality(cheap), quality(strong)),
            cluster: query,
        }
    };
    (0..matrix.queries.len()).map(row).collect()
}

/// A score fitted on the training queries, levels among what it says of them, seen and out of fold, and what it says of every query.
fn fitted(rows: &[AcceptRow], train: &[usize], config: &CascadeConfig) -> Result<(AcceptFit, Vec<f64>, Vec<f64>)> {
    let training: Vec<AcceptRow> = train.iter().map(|query| rows[*query].clone()).collect();
    let fit = fit_accept(&training, &config.accept)?;
    let mut scratch = Vec::new();
    let scores: Vec<f64> =
        rows.iter().map(|row| fit.model.score(&row.context.as_context(), &row.answer, &mut scratch)).collect();
    // Models of the folds stand a little apart from each other and from the whole one, so that neither alone has levels everywhere.
    let seen = train.iter().map(|query| scores[*query]);
    let levels = levels(&seen.chain(fit.out_of_fold.iter().copied()).collect::<Vec<f64>>(), config.levels);
    Ok((fit, levels, scores))
}

fn threshold(calibrate: &[Query], score: impl Fn(&Query) -> f64, levels: &[f64], risk: &RiskConfig) -> ThresholdChoice {
    let judged: Vec<JudgedAnswer> =
        calibrate.iter().enumerate().map(|(cluster, query)| query.judged(score(query), cluster, risk.loss)).collect();
    choose_threshold(&judged, levels, risk)
}

/// How often the promise holds, over draws of second parts from a population whose risk is known.
fn tried(
    population: &[Query],
    size: usize,
    levels: &[f64],
    risk: &RiskConfig,
    config: &CascadeConfig,
    rng: &mut ChaCha8Rng,
) -> Guarantee {
    let served = |query: &Query, threshold: f64| query.accept_score >= threshold;
    let risk_at = |threshold: f64| {
        let lost = |query: &Query| {
            if served(query, threshold) { risk.loss.of(query.cheap, query.strong) } else { 0.0 }
        };
        mean(population.iter().map(lost))
    };
    let escalated_at =
        |threshold: f64| mean(population.iter().map(|query| f64::from(u8::from(!served(query, threshold)))));
    let mut found = Guarantee {
        risk: *risk,
        draws: config.draws,
        exceeded_share: 0.0,
        none_share: 0.0,
        risk_mean: 0.0,
        escalated_mean: 0.0,
    };
    let draw = 1.0 / config.draws.max(1) as f64;
    let mut judged = Vec::with_capacity(size);
    for _ in 0..config.draws {
        judged.clear();
        judged.extend((0..size).map(|cluster| {
            let query = &population[rng.random_range(0..population.len())];
            query.judged(query.accept_score, cluster, risk.loss)
        }));
        let chosen = choose_threshold(&judged, levels, risk).threshold;
        let (of_all, escalated) = chosen.map_or((0.0, 1.0), |threshold| (risk_at(threshold), escalated_at(threshold)));
        // Rounding of a sum is no breach.
        found.exceeded_share += if of_all > risk.alpha + 1e-12 { draw } else { 0.0 };
        found.none_share += if chosen.is_none() { draw } else { 0.0 };
        found.risk_mean += draw * of_all;
        found.escalated_mean += draw * escalated;
    }
    found
}
