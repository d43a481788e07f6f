//! How likely the cheap answer is good enough: a logistic model, then isotonic calibration.

use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::features::{FeatureSpec, NUMERIC_CLIP};

/// Share of the logistic probability in the accept score. Calibration makes equal what it cannot tell apart; this keeps such scores in
/// their order, so that a threshold can lie between them, and moves none by more than itself.
pub const LOGISTIC_SHARE: f64 = 0.01;

/// What is known of the cheap answer. Missing is missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// Its length, tokens.
    pub completion_tokens: Option<u32>,
    /// What the router or a verifier thinks of it, on a scale of its own.
    pub verifier_score: Option<f64>,
}

/// A field of [`Answer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerField {
    /// [`Answer::completion_tokens`], as ln(1 + x).
    CompletionTokens,
    /// [`Answer::verifier_score`], as it is.
    VerifierScore,
}

impl AnswerField {
    /// The field's value on its scale; none where it is missing or not finite.
    #[must_use]
    pub fn of(self, answer: &Answer) -> Option<f64> {
        match self {
            Self::CompletionTokens => answer.completion_tokens.map(|tokens| f64::from(tokens).ln_1p()),
            Self::VerifierScore => answer.verifier_score.filter(|score| score.is_finite()),
        }
    }
}

/// Two columns: the standardised value, cut off at ±[`NUMERIC_CLIP`], and 1 where it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerFeature {
    /// Which field.
    pub field: AnswerField,
    /// Its mean in training, on the field's scale.
    pub mean: f64,
    /// Its standard deviation there, above zero.
    pub std: f64,
}

/// The accept score, an estimate of `P(good enough)`: with `x` the columns of the context, then those of the answer,
/// `p = 1 / (1 + exp(-(bias + weights · x)))` and `score = (1 - share) calibration(p) + share p`, `share` [`LOGISTIC_SHARE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptModel {
    /// Columns of the request.
    pub features: FeatureSpec,
    /// Columns of the answer, behind them.
    pub answer: Vec<AnswerFeature>,
    /// One for each column.
    pub weights: Vec<f64>,
    /// Log odds where all columns are 0.
    pub bias: f64,
    /// From the logistic model's probability to the calibrated one: corners of a line that never falls, flat beyond its ends. None is
    /// the logistic model's own.
    pub calibration: Vec<(f64, f64)>,
}

impl AcceptModel {
    /// Number of columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.features.width() + 2 * self.answer.len()
    }

    /// Writes the columns of a request and its cheap answer.
    ///
    /// # Panics
    /// When `out` is not [`AcceptModel::width`] long.
    pub fn encode(&self, context: &Context<'_>, answer: &Answer, out: &mut [f32]) {
        assert_eq!(out.len(), self.width(), "the output slice must be as wide as the features");
        let (of_context, of_answer) = out.split_at_mut(self.features.width());
        self.features.encode(context, of_context);
        let (pairs, _) = of_answer.as_chunks_mut::<2>();
        for (columns, feature) in pairs.iter_mut().zip(&self.answer) {
            *columns = match feature.field.of(answer) {
                Some(value) => {
                    let standardised = ((value - feature.mean) / feature.std) as f32;
                    [standardised.clamp(-NUMERIC_CLIP, NUMERIC_CLIP), 0.0]
                }
                None => [0.0, 1.0],
            };
        }
    }

    /// The accept score, in \[0, 1\]. `scratch` grows to [`AcceptModel::width`] once; then nothing is allocated.
    #[must_use]
    pub fn score(&self, context: &Context<'_>, answer: &Answer, scratch: &mut Vec<f32>) -> f64 {
        scratch.resize(self.width(), 0.0);
        self.encode(context, answer, scratch);
        self.score_columns(scratch)
    }

    /// The same from columns.
    #[must_use]
    pub fn score_columns(&self, columns: &[f32]) -> f64 {
        self.calibrated(self.raw(columns))
    }

    /// The logistic model's own probability, before calibration.
    #[must_use]
    pub fn raw(&self, columns: &[f32]) -> f64 {
        let logit: f64 = columns.iter().zip(&self.weights).map(|(x, w)| f64::from(*x) * w).sum::<f64>() + self.bias;
        1.0 / (1.0 + (-logit).exp())
    }

    /// The score that such a probability comes to. It rises with it, strictly.
    #[must_use]
    pub fn calibrated(&self, raw: f64) -> f64 {
        (1.0 - LOGISTIC_SHARE) * self.on_the_line(raw) + LOGISTIC_SHARE * raw
    }

    fn on_the_line(&self, raw: f64) -> f64 {
        let corners = &self.calibration;
        let right = corners.partition_point(|corner| corner.0 < raw);
        match (right.checked_sub(1).map(|left| corners[left]), corners.get(right)) {
            (None, None) => raw,
            (None, Some(first)) => first.1,
            (Some(last), None) => last.1,
            // Two corners have different places, so this is no division by zero.
            (Some(left), Some(right)) => left.1 + (right.1 - left.1) * (raw - left.0) / (right.0 - left.0),
        }
    }

    /// What makes no sense in it, if anything.
    pub(super) fn problem(&self) -> Option<String> {
        if !self.features.features.is_empty()
            && let Some(why) = self.features.problem()
        {
            return Some(why);
        }
        if self.weights.len() != self.width() {
            return Some(format!("accept has {} weights for {} columns", self.weights.len(), self.width()));
        }
        if !self.bias.is_finite() || !self.weights.iter().all(|weight| weight.is_finite()) {
            return Some("a weight of accept is not finite".to_owned());
        }
        let sound = |feature: &AnswerFeature| feature.mean.is_finite() && feature.std.is_finite() && feature.std > 0.0;
        if !self.answer.iter().all(sound) {
            return Some("a feature of the answer needs a finite mean and a std above zero".to_owned());
        }
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let in_range = self.calibration.iter().all(|corner| share(corner.0) && share(corner.1));
        if !in_range || !self.calibration.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
            return Some("calibration must be corners in [0, 1] from left to right that never fall".to_owned());
        }
        None
    }
}
