//! What a policy's corrections are worth, by doubly robust rewards of logged decisions.

use std::collections::BTreeMap;

use weir_policy_runtime::{Mlp, MlpScratch, softmax_weights};

use super::LearnedCorrections;
use crate::dr_rewards::DrRewards;
use crate::error::{LearnError, Result};
use crate::network::{Inputs, runtime_network};
use crate::training_set::Sample;

/// The largest weight of a dollar at which the policy still reaches `quality`, by doubly robust value on the training rows: the multiplier
/// of "least cost at such a quality". Values are of the policy's probabilities.
///
/// # Errors
/// [`LearnError::NotEnoughData`] when the quality is not reached even where cost counts nothing.
pub(crate) fn usd_weight_for_quality(learned: &LearnedCorrections, quality: f64, quality_weight: f64) -> Result<f64> {
    let network = runtime_network(&learned.layers)?;
    let reached = |share: f64| learned.judge.mean_quality(&network, share as f32);
    let most = reached(0.0);
    if most < quality {
        return Err(LearnError::NotEnoughData(format!(
            "a quality of {quality} is not reached: where cost counts nothing the policy reaches {most:.4} on its training decisions; ask for less"
        )));
    }
    let (mut kept, mut broken) = (0.0, SHARE_MAX);
    if reached(SHARE_MAX) >= quality {
        kept = SHARE_MAX;
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(kept, broken);
        if reached(middle) >= quality { kept = middle } else { broken = middle }
    }
    // share = usd · scale / (quality_weight + usd · scale), solved for usd.
    Ok(quality_weight * kept / (1.0 - kept) / learned.preference.usd_scale)
}

/// Beyond this cost counts a thousand times as much as quality.
const SHARE_MAX: f64 = 0.999;
/// Steps of the bisection: the share to 1 in 4,000.
const HALVINGS: usize = 12;

/// How the policy draws.
pub(super) struct Draws {
    pub temperature: f64,
    pub floor: f64,
    pub usd_scale: f32,
}

/// What corrections are worth, by doubly robust rewards of the training decisions.
pub(super) struct Judge {
    pub rewards: DrRewards,
    pub logging: Logging,
    pub inputs: Inputs,
    pub draws: Draws,
}

/// Gains by cluster: sums and counts.
#[derive(Default)]
pub(super) struct Gains(BTreeMap<usize, (f64, f64)>);

impl Gains {
    /// Mean over clusters, and its standard error; none of fewer than two.
    pub(super) fn estimate(&self) -> Option<(f64, f64)> {
        let means: Vec<f64> = self.0.values().map(|(sum, count)| sum / count).collect();
        let n = means.len() as f64;
        if n < 2.0 {
            return None;
        }
        let value = means.iter().sum::<f64>() / n;
        let variance = means.iter().map(|mean| (mean - value).powi(2)).sum::<f64>() / (n - 1.0);
        Some((value, (variance / n).sqrt()))
    }
}

impl Judge {
    /// Adds what corrections do to the value of decisions that they were not learned from, under each of their trade-offs.
    pub(super) fn add_gains(&self, network: &Mlp, decisions: &[usize], clusters: &[usize], gains: &mut Gains) {
        let mut room = Room::new(self.rewards.actions, self.inputs.width);
        for &decision in decisions {
            let sum = gains.0.entry(clusters[decision]).or_default();
            for share in &self.inputs.extra[decision * self.inputs.repeats..(decision + 1) * self.inputs.repeats] {
                let mut value = |network| self.value(network, decision, *share, *share, &mut room);
                *sum = (sum.0 + value(Some(network)) - value(None), sum.1 + 1.0);
            }
        }
    }

    /// Mean quality of the decisions under one trade-off.
    fn mean_quality(&self, network: &Mlp, share: f32) -> f64 {
        let mut room = Room::new(self.rewards.actions, self.inputs.width);
        let decisions = self.rewards.taken.len();
        let quality = |decision| self.value(Some(network), decision, share, 0.0, &mut room);
        (0..decisions).map(quality).sum::<f64>() / decisions.max(1) as f64
    }

