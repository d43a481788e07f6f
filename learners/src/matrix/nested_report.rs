//! The table of data sets and figures.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::measures::Measure;
use super::nested::NestedConfig;
use crate::ope::Estimate;
use crate::report::interval;

/// What one router earns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NestedScore {
    /// The router.
    pub policy: String,
    /// Its figures, with bootstrap intervals over queries; what is not defined is left out.
    pub figures: BTreeMap<Measure, Estimate>,
}

/// One matrix, by nested cross-validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NestedReport {
    /// Which matrix.
    pub matrix: String,
    /// What to know of it.
    pub note: String,
    /// What its costs are.
    pub cost_note: String,
    /// What routers know of a query's text.
    pub text_features: String,
    /// Models to choose from.
    pub models: usize,
    /// Queries, each judged once.
    pub queries: usize,
    /// Decisions per training query that the learned policy saw, one score each.
    pub passes: usize,
    /// The best single models of the training parts, and in how many of them.
    pub best_single: Vec<(String, usize)>,
    /// Figures that the data do not support, and why.
    pub unsupported: BTreeMap<Measure, String>,
    /// What inner folds chose, an outer fold each.
    pub settings: Vec<String>,
    /// How it was run.
    pub config: NestedConfig,
    /// Every router.
    pub scores: Vec<NestedScore>,
}

impl NestedReport {
    /// For people.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| writeln!(out, "{text}").expect("a String takes any text");
        line(format!("## {}: {} models, {} queries\n", self.matrix, self.models, self.queries));
        let singles: Vec<String> =
            self.best_single.iter().map(|(model, folds)| format!("{model} in {folds} folds")).collect();
        line(format!(
            "{}. Cost: {}. Text: {}. \"Same logs\" and the learned policy saw {} decisions a training query, one score each, models drawn uniformly; \
             \"all scores\" saw {} scores a query. Best single model: {}. Intervals: {:.0} %, over queries.\n",
            self.note,
            self.cost_note,
            self.text_features,
            self.passes,
            self.models,
            singles.join(", "),
            100.0 * self.config.confidence
        ));
        let shown: Vec<Measure> =
            Measure::ALL.into_iter().filter(|measure| !self.unsupported.contains_key(measure)).collect();
        line(format!("| router | {} |", shown.iter().map(|measure| measure.name()).collect::<Vec<_>>().join(" | ")));
        line(format!("|---|{}", "---|".repeat(shown.len())));
        for score in &self.scores {
            let cells: Vec<String> = shown.iter().map(|measure| cell(score.figures.get(measure))).collect();
            line(format!("| {} | {} |", score.policy, cells.join(" | ")));
        }
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (measure, why) in &self.unsupported {
            reasons.entry(why).or_default().push(measure.name());
        }
        for (why, measures) in reasons {
            line(format!("\nNot supported: {} ({why}).", measures.join(", ")));
        }
        line("\nChosen on inner folds, an outer fold each:\n".to_owned());
        self.settings.iter().for_each(|settings| line(format!("- {settings}")));
        out
    }

    fn of(&self, policy: &str) -> Option<&NestedScore> {
        self.scores.iter().find(|score| score.policy == policy)
    }
}

fn cell(figure: Option<&Estimate>) -> String {
    figure.map_or_else(|| "-".to_owned(), interval)
}

/// The learned policy's figure for each data set, or why there is none; then by how much it is ahead of every other router.
#[must_use]
pub fn matrices_to_markdown(reports: &[NestedReport]) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a String takes any text");
    line("# Score matrices, by nested cross-validation\n".to_owned());
    line("The learned policy, which saw one score a decision:\n".to_owned());
    line(format!(
        "| data set | {} |",
        reports.iter().map(|report| report.matrix.as_str()).collect::<Vec<_>>().join(" | ")
    ));
    line(format!("|---|{}", "---|".repeat(reports.len())));
    for measure in Measure::ALL.into_iter().filter(|measure| *measure != Measure::LearnedOver) {
        let of = |report: &NestedReport| match report.unsupported.get(&measure) {
            Some(why) => format!("no: {why}"),
            None => cell(report.of("learned policy").and_then(|score| score.figures.get(&measure))),
        };
        line(format!("| {} | {} |", measure.name(), reports.iter().map(of).collect::<Vec<_>>().join(" | ")));
    }
    line("\nThe learned policy minus each router, in AIQ, or in APGR where there are no costs:\n".to_owned());
    line(format!(
        "| router | {} |",
        reports.iter().map(|report| report.matrix.as_str()).collect::<Vec<_>>().join(" | ")
    ));
    line(format!("|---|{}", "---|".repeat(reports.len())));
    let routers = reports.first().map_or(&[][..], |report| &report.scores);
    for router in routers.iter().filter(|router| router.policy != "learned policy") {
        let of = |report: &NestedReport| {
            cell(report.of(&router.policy).and_then(|score| score.figures.get(&Measure::LearnedOver)))
        };
        line(format!("| {} | {} |", router.policy, reports.iter().map(of).collect::<Vec<_>>().join(" | ")));
    }
    line(String::new());
    reports.iter().for_each(|report| line(report.to_markdown()));
    out
}
