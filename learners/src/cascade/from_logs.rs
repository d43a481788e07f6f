//! A cascade from logs in which each request was answered by one model.
//!
//! Nobody knows then what the strong model would have added to a cheap answer. What is known is what the cheap answer lacks to a perfect
//! one ([`CascadeLoss::Shortfall`]); the strong model's can lack no less than nothing, so that a bound on the shortfall bounds the loss
//! against always escalating too.
//!
//! The cheap model was not asked for every request: a decision for it counts `1 / propensity` times, one for another model not at all, so
//! that the mean over all decisions is that over all requests. Weights need a bound that is known beforehand, the inverse of the least
//! propensity that the router's exploration leaves the cheap model: losses are divided by it, and so is `alpha`.
//!
//! Risk and escalation rate are means over clusters, sessions as a rule, each counted once however many requests it has.
//!
//! One half of the clusters fits the score, the other tests the threshold. Assumed, as everywhere in off-policy evaluation: the logged
//! probabilities are the true ones, and a reward is missing independently of its value and of the model.

use serde::{Deserialize, Serialize};
use weir_policy_runtime::{AcceptModel, Answer, CascadeEvidence};

use super::accept::{AcceptConfig, AcceptMetrics, AcceptRow, fit_accept};
use super::threshold::{CascadeLoss, JudgedAnswer, RiskBound, RiskConfig, ThresholdChoice, choose_threshold, levels};
use crate::error::{LearnError, Result};
use crate::evaluate::{dense_clusters, unsupported_mass};
use crate::ope::{self, Estimate, EvaluationConfig, Logged, Verdict};
use crate::report::interval;
use crate::train::is_holdout;
use crate::training_set::{Sample, TrainingSet};

/// Share of the clusters that test the threshold.
const TESTED_SHARE: f64 = 0.5;

/// Share of the judged decisions whose draw may be unusable. Those that are left are taken for all; a few do no harm to that.
const UNUSABLE_SHARE_MAX: f64 = 0.01;

/// How to learn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeLearning {
    /// The accept score.
    pub accept: AcceptConfig,
    /// Quality that may be lost against perfect answers on average over sessions, each counted once, above 0 and below 1.
    pub alpha: f64,
    /// Probability with which more may be lost all the same.
    pub delta: f64,
    /// 1 through the least probability with which the router asks the cheap model, where it may at all.
    pub weight_max: f64,
    /// Levels of the score that can become thresholds, one at least.
    pub levels: usize,
    /// Intervals and support of the two models' qualities.
    pub evaluation: EvaluationConfig,
}

impl Default for CascadeLearning {
    fn default() -> Self {
        Self {
            accept: AcceptConfig::default(),
            alpha: 0.05,
            delta: 0.1,
            weight_max: 20.0,
            levels: 100,
            evaluation: EvaluationConfig::default(),
        }
    }
}

/// What logs say of a cascade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearnedCascade {
    /// The model that answers first.
    pub cheap: String,
    /// The model that is escalated to.
    pub strong: String,
    /// The accept score.
    pub accept: AcceptModel,
    /// How far it can be believed.
    pub metrics: AcceptMetrics,
    /// The threshold; its risk is the shortfall, in units of quality.
    pub choice: ThresholdChoice,
    /// What was promised.
    pub promise: RiskConfig,
    /// Decisions that the threshold was tested on, of all models.
    pub decisions: usize,
    /// Judged decisions of the same clusters that were left out for want of a propensity in (0, 1].
    pub without_propensity: usize,
    /// Such that were left out because their candidates' propensities contradict theirs, or do not add up.
    pub contradictory: usize,
    /// Mean quality if the cheap model answered everything, over requests and not over sessions.
    pub cheap_quality: Estimate,
    /// The same of the strong one; none where the logs cannot carry it.
    pub strong_quality: Option<Estimate>,
}

