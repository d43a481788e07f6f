//! What was really at stake in each request: for judging policies and estimators, never on the wire.

use std::collections::BTreeMap;

use weir_policy_runtime::OwnedContext;

/// The truth about one request. Vectors have one entry per model, in the world's order.
///
/// Expectations are those of *intending* a model: fallbacks and errors are part of them, because they are part of
/// what happens when the router chooses it. They are conditional on everything hidden.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// The request.
    pub request_id: String,
    /// Its session.
    pub session_id: String,
    /// When it arrived, ms since the Unix epoch.
    pub arrival_ms: i64,
    /// What the router saw.
    pub context: OwnedContext,
    /// Expected quality, 0 to 1.
    pub qualities: Vec<f64>,
    /// Expected cost, USD.
    pub costs_usd: Vec<f64>,
    /// Expected utility under the configured objective.
    pub utilities: Vec<f64>,
    /// Model that the router chose.
    pub chosen: usize,
    /// Its distribution.
    pub propensities: Vec<f64>,
    /// Did the response state something that its context does not? Known only where text was logged.
    pub unsupported: Option<bool>,
    /// Does the session ask for what it should not?
    pub is_unsafe: bool,
}

impl Truth {
    /// Expected utility of choosing by `distribution`.
    #[must_use]
    pub fn value_of(&self, distribution: &[f64]) -> f64 {
        self.utilities.iter().zip(distribution).map(|(utility, probability)| utility * probability).sum()
    }
}

/// Sums truths into the values of the policies that one compares.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValueLedger {
    models: Vec<String>,
    requests: u64,
    chosen: f64,
    router: f64,
    oracle: f64,
    by_domain: BTreeMap<String, Vec<f64>>,
}

/// Mean expected utility per request under several policies, over the same requests.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ValueSummary {
    /// Requests summed.
    pub requests: u64,
    /// Of the models that were in fact chosen.
    pub chosen: f64,
    /// Of the router's own distribution.
    pub router: f64,
    /// Of uniform choice.
    pub uniform: f64,
    /// Name of the best single model.
    pub best_single_model: String,
    /// Of always choosing it.
    pub best_single: f64,
    /// Of the best model of each domain.
    pub per_domain_best: f64,
    /// Of the best model of each request, hidden variables known.
    pub oracle: f64,
}

impl ValueLedger {
    /// A ledger for these models, in the world's order.
    #[must_use]
    pub fn new(models: impl IntoIterator<Item = String>) -> Self {
        Self { models: models.into_iter().collect(), ..Self::default() }
    }

    /// Adds one request.
    pub fn add(&mut self, truth: &Truth) {
        self.requests += 1;
        self.chosen += truth.utilities[truth.chosen];
        self.router += truth.value_of(&truth.propensities);
        self.oracle += truth.utilities.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let domain = truth.context.domain.clone().unwrap_or_default();
        let sums = self.by_domain.entry(domain).or_insert_with(|| vec![0.0; truth.utilities.len()]);
        for (sum, utility) in sums.iter_mut().zip(&truth.utilities) {
            *sum += utility;
        }
    }

    /// The values; none before the first request.
    #[must_use]
    pub fn summary(&self) -> Option<ValueSummary> {
        let n = self.requests as f64;
        let mut sums = vec![0.0; self.by_domain.values().next()?.len()];
        for domain in self.by_domain.values() {
            for (sum, utility) in sums.iter_mut().zip(domain) {
                *sum += utility;
            }
        }
        let best_of = |sums: &[f64]| sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let best = best_of(&sums);
        let best_model = sums.iter().position(|sum| *sum == best)?;
        Some(ValueSummary {
            requests: self.requests,
            chosen: self.chosen / n,
            router: self.router / n,
            uniform: sums.iter().sum::<f64>() / (n * sums.len() as f64),
            best_single_model: self.models.get(best_model).cloned().unwrap_or_default(),
            best_single: best / n,
            per_domain_best: self.by_domain.values().map(|domain| best_of(domain)).sum::<f64>() / n,
            oracle: self.oracle / n,
        })
    }
}
