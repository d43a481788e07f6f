//! A policy in force that learns from what came since: its last layer, a decision at a time.
//!
//! The posterior of the last layer is the state. New decisions add their curvature to it and move the weights by Newton steps on
//!
//! ```text
//! ½ (w - w₀)ᵀ P (w - w₀) + Σ cross entropy(w; new decisions)
//! ```
//!
//! where `w₀` and `P` are what the policy knew (sequential Laplace updating, Spiegelhalter and Lauritzen 1990, Networks 20:579). Before
//! that, what it knew is forgotten by the time that has passed. The work of learning is that of the new decisions alone; what is below the
//! last layer stays as it was, and so do guesses of cost: a batch training, now and then, renews them.
//!
//! **Once.** A policy says until when it has learned. The next one takes the decisions after that, up to the age at which opinions have
//! come; a process that is killed leaves no half of it, since the position is part of the bundle.

use std::collections::BTreeMap;

use weir_policy_runtime::{Layer, Mlp, MlpScratch, Policy, Posterior, Strategy};

use crate::baselines::Target;
use crate::error::{LearnError, Result};
use crate::evaluate::{PolicyInForce, aligned, explored, lineup, settled_floor};
use crate::learning::{Learning, LearningSummary};
use crate::ope::EvaluationConfig;
use crate::outcome::Outcome;
use crate::posterior::Precisions;
use crate::report::Report;
use crate::reward_model::{Discount, metrics};
use crate::train::{Candidate, is_holdout, priced};
use crate::training_set::{Sample, TrainingSet};

/// Newton steps at most; from far away each is shortened until it helps.
const STEPS_MAX: usize = 60;
/// Halvings of a step at most.
const HALVINGS_MAX: usize = 40;
/// A step shorter than this, in logits, is the last.
const STEP_MIN: f64 = 1e-6;

/// A policy to learn on from, and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct LearnedUntil<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Arrival of the newest decision that it was learned from, ms since the Unix epoch.
    pub until_ms: i64,
    /// Share of the clusters that it, and all that learn on from it, are judged on.
    pub holdout_share: f64,
}

/// How to learn on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UpdateConfig {
    /// Days in which what was known comes to count for half; none forgets nothing.
    pub half_life_days: Option<f64>,
    /// What to judge by.
    pub outcome: Outcome,
    /// How to judge.
    pub evaluation: EvaluationConfig,
}

/// Learns on from what came after `from.until_ms`, and judges the result on the clusters that are kept for that. Returns the candidate and
/// until when it has learned; `None` where nothing has come.
///
/// # Errors
/// [`LearnError::Config`] when the policy has no posterior, and when a policy cannot score a logged decision.
pub fn update_policy(
    set: &TrainingSet,
    from: LearnedUntil<'_>,
    in_force: Option<PolicyInForce<'_>>,
    config: &UpdateConfig,
) -> Result<Option<(Candidate, i64)>> {
    posterior_of(from.policy)?;
    let set = aligned(set, from.policy);
    let is_kept = |sample: &Sample| is_holdout(&sample.cluster, from.holdout_share);
    let is_new = |sample: &&Sample| sample.time_ms > from.until_ms && !sample.is_unsettled;
    let Some(until_ms) = set.samples.iter().filter(is_new).map(|sample| sample.time_ms).max() else { return Ok(None) };
    let news = set.samples.iter().filter(is_new).filter(|sample| !is_kept(sample));
    let Updated { policy, decisions } =
        updated(from.policy, news, (from.until_ms, &Discount::at(until_ms, config.half_life_days)?))?;
    let (holdout, train): (Vec<usize>, Vec<usize>) =
        (0..set.samples.len()).partition(|&row| is_kept(&set.samples[row]));
    let spec = policy.spec().clone();
    let actions = set.actions.len();
    let evaluation = explored(&config.evaluation, settled_floor(&spec), spec.actions.len(), in_force);
    let target = Target::learned(&policy, &set.actions);
    let lineup = lineup(&set, &target, in_force, (&train, &holdout), &config.outcome, &evaluation)?;
    let known = |row: &usize| set.samples[*row].action < spec.actions.len();
    let (train, holdout): (Vec<usize>, Vec<usize>) =
        (train.into_iter().filter(known).collect(), holdout.into_iter().filter(known).collect());
    let priced = priced(&set, &config.outcome);
    let priced = priced.as_ref().unwrap_or(&set);
    let metrics =
        metrics(policy.network(), &spec.features, &priced.samples, (&train, &holdout), spec.actions.len().min(actions));
    let learning = match spec.strategy {
        Strategy::UpperBound { width } => Learning::UpperBound { width },
        _ => Learning::Thompson,
    };
    let summary =
        LearningSummary { learning, corrections: None, new_models: Vec::new(), learned_on_from: Some(decisions) };
    let unusable = |error: weir_policy_runtime::PolicyError| LearnError::Artefact(error.to_string());
    tracing::info!(decisions, until_ms, verdict = lineup.verdict(), "policy learned on");
    let report = Report {
        verdict: lineup.verdict(),
        seed: 0,
        objective: config.outcome.objective(),
        outcome: Some(config.outcome.clone()),
        exploration: spec.exploration,
        learned: Some(summary),
        next: None,
        train_decisions: decisions,
        lineup,
        reward_model: metrics,
        estimators: BTreeMap::new(),
        exports: Vec::new(),
    };
    let weights = policy.network().to_safetensors().map_err(unusable)?;
    let posterior = policy.posterior().map(Posterior::to_safetensors).transpose().map_err(unusable)?;
    Ok(Some((Candidate { spec, weights, posterior, policy, report }, until_ms)))
}