impl LearnedCascade {
    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let (choice, metrics) = (&self.choice, &self.metrics);
        let strong_quality =
            self.strong_quality.as_ref().map_or_else(|| "unknown from these logs".to_owned(), interval);
        let found = match choice.threshold {
            Some(threshold) => format!(
                "served from a score of {threshold:.3} on, as {:.1} % of a session's requests are, answers lack {:.4} over all requests, on \
                 average over sessions, each counted once; with probability {} it is {} at most",
                100.0 * (1.0 - choice.escalation_rate),
                choice.risk,
                1.0 - self.promise.delta,
                self.promise.alpha
            ),
            None => format!(
                "no threshold is shown to lack {} at most: everything escalates, and asking {} at once is cheaper; more decisions or a \
                 larger alpha may show one",
                self.promise.alpha, self.strong
            ),
        };
        format!(
            "quality of a request if it answered everything: {} {}, {} {strong_quality}\n\
             accept score on {} answers: Brier {:.4}, {:.4} for the mean {:.3} everywhere; calibration error {:.4}\n\
             left out: {} judged decisions without a propensity, {} whose candidates contradict it\n\
             threshold tested on {} decisions in {} sessions: {found}\n",
            self.cheap,
            interval(&self.cheap_quality),
            self.strong,
            metrics.rows,
            metrics.brier,
            metrics.brier_constant,
            metrics.good_share,
            metrics.calibration_error,
            self.without_propensity,
            self.contradictory,
            self.decisions,
            choice.clusters
        )
    }

    /// What `cascade.json` says of it.
    #[must_use]
    pub fn evidence(&self) -> CascadeEvidence {
        CascadeEvidence {
            loss: self.promise.loss.name().to_owned(),
            alpha: self.promise.alpha,
            delta: self.promise.delta,
            clusters: self.choice.clusters as u64,
            risk: self.choice.threshold.map(|_| self.choice.risk),
            escalation_rate: self.choice.escalation_rate,
        }
    }
}

/// Learns the accept score and its threshold.
///
/// # Errors
/// When a model is unknown, the cheap model's answers are too few or all alike, propensities are estimated or below what `weight_max`
/// says, more than 1 % of the judged decisions have none or one that their candidates contradict, or the configuration makes no sense.
pub fn learn_cascade(set: &TrainingSet, cheap: &str, strong: &str, config: &CascadeLearning) -> Result<LearnedCascade> {
    let share = |value: f64| value > 0.0 && value < 1.0;
    if !share(config.alpha) || !share(config.delta) || !config.weight_max.is_finite() || config.weight_max < 1.0 {
        return Err(LearnError::Config("alpha and delta must lie in (0, 1), and weight_max at 1 or above".to_owned()));
    }
    if config.levels == 0 {
        return Err(LearnError::Config("a threshold is one of the levels: levels must be 1 or above".to_owned()));
    }
    let (cheap_index, strong_index) = (model(set, cheap)?, model(set, strong)?);
    if cheap_index == strong_index {
        return Err(LearnError::Config(format!("{cheap} cannot escalate to itself: name two models")));
    }
    let (judged, taught): (Vec<&Sample>, Vec<&Sample>) =
        set.samples.iter().partition(|sample| is_holdout(&sample.cluster, TESTED_SHARE));
    let rows = answers(&taught, cheap_index);
    let fit = fit_accept(&rows, &config.accept)?;
    let mut scratch = Vec::new();
    let mut score = |row: &AcceptRow| fit.model.score(&row.context.as_context(), &row.answer, &mut scratch);
    let seen: Vec<f64> = rows.iter().map(&mut score).collect();
    let levels = levels(&seen.into_iter().chain(fit.out_of_fold.iter().copied()).collect::<Vec<f64>>(), config.levels);

    let Decisions { usable: decisions, without_propensity, contradictory } = decisions(&judged)?;
    let values = |action| value_of(&decisions, action, &config.evaluation);
    let cheap_quality = values(cheap_index).map_err(|reasons| {
        LearnError::NoCascade(format!("the logs cannot say how good {cheap} is everywhere: {}", reasons.join("; ")))
    })?;
    let promise = RiskConfig {
        loss: CascadeLoss::Shortfall,
        bound: RiskBound::Betting,
        alpha: config.alpha,
        delta: config.delta,
    };
    let choice = tested(&decisions, cheap_index, &levels, &promise, config.weight_max, |sample| {
        score(&row_of(sample, 0, sample.quality.unwrap_or_default()))
    })?;
    Ok(LearnedCascade {
        cheap: cheap.to_owned(),
        strong: strong.to_owned(),
        accept: fit.model.clone(),
        metrics: fit.metrics,
        choice,
        promise,
        decisions: decisions.len(),
        without_propensity,
        contradictory,
        cheap_quality,
        strong_quality: values(strong_index).ok(),
    })
}

