//! Policies on the judged queries: who answers, what that earns, and which calls were paid for.

use super::cascade::CascadeConfig;
use super::cascade_report::CascadeScore;
use super::report::bootstrap_means;
use crate::cascade::{CascadeLoss, JudgedAnswer, RiskConfig, ThresholdChoice};

/// One query: both models' quality and cost, and what the scores say before and after the cheap answer.
pub(super) struct Query {
    pub cheap: f64,
    pub strong: f64,
    pub cheap_usd: f64,
    pub strong_usd: f64,
    pub accept_score: f64,
    pub router_score: f64,
}

impl Query {
    pub fn judged(&self, score: f64, cluster: usize, loss: CascadeLoss) -> JudgedAnswer {
        JudgedAnswer { score, loss: loss.of(self.cheap, self.strong), cluster }
    }
}

/// A policy on the test queries: what each of them earns, loses and costs.
pub(super) struct Arm {
    policy: String,
    promise: Option<RiskConfig>,
    threshold: Option<f64>,
    /// Quality, quality over the strong model, loss, cost and share of strong calls, by query.
    columns: [Vec<f64>; 5],
}

impl Arm {
    /// `strong` says who is asked for the final answer, `pays` whether the cheap model was asked too.
    fn new(policy: &str, test: &[Query], loss: CascadeLoss, asks: impl Fn(&Query) -> (bool, bool)) -> Self {
        let mut columns: [Vec<f64>; 5] = Default::default();
        for query in test {
            let (strong, pays_cheap) = asks(query);
            let quality = if strong { query.strong } else { query.cheap };
            let lost = if strong { 0.0 } else { loss.of(query.cheap, query.strong) };
            let usd = if strong { query.strong_usd } else { 0.0 } + if pays_cheap { query.cheap_usd } else { 0.0 };
            let values = [quality, quality - query.strong, lost, usd, f64::from(u8::from(strong))];
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        }
        Self { policy: policy.to_owned(), promise: None, threshold: None, columns }
    }

    pub fn strong(test: &[Query]) -> Self {
        Self::new("always strong", test, CascadeLoss::Harm, |_| (true, false))
    }

    pub fn cheap(test: &[Query]) -> Self {
        Self::new("always cheap", test, CascadeLoss::Harm, |_| (false, true))
    }

    /// The ceiling of any accept score.
    pub fn knowing(test: &[Query]) -> Self {
        Self::new("cascade that knows both answers", test, CascadeLoss::Harm, |query| {
            (query.strong > query.cheap, true)
        })
    }

    pub fn cascade(test: &[Query], risk: &RiskConfig, chosen: ThresholdChoice) -> Self {
        let escalates = |query: &Query| chosen.threshold.is_none_or(|threshold| query.accept_score < threshold);
        let arm = Self::new("cascade", test, risk.loss, |query| (escalates(query), true));
        Self { promise: Some(*risk), threshold: chosen.threshold, ..arm }
    }

    /// One call each: the choice is made from the prompt alone.
    pub fn router(test: &[Query], risk: &RiskConfig, chosen: ThresholdChoice) -> Self {
        let goes_up = |query: &Query| chosen.threshold.is_none_or(|threshold| query.router_score < threshold);
        let arm = Self::new("single-shot router", test, risk.loss, |query| (goes_up(query), !goes_up(query)));
        Self { promise: Some(*risk), threshold: chosen.threshold, ..arm }
    }
}

/// What each policy earns, with intervals over resampled queries.
pub(super) fn scored(arms: Vec<Arm>, config: &CascadeConfig) -> Vec<CascadeScore> {
    let (named, columns): (Vec<_>, Vec<_>) =
        arms.into_iter().map(|arm| ((arm.policy, arm.promise, arm.threshold), arm.columns)).unzip();
    let columns: Vec<Vec<f64>> = columns.into_iter().flatten().collect();
    let estimates = bootstrap_means(&columns, config.seed, config.bootstraps, config.confidence);
    let scores = named.into_iter().zip(estimates.chunks(5)).map(|((policy, promise, threshold), of)| CascadeScore {
        policy,
        promise,
        threshold,
        quality: of[0],
        quality_over_strong: of[1],
        loss: of[2],
        cost_usd: of[3],
        strong_calls: of[4],
    });
    scores.collect()
}
