//! The least threshold that is shown to be safe: learn then test (Angelopoulos, Bates, Candès, Jordan and Lei, arXiv 2110.01052).
//!
//! Of levels laid beforehand, the strictest is tested first: "serving cheap answers from this score on loses more than `alpha` against
//! always escalating". Each level whose p-value is at most `delta` is shown to be safe, and the next one is tested; the first that is not
//! ends it. In this fixed order no correction for many tests is due (fixed-sequence testing), and the chance that a level that is not safe
//! is taken for safe is at most `delta`. The risk need not rise from level to level.
//!
//! Everything is a mean over clusters, sessions as a rule, each counted once with its own mean: a promise over sessions. Where long
//! sessions are worse than short ones, the mean over requests is another, and nothing is promised about that.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::p_values::{betting, hoeffding_bentkus};

/// What serving a cheap answer loses against the strong model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CascadeLoss {
    /// `max(0, strong - cheap)`: answers on which the cheap model is better count for nothing. Within [0, 1].
    Harm,
    /// `strong - cheap`: they make up for others. Within [-1, 1].
    Net,
    /// `1 - cheap`: what the cheap answer lacks to a perfect one, at least as much as either of the others. Within [0, 1].
    Shortfall,
}

impl CascadeLoss {
    /// The loss of serving the cheap answer.
    #[must_use]
    pub fn of(self, cheap_quality: f64, strong_quality: f64) -> f64 {
        match self {
            Self::Harm => (strong_quality - cheap_quality).max(0.0),
            Self::Net => strong_quality - cheap_quality,
            Self::Shortfall => 1.0 - cheap_quality,
        }
    }

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Harm => "harm",
            Self::Net => "net",
            Self::Shortfall => "shortfall",
        }
    }

    /// A loss, or a mean of losses, on [0, 1].
    fn to_unit(self, loss: f64) -> f64 {
        match self {
            Self::Harm | Self::Shortfall => loss,
            Self::Net => f64::midpoint(loss, 1.0),
        }
    }
}

/// Where p-values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RiskBound {
    /// [`hoeffding_bentkus`]: best for losses that are mostly 0 or 1.
    HoeffdingBentkus,
    /// [`betting`]: best for losses that vary little within their range, as [`CascadeLoss::Net`] does.
    Betting,
}

impl RiskBound {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HoeffdingBentkus => "Hoeffding-Bentkus",
            Self::Betting => "betting",
        }
    }
}

/// What is to be promised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RiskConfig {
    /// Which loss.
    pub loss: CascadeLoss,
    /// Where p-values come from.
    pub bound: RiskBound,
    /// The mean loss that is not to be passed, on average over clusters, in units of quality, above 0 and below 1.
    pub alpha: f64,
    /// Probability with which it may be passed all the same, above 0 and below 1.
    pub delta: f64,
}

/// A cheap answer whose score is known, and what serving it loses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgedAnswer {
    /// Its accept score.
    pub score: f64,
    /// The loss of serving it, within the range of [`RiskConfig::loss`].
    pub loss: f64,
    /// What may depend on each other. The risk is the mean over clusters of each one's mean.
    pub cluster: usize,
}

/// A threshold, and what it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ThresholdChoice {
    /// The least score that is shown to be safe; none where not even the strictest level is: then always escalate.
    pub threshold: Option<f64>,
    /// Levels tested, the one that failed among them.
    pub tested: usize,
    /// Clusters tested on.
    pub clusters: usize,
    /// Mean loss over clusters at the threshold; 0 without one.
    pub risk: f64,
    /// P-value at the threshold; 1 without one.
    pub p_value: f64,
    /// Mean over clusters of the share that escalates.
    pub escalation_rate: f64,
}

/// Up to `count` levels, from the strictest down, so that each serves about as many more of `scores`, and 0 at last, which serves
/// everything. The scores must come from other rows than those that thresholds are tested on.
#[must_use]
pub fn levels(scores: &[f64], count: usize) -> Vec<f64> {
    let mut sorted: Vec<f64> = scores.iter().copied().filter(|score| score.is_finite()).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let last_of = |step: usize| (sorted.len() * step).div_ceil(count).saturating_sub(1);
    let mut levels: Vec<f64> = (1..=count).filter_map(|step| sorted.get(last_of(step)).copied()).collect();
    levels.push(0.0);
    levels.dedup();
    levels
}

/// Tests `levels`, which fall, from the first on. Deterministic; costs clusters times levels that are tested. An `alpha` or a `delta`
/// outside (0, 1) promises nothing, and no level is shown to keep it: none is then tested.
#[must_use]
pub fn choose_threshold(answers: &[JudgedAnswer], levels: &[f64], config: &RiskConfig) -> ThresholdChoice {
    let mut clusters = Clusters::new(answers);
    let mut order: Vec<usize> = (0..answers.len()).filter(|row| !answers[*row].score.is_nan()).collect();
    order.sort_by(|a, b| answers[*b].score.total_cmp(&answers[*a].score));
    let mut next = order.into_iter().peekable();
    let mut choice = ThresholdChoice {
        threshold: None,
        tested: 0,
        clusters: clusters.loss.len(),
        risk: 0.0,
        p_value: 1.0,
        escalation_rate: 1.0,
    };
    let share = |value: f64| value > 0.0 && value < 1.0;
    if !share(config.alpha) || !share(config.delta) {
        return choice;
    }
    for &level in levels {
        while let Some(row) = next.next_if(|row| answers[*row].score >= level) {
            clusters.serve(row, &answers[row]);
        }
        choice.tested += 1;
        let p_value = clusters.p_value(config);
        let is_safe = p_value <= config.delta;
        if !is_safe {
            break;
        }
        choice.threshold = Some(level);
        choice.p_value = p_value;
        choice.risk = mean(&clusters.loss);
        choice.escalation_rate = 1.0 - mean(&clusters.served);
    }
    choice
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Each cluster's mean loss and share of cheap answers, in the order in which clusters come first.
struct Clusters {
    /// Place of each row's cluster.
    place: Vec<usize>,
    size: Vec<f64>,
    loss: Vec<f64>,
    served: Vec<f64>,
}

impl Clusters {
    fn new(answers: &[JudgedAnswer]) -> Self {
        let mut places: HashMap<usize, usize> = HashMap::new();
        let (mut place, mut size) = (Vec::with_capacity(answers.len()), Vec::new());
        for answer in answers {
            let at = *places.entry(answer.cluster).or_insert_with(|| {
                size.push(0.0);
                size.len() - 1
            });
            size[at] += 1.0;
            place.push(at);
        }
        let none = vec![0.0; size.len()];
        Self { place, size, loss: none.clone(), served: none }
    }

    fn serve(&mut self, row: usize, answer: &JudgedAnswer) {
        let at = self.place[row];
        self.loss[at] += answer.loss / self.size[at];
        self.served[at] += 1.0 / self.size[at];
    }

    fn p_value(&self, config: &RiskConfig) -> f64 {
        let alpha = config.loss.to_unit(config.alpha);
        let losses = self.loss.iter().map(|loss| config.loss.to_unit(*loss));
        match config.bound {
            RiskBound::HoeffdingBentkus => hoeffding_bentkus(losses.sum(), self.loss.len(), alpha),
            RiskBound::Betting => betting(losses, alpha, config.delta),
        }
    }
}
