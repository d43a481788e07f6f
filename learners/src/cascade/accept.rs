//! Fitting the accept score, and saying how far its probabilities can be believed.

use serde::{Deserialize, Serialize};
use weir_policy_runtime::{AcceptModel, Answer, AnswerFeature, AnswerField, Feature, OwnedContext};

use super::isotonic::calibration_corners;
use super::logistic::{self, Design, Logistic};
use crate::error::{LearnError, Result};
use crate::feature_fit::fit_features;
use crate::hallucination::calibration_error;
use crate::ope::fold_of;

/// A cheap answer, and how good it was.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptRow {
    /// What was known of the request.
    pub context: OwnedContext,
    /// What was known of the answer.
    pub answer: Answer,
    /// In [0, 1]: its quality, or, where both models answered, 1 less what the strong model would have added.
    pub good: f64,
    /// What may depend on each other: a session, or the repeats of a query; a dense index from 0.
    pub cluster: usize,
}

/// How to fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcceptConfig {
    /// Ridges of the logistic model, beside a mean loss, to choose from.
    pub ridges: Vec<f64>,
    /// How many times as much the columns of an embedding may be held back, to choose from: many columns, each of which says little.
    pub embedding_factors: Vec<f64>,
    /// Folds by cluster for calibration and for the metrics, two at least.
    pub folds: usize,
}

impl Default for AcceptConfig {
    fn default() -> Self {
        Self { ridges: vec![1e-3, 1e-2, 1e-1], embedding_factors: vec![1.0, 100.0], folds: 5 }
    }
}

/// How good the score is, on clusters that neither the model nor the calibration that scored them has been fitted on.
///
/// Somewhat hopeful all the same. Which of a few ridges to take, and whether to calibrate, was chosen on the same clusters. And the
/// calibration of a fold is fitted on the other folds' scores, whose models had seen that fold. The promise of a threshold rests on none
/// of it: thresholds are tested on other clusters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AcceptMetrics {
    /// Answers.
    pub rows: usize,
    /// The ridge that was taken: the one of least squared error.
    pub ridge: f64,
    /// The factor that was taken with it.
    pub embedding_factor: f64,
    /// Isotonic calibration lowered the squared error, and was kept.
    pub is_calibrated: bool,
    /// Their mean goodness.
    pub good_share: f64,
    /// Mean squared error of the score.
    pub brier: f64,
    /// The same of the logistic model alone.
    pub brier_uncalibrated: f64,
    /// The same of the mean, for everything: what knowing nothing comes to.
    pub brier_constant: f64,
    /// Expected calibration error of the score, over ten bins of equal width.
    pub calibration_error: f64,
    /// The same of the logistic model alone.
    pub calibration_error_uncalibrated: f64,
}

/// A fitted score.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptFit {
    /// Fitted on all rows, calibrated on scores of models that had not seen their rows.
    pub model: AcceptModel,
    /// The score of each row by a model that had not seen it; calibrated, if at all, on scores of models that had.
    pub out_of_fold: Vec<f64>,
    /// See there.
    pub metrics: AcceptMetrics,
}

/// Fits the logistic model and its isotonic calibration, cross-fitted by cluster.
///
/// # Errors
/// When there are fewer than 50 rows, all are equally good, a fold would hold everything, or the configuration makes no sense.
pub fn fit_accept(rows: &[AcceptRow], config: &AcceptConfig) -> Result<AcceptFit> {
    const ROWS_MIN: usize = 50;
    let are_above_zero =
        |values: &[f64]| !values.is_empty() && values.iter().all(|value| value.is_finite() && *value > 0.0);
    if config.folds < 2 || !are_above_zero(&config.ridges) || !are_above_zero(&config.embedding_factors) {
        return Err(LearnError::Config(
            "an accept score needs two folds or more, and ridges and embedding_factors above zero".to_owned(),
        ));
    }
    if rows.len() < ROWS_MIN {
        let found = rows.len();
        return Err(LearnError::NoCascade(format!("{found} cheap answers with a quality, and {ROWS_MIN} are needed")));
    }
    if !rows.iter().all(|row| (0.0..=1.0).contains(&row.good)) {
        return Err(LearnError::NoCascade("a cheap answer's goodness is outside [0, 1]: bring it there".to_owned()));
    }
    if rows.iter().all(|row| row.good == rows[0].good) {
        return Err(LearnError::NoCascade(
            "all cheap answers are equally good: there is nothing to tell apart".to_owned(),
        ));
    }
    let contexts: Vec<&OwnedContext> = rows.iter().map(|row| &row.context).collect();
    let answer = [AnswerField::CompletionTokens, AnswerField::VerifierScore];
    let mut model = AcceptModel {
        features: fit_features(&contexts),
        answer: answer.into_iter().filter_map(|field| answer_feature(field, rows)).collect(),
        weights: Vec::new(),
        bias: 0.0,
        calibration: Vec::new(),
    };
    let width = model.width();
    let mut design = Design { width, values: vec![0.0; rows.len() * width] };
    for (row, columns) in rows.iter().zip(design.values.chunks_exact_mut(width)) {
        model.encode(&row.context.as_context(), &row.answer, columns);
    }
    let good: Vec<f64> = rows.iter().map(|row| row.good).collect();
    let fold: Vec<usize> = rows.iter().map(|row| fold_of(row.cluster, config.folds)).collect();
    let Held { ridge, factor, penalties, scores: raw } = best_ridge(&design, &good, &fold, &model, config)?;
    let calibrated = held_out_calibration(&raw, &good, &fold, config.folds, &mut model);
    let is_calibrated = brier(&calibrated, &good) < brier(&raw, &good);
    let all: Vec<usize> = (0..rows.len()).collect();
    Logistic { weights: model.weights, bias: model.bias } = logistic::fit(&design, &good, &all, &penalties)?;
    let points: Vec<(f64, f64)> = raw.iter().copied().zip(good.iter().copied()).collect();
    model.calibration = if is_calibrated { calibration_corners(&points) } else { Vec::new() };
    let out_of_fold = if is_calibrated { calibrated } else { raw.clone() };
    let count = good.len() as f64;
    let good_share = good.iter().sum::<f64>() / count;
    let metrics = AcceptMetrics {
        rows: rows.len(),
        ridge,
        embedding_factor: factor,
        is_calibrated,
        good_share,
        brier: brier(&out_of_fold, &good),
        brier_uncalibrated: brier(&raw, &good),
        brier_constant: brier(&vec![good_share; good.len()], &good),
        calibration_error: calibration_error(&out_of_fold, good.iter().copied()),
        calibration_error_uncalibrated: calibration_error(&raw, good.iter().copied()),
    };
    Ok(AcceptFit { model, out_of_fold, metrics })
}

