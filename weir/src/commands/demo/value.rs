//! What the policies in force were worth, as rewards say it: mean utility with an interval over sessions.

use std::collections::HashMap;

use serde::Serialize;
use weir_learners::ope::{self, EvaluationConfig, Logged};
use weir_learners::{Sample, TrainingSet};
use weir_policy_runtime::Objective;

/// A mean and its interval.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Measured {
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub requests: usize,
}

/// Mean utility of the requests that arrived in `[from_ms, to_ms)` and were judged; none when there are too few.
pub fn measured(
    set: &TrainingSet,
    objective: &Objective,
    from_ms: i64,
    to_ms: i64,
    evaluation: &EvaluationConfig,
) -> Option<Measured> {
    let mut clusters: HashMap<&str, usize> = HashMap::new();
    let rows: Vec<Logged> = set
        .samples
        .iter()
        .filter(|sample| (from_ms..to_ms).contains(&sample.time_ms))
        .filter_map(|sample| {
            let next = clusters.len();
            let cluster = *clusters.entry(&sample.cluster).or_insert(next);
            on_policy(sample, cluster, objective)
        })
        .collect();
    let requests = rows.len();
    // A policy evaluated on its own log has weights of one, so the estimate is the mean and the interval is by session.
    let logging = ope::evaluate(&rows, evaluation).estimates?.logging;
    Some(Measured { value: logging.value, low: logging.low, high: logging.high, requests })
}

fn on_policy(sample: &Sample, cluster: usize, objective: &Objective) -> Option<Logged> {
    let reward = objective.utility(sample.quality?, sample.cost_usd?);
    let propensity = sample.propensity?;
    Some(Logged {
        cluster,
        propensity,
        target_probability: propensity,
        reward,
        q_hat_logged: reward,
        q_hat_policy: reward,
        unsupported_mass: None,
    })
}
