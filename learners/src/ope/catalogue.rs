//! Every estimator on the same decisions, for people to compare. The verdict rests on none of them alone but on the doubly robust
//! difference.
//!
//! Decisions `i = 1..n`, weight `w = π(a|x) / p`, reward `r`, reward model `q`, `q(x,π)` its average over the target's choices. Sums are
//! over decisions; intervals are over clusters.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::EvaluationConfig;
use super::interval::{self, Estimate};
use super::rounds::Rounds;
use super::sheet::{Formula, Sheet};
use super::tuning;

/// An estimator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// `mean(w r)`. Horvitz and Thompson 1952; Precup, Sutton and Singh 2000.
    Ips,
    /// `Σ w r / Σ w`. Swaminathan and Joachims 2015, arXiv 1507.02206.
    Snips,
    /// `mean(min(w, λ) r)`. Bottou et al. 2013; Ionides 2008.
    ClippedIps,
    /// Weights `w / (1 - λ + λ w)`, whose mean is sub-Gaussian. Metelli, Russo and Restelli, NeurIPS 2021.
    SubGaussianIps,
    /// The direct method, `mean(q(x,π))`: as good as the reward model, and its interval knows nothing of the model's error.
    Dm,
    /// `mean(q(x,π) + w (r - q(x,a)))`. Dudík, Langford and Li 2011, arXiv 1103.4601.
    Dr,
    /// `mean(q(x,π)) + Σ w (r - q(x,a)) / Σ w`. Thomas and Brunskill 2016, arXiv 1604.00923, for one decision.
    Sndr,
    /// The correction is left out where `w > λ`. Wang, Agarwal and Dudík 2017, arXiv 1612.01205.
    SwitchDr,
    /// Weights `λ w / (w² + λ)`, which minimise a bound on the error. Su, Dimakopoulou, Krishnamurthy and Dudík 2020, arXiv 1907.09623.
    DrOs,
    /// Doubly robust with the weights of [`SubGaussianIps`](Self::SubGaussianIps).
    SubGaussianDr,
    /// `mean(w_g r)` with the ratio of probabilities of the choice's group: for many choices that differ little within a group.
    /// Unbiased if the choice matters through its group only. Saito and Joachims 2022, arXiv 2202.06317.
    Mips,
}

impl Method {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 11] = [
        Self::Ips,
        Self::Snips,
        Self::ClippedIps,
        Self::SubGaussianIps,
        Self::Dm,
        Self::Dr,
        Self::Sndr,
        Self::SwitchDr,
        Self::DrOs,
        Self::SubGaussianDr,
        Self::Mips,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ips => "IPS",
            Self::Snips => "SNIPS",
            Self::ClippedIps => "clipped IPS",
            Self::SubGaussianIps => "sub-Gaussian IPS",
            Self::Dm => "DM",
            Self::Dr => "DR",
            Self::Sndr => "SNDR",
            Self::SwitchDr => "SWITCH-DR",
            Self::DrOs => "DRos",
            Self::SubGaussianDr => "sub-Gaussian DR",
            Self::Mips => "MIPS",
        }
    }

    /// Does its interval mean what it says whatever the reward model and the tuning are? Where it does not, the number is shown, and
    /// nothing is to be decided by it.
    #[must_use]
    pub fn is_consistent(self) -> bool {
        matches!(self, Self::Ips | Self::Snips | Self::Dr | Self::Sndr)
    }

    /// Does it need a reward model's guesses?
    #[must_use]
    pub fn needs_guesses(self) -> bool {
        matches!(self, Self::Dm | Self::Dr | Self::Sndr | Self::SwitchDr | Self::DrOs | Self::SubGaussianDr)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Parameters of the methods that trade bias for variance. What is not given is chosen by SLOPE.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Largest weight of clipped IPS.
    pub clip: Option<f64>,
    /// Largest weight that SWITCH-DR corrects.
    pub switch: Option<f64>,
    /// λ of DRos.
    pub shrink: Option<f64>,
    /// λ of sub-Gaussian IPS, 0 to 1.
    pub sub_gaussian_ips: Option<f64>,
    /// λ of sub-Gaussian DR, 0 to 1.
    pub sub_gaussian_dr: Option<f64>,
}

/// What one estimator says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MethodEstimate {
    /// Which one.
    pub method: Method,
    /// Its λ, where it has one.
    pub parameter: Option<f64>,
    /// The target policy's value.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// See [`Method::is_consistent`].
    pub is_consistent: bool,
}

/// How a row's weight enters: the weight that is used in place of `w`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shrinkage {
    Clip(f64),
    Switch(f64),
    Optimistic(f64),
    SubGaussian(f64),
}

impl Shrinkage {
    pub(super) fn of(self, w: f64) -> f64 {
        match self {
            Self::Clip(most) => w.min(most),
            Self::Switch(most) => f64::from(u8::from(w <= most)) * w,
            Self::Optimistic(lambda) if lambda.is_infinite() => w,
            Self::Optimistic(lambda) => lambda * w / (w * w + lambda),
            Self::SubGaussian(lambda) => w / (1.0 - lambda + lambda * w),
        }
    }
}

