//! What cascades earn and cost, beside routers that choose once, for people.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::cascade::CascadeConfig;
use crate::cascade::{AcceptMetrics, RiskConfig};
use crate::ope::Estimate;
use crate::report::interval;

/// What one policy earns on the test queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CascadeScore {
    /// The policy.
    pub policy: String,
    /// What its threshold promises, where it has one.
    pub promise: Option<RiskConfig>,
    /// The threshold; none with a promise says that no level was shown to be safe, and everything goes to the strong model.
    pub threshold: Option<f64>,
    /// Mean quality.
    pub quality: Estimate,
    /// Mean quality minus that of always asking the strong model, query by query.
    pub quality_over_strong: Estimate,
    /// Mean of the loss that was promised; of harm where nothing was.
    pub loss: Estimate,
    /// Mean cost, USD, of all calls that were made.
    pub cost_usd: Estimate,
    /// Share of queries that the strong model answered.
    pub strong_calls: Estimate,
}

/// How a promise held where the truth is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Guarantee {
    /// The promise.
    pub risk: RiskConfig,
    /// Second parts drawn.
    pub draws: usize,
    /// Share of them whose threshold has a risk above `alpha`; promised is `delta` at most.
    pub exceeded_share: f64,
    /// Share of them in which no level was shown to be safe.
    pub none_share: f64,
    /// Mean risk of the thresholds chosen.
    pub risk_mean: f64,
    /// Mean share of queries that they escalate.
    pub escalated_mean: f64,
}

/// The experiment's outcome. Intervals are bootstrap percentiles over test queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CascadeReport {
    /// Which matrix.
    pub matrix: String,
    /// The model that answers first.
    pub cheap: String,
    /// The model that is escalated to.
    pub strong: String,
    /// What the costs are.
    pub cost_note: String,
    /// Queries that the accept score was fitted on.
    pub train_queries: usize,
    /// Queries that thresholds were tested on.
    pub calibrate_queries: usize,
    /// Queries judged on.
    pub test_queries: usize,
    /// The accept score knows how long the cheap answer is, beside the prompt.
    pub knows_answer_length: bool,
    /// Mean cost of a strong call on the test queries, USD.
    pub strong_usd: f64,
    /// The accept score, out of fold on the training queries.
    pub accept: AcceptMetrics,
    /// How it was run.
    pub config: CascadeConfig,
    /// Every policy.
    pub scores: Vec<CascadeScore>,
    /// How the promises held.
    pub guarantees: Vec<Guarantee>,
}

impl CascadeReport {
    /// The report for people.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| writeln!(out, "{text}").expect("a String takes any text");
        line(format!("# {}: a cascade from {} to {}\n", self.matrix, self.cheap, self.strong));
        line(format!(
            "The accept score is fitted on {} queries, thresholds are tested on {}, and {} others are judged. Cost is {}; an escalation \
             pays for both calls. Intervals: {:.0} %, over test queries.\n",
            self.train_queries,
            self.calibrate_queries,
            self.test_queries,
            self.cost_note,
            100.0 * self.config.confidence
        ));
        line(format!("{}\n", self.what_the_score_knows()));
        line(self.about_the_score());
        line(String::new());
        line("| policy | promise | threshold | quality | over always strong | realised loss | strong calls | cost, share of strong |".to_owned());
        line("|---|---|---:|---|---|---|---:|---:|".to_owned());
        for score in &self.scores {
            let (promise, threshold) = match (&score.promise, score.threshold) {
                (None, _) => ("none".to_owned(), "-".to_owned()),
                (Some(risk), Some(threshold)) => (in_words(risk), format!("{threshold:.3}")),
                (Some(risk), None) => (in_words(risk), "none is safe".to_owned()),
            };
            line(format!(
                "| {} | {promise} | {threshold} | {} | {} | {} | {:.3} | {:.3} |",
                score.policy,
                interval(&score.quality),
                interval(&score.quality_over_strong),
                interval(&score.loss),
                score.strong_calls.value,
                score.cost_usd.value / self.strong_usd
            ));
        }
        line(format!(
            "\nDoes the promise hold? {} parts of {} queries drawn from the {} that the score has not seen, whose risk is known:\n",
            self.config.draws,
            self.calibrate_queries,
            self.calibrate_queries + self.test_queries
        ));
        line(
            "| promise | p-values | risk above alpha in | allowed | no safe threshold in | mean risk | escalated |"
                .to_owned(),
        );
        line("|---|---|---:|---:|---:|---:|---:|".to_owned());
        for held in &self.guarantees {
            line(format!(
                "| {} | {} | {:.3} | {:.3} | {:.3} | {:.4} | {:.3} |",
                in_words(&held.risk),
                held.risk.bound.name(),
                held.exceeded_share,
                held.risk.delta,
                held.none_share,
                held.risk_mean,
                held.escalated_mean
            ));
        }
        out
    }

    fn what_the_score_knows(&self) -> &'static str {
        if self.knows_answer_length {
            "The matrix has no verifier: of the cheap answer the score knows its length alone, beside the prompt; the router knows the prompt."
        } else {
            "The matrix has no texts of answers: the score knows the prompt alone, as the router does, so that the cheap call buys no \
             knowledge here and a cascade can only cost more."
        }
    }

    fn about_the_score(&self) -> String {
        let AcceptMetrics { brier, brier_uncalibrated, brier_constant, good_share, .. } = self.accept;
        let calibrated =
            if self.accept.is_calibrated { "calibration is kept" } else { "calibration did not help and is left out" };
        format!(
            "Accept score, out of fold: Brier {brier:.4} ({brier_uncalibrated:.4} before calibration, {brier_constant:.4} for the mean \
             {good_share:.3} everywhere); calibration error {:.4} ({:.4} before); {calibrated}.",
            self.accept.calibration_error, self.accept.calibration_error_uncalibrated
        )
    }
}

fn in_words(risk: &RiskConfig) -> String {
    format!("{} at most {}", risk.loss.name(), risk.alpha)
}