fn model(set: &TrainingSet, name: &str) -> Result<usize> {
    set.actions.iter().position(|action| action.model == name).ok_or_else(|| {
        let known: Vec<&str> = set.actions.iter().map(|action| action.model.as_str()).collect();
        LearnError::Config(format!("no logged request names the model {name}; the models are {}", known.join(", ")))
    })
}

fn row_of(sample: &Sample, cluster: usize, good: f64) -> AcceptRow {
    AcceptRow {
        context: sample.context.clone(),
        answer: Answer { completion_tokens: sample.completion_tokens, verifier_score: None },
        good,
        cluster,
    }
}

/// The cheap model's answers with a quality, those after a fallback too.
fn answers(samples: &[&Sample], cheap: usize) -> Vec<AcceptRow> {
    let of_cheap: Vec<Sample> = samples
        .iter()
        .filter(|sample| sample.action == cheap && sample.quality.is_some())
        .map(|sample| (*sample).clone())
        .collect();
    let clusters = dense_clusters(&of_cheap, 0..of_cheap.len());
    of_cheap
        .iter()
        .zip(clusters)
        .map(|(sample, cluster)| row_of(sample, cluster, sample.quality.unwrap_or_default()))
        .collect()
}

/// A decision that can be judged.
struct Decision<'a> {
    sample: &'a Sample,
    propensity: f64,
    quality: f64,
    cluster: usize,
}

/// Decisions that were carried out as they were drawn, with a quality.
struct Decisions<'a> {
    /// Those of a sound propensity.
    usable: Vec<Decision<'a>>,
    without_propensity: usize,
    contradictory: usize,
}

/// # Errors
/// When propensities are estimated, or too many of the decisions are unusable.
fn decisions<'a>(samples: &[&'a Sample]) -> Result<Decisions<'a>> {
    if samples.iter().any(|sample| sample.propensity_is_estimated) {
        return Err(LearnError::NoCascade(
            "propensities of these logs are estimated, and a promise cannot rest on a guess: log them".to_owned(),
        ));
    }
    let mut clusters = std::collections::HashMap::new();
    let mut found = Decisions { usable: Vec::new(), without_propensity: 0, contradictory: 0 };
    for &sample in samples.iter().filter(|sample| sample.executed_as_intended) {
        let Some(quality) = sample.quality else { continue };
        let propensity = sample.propensity.filter(|propensity| *propensity > 0.0 && *propensity <= 1.0);
        let Some(propensity) = propensity else {
            found.without_propensity += 1;
            continue;
        };
        if !sample.draw_is_consistent() {
            found.contradictory += 1;
            continue;
        }
        let next = clusters.len();
        let cluster = *clusters.entry(sample.cluster.as_str()).or_insert(next);
        found.usable.push(Decision { sample, propensity, quality, cluster });
    }
    let unusable = found.without_propensity + found.contradictory;
    let all = found.usable.len() + unusable;
    if unusable as f64 > UNUSABLE_SHARE_MAX * all as f64 {
        return Err(LearnError::NoCascade(format!(
            "of {all} judged decisions {} have no propensity in (0, 1], and {} one that their candidates contradict, more than {} % \
             together: log both of every draw, or learn from a tag whose requests have them",
            found.without_propensity,
            found.contradictory,
            100.0 * UNUSABLE_SHARE_MAX
        )));
    }
    Ok(found)
}