/// The field's scale, where it varies.
fn answer_feature(field: AnswerField, rows: &[AcceptRow]) -> Option<AnswerFeature> {
    let values: Vec<f64> = rows.iter().filter_map(|row| field.of(&row.answer)).collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let std = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    (std > 1e-6).then_some(AnswerFeature { field, mean, std })
}

/// Mean squared error of probabilities.
fn brier(scores: &[f64], good: &[f64]) -> f64 {
    scores.iter().zip(good).map(|(p, y)| (p - y).powi(2)).sum::<f64>() / good.len() as f64
}

/// A ridge, and what it gives to rows whose fold was held out.
struct Held {
    ridge: f64,
    factor: f64,
    /// By column.
    penalties: Vec<f64>,
    scores: Vec<f64>,
}

/// The ridge of the least error on held-out folds.
fn best_ridge(
    design: &Design,
    good: &[f64],
    fold: &[usize],
    model: &AcceptModel,
    config: &AcceptConfig,
) -> Result<Held> {
    let has_embedding = model.features.features.iter().any(|feature| matches!(feature, Feature::Embedding { .. }));
    let factors = if has_embedding { &config.embedding_factors[..] } else { &[1.0] };
    let mut best: Option<(f64, Held)> = None;
    for (&ridge, &factor) in config.ridges.iter().flat_map(|ridge| factors.iter().map(move |factor| (ridge, factor))) {
        let of_context = model.features.features.iter().flat_map(|feature| {
            let is_embedding = matches!(feature, Feature::Embedding { .. });
            std::iter::repeat_n(if is_embedding { ridge * factor } else { ridge }, feature.width())
        });
        let penalties: Vec<f64> = of_context.chain(std::iter::repeat_n(ridge, 2 * model.answer.len())).collect();
        let scores = held_out_scores(design, good, fold, config.folds, &penalties)?;
        let error = brier(&scores, good);
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, Held { ridge, factor, penalties, scores }));
        }
    }
    best.map(|(_, held)| held).ok_or_else(|| LearnError::Config("an accept score needs a ridge".to_owned()))
}

/// The logistic probability of each row, by a model of the other folds.
fn held_out_scores(design: &Design, good: &[f64], fold: &[usize], folds: usize, penalties: &[f64]) -> Result<Vec<f64>> {
    let mut raw = vec![0.0; good.len()];
    for held_out in 0..folds {
        let (judged, fitted): (Vec<usize>, Vec<usize>) = (0..good.len()).partition(|row| fold[*row] == held_out);
        if fitted.is_empty() {
            return Err(LearnError::NoCascade("all cheap answers are of one cluster".to_owned()));
        }
        let model = logistic::fit(design, good, &fitted, penalties)?;
        judged.iter().for_each(|&row| raw[row] = model.probability(design.row(row)));
    }
    Ok(raw)
}

/// What calibration on the other folds makes of each row's probability; `model` lends its calibration. The probabilities of those other
/// rows are by models that had seen this fold: without a further cross-fit within each, the calibration is a little too well informed.
fn held_out_calibration(raw: &[f64], good: &[f64], fold: &[usize], folds: usize, model: &mut AcceptModel) -> Vec<f64> {
    let mut calibrated = vec![0.0; raw.len()];
    for held_out in 0..folds {
        let others = (0..raw.len()).filter(|row| fold[*row] != held_out);
        let points: Vec<(f64, f64)> = others.map(|row| (raw[row], good[row])).collect();
        model.calibration = calibration_corners(&points);
        for row in (0..raw.len()).filter(|row| fold[*row] == held_out) {
            calibrated[row] = model.calibrated(raw[row]);
        }
    }
    calibrated
}