/// A policy that has learned more.
pub(crate) struct Updated {
    pub policy: Policy,
    /// Decisions that it learned from.
    pub decisions: usize,
}

/// Learns from `samples`, whose actions are the policy's own; those of models that it does not know are left out. Evidence halves within
/// `half_life_days` of the `passed_ms` that lie between what it knew and `until_ms`, and that of the samples with their age at `until_ms`.
///
/// # Errors
/// [`LearnError::Config`] when the policy has no posterior or a half-life is no time.
pub(crate) fn updated<'a>(
    policy: &Policy,
    samples: impl Iterator<Item = &'a Sample>,
    (known_until_ms, discount): (i64, &Discount),
) -> Result<Updated> {
    let posterior = posterior_of(policy)?;
    let broken = || LearnError::Artefact("the policy's posterior is not positive".to_owned());
    let mut prior = Precisions::of(posterior).ok_or_else(broken)?;
    prior.forget(discount.weight_of(known_until_ms));
    let judged = Judged::new(policy, samples, posterior.inputs(), discount);
    let network = policy.network();
    let (last, below) = network.layers().split_last().ok_or_else(broken)?;
    let mut weight = last.weight().to_vec();
    let mut bias = last.bias().to_vec();
    let mut precisions = prior.clone();
    for action in 0..policy.actions().len() {
        let known = &mut weight[action * last.inputs()..action * last.inputs() + posterior.inputs()];
        let moved = judged.newton(action, known, bias[action], &prior, &mut precisions);
        let moved = moved.ok_or(LearnError::Diverged { epoch: STEPS_MAX })?;
        let (own_bias, weights) = moved.split_last().ok_or_else(broken)?;
        known.iter_mut().zip(weights).for_each(|(w, moved)| *w = *moved as f32);
        bias[action] = *own_bias as f32;
    }
    let unusable = |error: weir_policy_runtime::PolicyError| LearnError::Artefact(error.to_string());
    let last = Layer::new(last.inputs(), weight, bias).map_err(unusable)?;
    let network = Mlp::new(below.iter().cloned().chain([last]).collect()).map_err(unusable)?;
    let policy = Policy::with_posterior(policy.spec().clone(), network, precisions.posterior()?).map_err(unusable)?;
    Ok(Updated { policy, decisions: judged.rows.len() })
}

/// One of them.
struct JudgedRow {
    action: usize,
    quality: f64,
    /// How many decisions it counts for.
    weight: f64,
}