/// Mean quality if `action` answered everything, or why the logs cannot carry it.
fn value_of(
    decisions: &[Decision<'_>],
    action: usize,
    config: &EvaluationConfig,
) -> std::result::Result<Estimate, Vec<String>> {
    let logged = |decision: &Decision<'_>| {
        let Sample { logged_distribution, action: chosen, .. } = decision.sample;
        let unsupported = logged_distribution.as_ref().map(|logged| {
            let target: Vec<f64> = (0..logged.len()).map(|other| f64::from(u8::from(other == action))).collect();
            unsupported_mass(&target, logged, config.limits.propensity_floor)
        });
        Logged {
            propensity: decision.propensity,
            reward: decision.quality,
            target_probability: f64::from(u8::from(*chosen == action)),
            q_hat_logged: 0.0,
            q_hat_policy: 0.0,
            unsupported_mass: unsupported,
            cluster: decision.cluster,
        }
    };
    let rows: Vec<Logged> = decisions.iter().map(logged).collect();
    let evaluation = ope::evaluate(&rows, config);
    match (evaluation.estimates, evaluation.verdict) {
        (Some(estimates), _) => Ok(estimates.snips),
        (None, Verdict::InsufficientSupport { reasons }) => Err(reasons),
        (None, _) => Err(vec!["there is no decision to judge".to_owned()]),
    }
}

/// Tests the levels on weighted decisions.
fn tested(
    decisions: &[Decision<'_>],
    cheap: usize,
    levels: &[f64],
    promise: &RiskConfig,
    weight_max: f64,
    mut score: impl FnMut(&Sample) -> f64,
) -> Result<ThresholdChoice> {
    // What a log rounds is no breach.
    const ROUNDED: f64 = 1e-6;
    let is_cheap = |decision: &&Decision<'_>| decision.sample.action == cheap;
    let least = decisions.iter().filter(is_cheap).map(|decision| decision.propensity).fold(1.0, f64::min);
    if least * weight_max < 1.0 - ROUNDED {
        return Err(LearnError::Config(format!(
            "the cheap model was asked with a probability of {least:.4}, below 1 / {weight_max}: give the largest weight that the \
             router's exploration allows"
        )));
    }
    // Below every level: what another model answered is never served.
    const NEVER: f64 = f64::NEG_INFINITY;
    let judged: Vec<JudgedAnswer> = decisions
        .iter()
        .map(|decision| {
            if decision.sample.action != cheap {
                return JudgedAnswer { score: NEVER, loss: 0.0, cluster: decision.cluster };
            }
            let loss = promise.loss.of(decision.quality, 1.0) / (decision.propensity * weight_max);
            JudgedAnswer { score: score(decision.sample), loss, cluster: decision.cluster }
        })
        .collect();
    let scaled = RiskConfig { alpha: promise.alpha / weight_max, ..*promise };
    let mut choice = choose_threshold(&judged, levels, &scaled);
    choice.risk *= weight_max;
    // Of all requests, not of those that the cheap model happened to get; and of sessions, each counted once, as the risk is.
    let served = |judged: &JudgedAnswer| choice.threshold.is_some_and(|threshold| judged.score >= threshold);
    let mut size = vec![0.0; choice.clusters];
    decisions.iter().for_each(|decision| size[decision.cluster] += 1.0);
    let (mut kept, mut all) = (0.0, 0.0);
    for (decision, judged) in decisions.iter().zip(&judged).filter(|(decision, _)| is_cheap(decision)) {
        let weight = 1.0 / (decision.propensity * size[decision.cluster]);
        all += weight;
        kept += if served(judged) { weight } else { 0.0 };
    }
    choice.escalation_rate = if all > 0.0 { 1.0 - kept / all } else { 1.0 };
    Ok(choice)
}