    /// `Σ π(a) Γ(a)` of a decision, where π is for one share of cost and Γ is taken at another.
    fn value(&self, network: Option<&Mlp>, decision: usize, share: f32, judged_at: f32, room: &mut Room) -> f64 {
        let (width, usd_scale) = (self.inputs.width, self.draws.usd_scale);
        let Room { input, scratch, utility, scores, gamma, allowed, ignored, may, policy } = room;
        self.rewards.guess(decision, share, usd_scale, utility);
        scores.iter_mut().zip(utility.iter()).for_each(|(score, u)| *score = f64::from(*u));
        if let Some(network) = network {
            input[..width].copy_from_slice(&self.inputs.values[decision * width..(decision + 1) * width]);
            input[width] = share;
            let corrections = network.forward(input, scratch);
            scores.iter_mut().zip(corrections).for_each(|(score, g)| *score += f64::from(*g));
        }
        self.logging.write(decision, allowed, ignored);
        may.iter_mut().zip(allowed.iter()).for_each(|(may, allowed)| *may = *allowed > 0.0);
        softmax_weights(scores, may, self.draws.temperature, self.draws.floor, policy);
        self.rewards.gamma(decision, judged_at, usd_scale, gamma);
        policy.iter().zip(gamma.iter()).map(|(p, gamma)| p * f64::from(*gamma)).sum()
    }
}

/// Room for one decision.
struct Room {
    input: Vec<f32>,
    scratch: MlpScratch,
    utility: Vec<f32>,
    scores: Vec<f64>,
    gamma: Vec<f32>,
    allowed: Vec<f32>,
    ignored: Vec<f32>,
    may: Vec<bool>,
    policy: Vec<f64>,
}

impl Room {
    fn new(actions: usize, width: usize) -> Self {
        let plane = || vec![0.0; actions];
        Self {
            input: vec![0.0; width + 1],
            scratch: MlpScratch::default(),
            utility: plane(),
            scores: vec![0.0; actions],
            gamma: plane(),
            allowed: plane(),
            ignored: plane(),
            may: vec![false; actions],
            policy: vec![0.0; actions],
        }
    }
}

/// What the logging policy could do, and how likely it was.
pub(super) struct Logging {
    actions: usize,
    allowed: Vec<bool>,
    log_probability: Vec<f32>,
}

impl Logging {
    pub(super) fn new(samples: &[Sample], rows: &[usize], actions: usize) -> Self {
        let cells = rows.len() * actions;
        let mut logging = Self { actions, allowed: vec![true; cells], log_probability: vec![0.0; cells] };
        for (place, &row) in rows.iter().enumerate() {
            let sample = &samples[row];
            let cells = place * actions..(place + 1) * actions;
            if let Some(allowed) = &sample.allowed {
                logging.allowed[cells.clone()].copy_from_slice(allowed);
            }
            // What ran was possible, whatever the log of candidates says.
            logging.allowed[cells.start + sample.action] = true;
            let count = logging.allowed[cells.clone()].iter().filter(|flag| **flag).count() as f64;
            for action in 0..actions {
                let probability = match (&sample.logged_distribution, sample.propensity) {
                    (Some(distribution), _) => distribution[action],
                    (None, Some(own)) if action == sample.action => own,
                    // Of the others only their sum is known.
                    (None, Some(own)) => (1.0 - own) / (count - 1.0).max(1.0),
                    (None, None) => 1.0 / count,
                };
                logging.log_probability[cells.start + action] = probability.max(1e-3).ln() as f32;
            }
        }
        logging
    }

    pub(super) fn write(&self, row: usize, allowed: &mut [f32], log_probability: &mut [f32]) {
        let cells = row * self.actions..(row + 1) * self.actions;
        for (out, flag) in allowed.iter_mut().zip(&self.allowed[cells.clone()]) {
            *out = f32::from(u8::from(*flag));
        }
        log_probability.copy_from_slice(&self.log_probability[cells]);
    }
}