fn posterior_of(policy: &Policy) -> Result<&Posterior> {
    policy.posterior().ok_or_else(|| {
        LearnError::Config(
            "this policy does not know how sure it is, so it cannot learn on: learn one with --learner thompson or upper-bound"
                .to_owned(),
        )
    })
}

/// Judged decisions as the last layer sees them.
struct Judged {
    width: usize,
    /// Last-layer inputs and a 1, shape `[decisions, width]`.
    hidden: Vec<f32>,
    rows: Vec<JudgedRow>,
}

impl Judged {
    fn new<'a>(policy: &Policy, samples: impl Iterator<Item = &'a Sample>, inputs: usize, discount: &Discount) -> Self {
        let spec = policy.spec();
        let mut input = vec![0.0; spec.features.width() + spec.heads.extra_inputs()];
        let mut scratch = MlpScratch::default();
        let mut judged = Self { width: inputs + 1, hidden: Vec::new(), rows: Vec::new() };
        for sample in samples {
            let Some(quality) = sample.quality.filter(|_| sample.action < policy.actions().len()) else { continue };
            spec.features.encode(&sample.context.as_context(), &mut input[..spec.features.width()]);
            policy.network().forward(&input, &mut scratch);
            judged.hidden.extend_from_slice(&policy.network().last_inputs(&input, &scratch)[..inputs]);
            judged.hidden.push(1.0);
            judged.rows.push(JudgedRow { action: sample.action, quality, weight: discount.weight(sample) });
        }
        judged
    }

    /// The weights and bias of one action that the prior and its decisions make most likely; its curvature goes to `precisions`.
    fn newton(
        &self,
        action: usize,
        weights: &[f32],
        bias: f32,
        prior: &Precisions,
        precisions: &mut Precisions,
    ) -> Option<Vec<f64>> {
        let start: Vec<f64> = weights.iter().chain([&bias]).map(|w| f64::from(*w)).collect();
        let own = || self.rows.iter().zip(self.hidden.chunks_exact(self.width)).filter(|(row, _)| row.action == action);
        let logit = |hidden: &[f32], w: &[f64]| hidden.iter().zip(w).map(|(h, w)| f64::from(*h) * w).sum::<f64>();
        // The penalised log likelihood, which is concave: a step that is short enough raises it.
        let value = |w: &[f64]| {
            let pull = prior.pull(action, &start, w);
            let away: f64 = start.iter().zip(w).zip(&pull).map(|((start, w), pull)| 0.5 * (start - w) * pull).sum();
            let fits = own().map(|(row, hidden)| {
                let z = logit(hidden, w);
                row.weight * (row.quality * z - z.max(0.0) - (-z.abs()).exp().ln_1p())
            });
            fits.sum::<f64>() - away
        };
        let mut now = start.clone();
        if own().next().is_none() {
            return Some(now);
        }
        for _ in 0..STEPS_MAX {
            let mut here = prior.clone();
            let mut gradient = prior.pull(action, &start, &now);
            for (row, hidden) in own() {
                let guess = 1.0 / (1.0 + (-logit(hidden, &now)).exp());
                here.add(action, &hidden[..self.width - 1], guess, row.weight);
                let missed = row.weight * (row.quality - guess);
                gradient.iter_mut().zip(hidden).for_each(|(g, h)| *g += missed * f64::from(*h));
            }
            let step = here.step(action, &gradient);
            if step.iter().all(|x| x.abs() < STEP_MIN) {
                precisions.take(action, &here);
                return Some(now);
            }
            let before = value(&now);
            let shortened = |halvings: usize| -> Vec<f64> {
                now.iter().zip(&step).map(|(w, x)| w + x * 0.5_f64.powi(halvings as i32)).collect()
            };
            // Where no step raises it any more, what is left to gain is rounding.
            let Some(next) = (0..HALVINGS_MAX).map(shortened).find(|w| value(w) > before) else {
                precisions.take(action, &here);
                return Some(now);
            };
            now = next;
        }
        None
    }
}