// Columns of the sheet.
const N: usize = 0;
const W: usize = 1;
const WR: usize = 2;
const CLIPPED_R: usize = 3;
const SUB_GAUSSIAN_R: usize = 4;
const GUESS: usize = 5;
const RESIDUAL: usize = 6;
const SWITCHED: usize = 7;
const OPTIMISTIC: usize = 8;
const SUB_GAUSSIAN: usize = 9;
const GROUP_R: usize = 10;
/// A power of two, which the resampling has a fast path for.
const COLUMNS: usize = 16;

/// What every estimator says of the target policy's value. Those that need guesses are left out where there are none, and MIPS
/// where there are no groups. Linear in decisions.
///
/// This does not ask whether the logs can carry an answer: [`evaluate`](super::evaluate) does.
#[must_use]
pub fn estimate_all(rounds: &Rounds, parameters: Parameters, config: &EvaluationConfig) -> Vec<MethodEstimate> {
    let parameters = tuning::tuned(rounds, parameters);
    let sheet = sheet(rounds, parameters);
    let methods: Vec<Method> = Method::ALL
        .into_iter()
        .filter(|method| !method.needs_guesses() || rounds.guesses.is_some())
        .filter(|method| *method != Method::Mips || rounds.groups.is_some())
        .collect();
    let formulas: Vec<Formula> = methods.iter().map(|method| formula(*method)).collect();
    let estimates = interval::intervals(&sheet, &formulas, config);
    let of = |(method, estimate): (Method, Estimate)| MethodEstimate {
        method,
        parameter: parameter(method, parameters),
        estimate,
        is_consistent: method.is_consistent(),
    };
    methods.into_iter().zip(estimates).map(of).collect()
}

fn parameter(method: Method, parameters: Parameters) -> Option<f64> {
    match method {
        Method::ClippedIps => parameters.clip,
        Method::SwitchDr => parameters.switch,
        Method::DrOs => parameters.shrink,
        Method::SubGaussianIps => parameters.sub_gaussian_ips,
        Method::SubGaussianDr => parameters.sub_gaussian_dr,
        _ => None,
    }
}

fn formula(method: Method) -> Formula {
    let corrected = |column| Formula::ratio(&[(GUESS, 1.0), (column, 1.0)], N);
    match method {
        Method::Ips => Formula::ratio(&[(WR, 1.0)], N),
        Method::Snips => Formula::ratio(&[(WR, 1.0)], W),
        Method::ClippedIps => Formula::ratio(&[(CLIPPED_R, 1.0)], N),
        Method::SubGaussianIps => Formula::ratio(&[(SUB_GAUSSIAN_R, 1.0)], N),
        Method::Dm => Formula::ratio(&[(GUESS, 1.0)], N),
        Method::Dr => corrected(RESIDUAL),
        Method::Sndr => {
            let Formula(mut parts) = Formula::ratio(&[(GUESS, 1.0)], N);
            parts.extend(Formula::ratio(&[(RESIDUAL, 1.0)], W).0);
            Formula(parts)
        }
        Method::SwitchDr => corrected(SWITCHED),
        Method::DrOs => corrected(OPTIMISTIC),
        Method::SubGaussianDr => corrected(SUB_GAUSSIAN),
        Method::Mips => Formula::ratio(&[(GROUP_R, 1.0)], N),
    }
}

fn sheet(rounds: &Rounds, parameters: Parameters) -> Sheet {
    let infinite = f64::INFINITY;
    let clip = Shrinkage::Clip(parameters.clip.unwrap_or(infinite));
    let switch = Shrinkage::Switch(parameters.switch.unwrap_or(infinite));
    let optimistic = Shrinkage::Optimistic(parameters.shrink.unwrap_or(infinite));
    let sub_gaussian = |lambda: Option<f64>| Shrinkage::SubGaussian(lambda.unwrap_or(0.0));
    let (of_ips, of_dr) = (sub_gaussian(parameters.sub_gaussian_ips), sub_gaussian(parameters.sub_gaussian_dr));
    let (rewards, propensities, targets) = (rounds.reward.values(), rounds.propensity.values(), rounds.target.values());
    Sheet::new(rounds.clusters, COLUMNS, |values| {
        for row in 0..rounds.len() {
            let sums = &mut values[rounds.cluster[row] * COLUMNS..][..COLUMNS];
            let (w, r) = (targets[row] / propensities[row], rewards[row]);
            sums[N] += 1.0;
            sums[W] += w;
            sums[WR] += w * r;
            sums[CLIPPED_R] += clip.of(w) * r;
            sums[SUB_GAUSSIAN_R] += of_ips.of(w) * r;
            if let Some([logged, policy]) = &rounds.guesses {
                let residual = r - logged.value(row);
                sums[GUESS] += policy.value(row);
                sums[RESIDUAL] += w * residual;
                sums[SWITCHED] += switch.of(w) * residual;
                sums[OPTIMISTIC] += optimistic.of(w) * residual;
                sums[SUB_GAUSSIAN] += of_dr.of(w) * residual;
            }
            if let Some([propensity, target]) = &rounds.groups {
                sums[GROUP_R] += target.value(row) / propensity.value(row) * r;
            }
        }
    })
}
