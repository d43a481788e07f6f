//! What each policy is said to be worth, and what it is.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::exact::SessionTruth;
use super::judge::SessionJudgement;
use crate::report::interval;

/// The best policy that never cuts a session back, where cutting back is a choice.
pub(super) const WITHOUT_CUTS: &str = "optimal without cutting back";

/// One policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionArm {
    /// Which.
    pub policy: String,
    /// Is it one that learned policies must beat?
    pub is_baseline: bool,
    /// What held-out sessions of the logging router say.
    pub judgement: SessionJudgement,
    /// What is true.
    pub truth: SessionTruth,
}

/// The outcome of the experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Models to choose from.
    pub models: usize,
    /// Logged sessions learned from.
    pub train_sessions: usize,
    /// Logged sessions judged on.
    pub held_out_sessions: usize,
    /// The seed.
    pub seed: u64,
    /// Coverage that intervals aim for.
    pub confidence: f64,
    /// Every policy; the last is the optimal one.
    pub arms: Vec<SessionArm>,
}

impl SessionReport {
    /// The policy of that name.
    #[must_use]
    pub fn arm(&self, policy: &str) -> Option<&SessionArm> {
        self.arms.iter().find(|arm| arm.policy == policy)
    }

    /// True value of the best baseline: the logging router and everything that does not look beyond a turn.
    #[must_use]
    pub fn best_baseline(&self) -> f64 {
        let baselines = self.arms.iter().filter(|arm| arm.is_baseline);
        baselines.map(|arm| arm.truth.value).fold(f64::NEG_INFINITY, f64::max)
    }

    /// How much of what the optimal policy gains over the best baseline this one gains.
    #[must_use]
    pub fn share_of_margin(&self, arm: &SessionArm) -> f64 {
        let optimal = self.arms.last().map_or(f64::NAN, |arm| arm.truth.value);
        let base = self.best_baseline();
        (arm.truth.value - base) / (optimal - base)
    }

    /// What cutting back adds to the best policy, in units of utility a session; none where it is no choice.
    #[must_use]
    pub fn cuts_add(&self) -> Option<f64> {
        Some(self.arms.last()?.truth.value - self.arm(WITHOUT_CUTS)?.truth.value)
    }

    /// The report for people.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| writeln!(out, "{text}").expect("a String takes any text");
        line(format!("# Session policies among {} simulated models, seed {}\n", self.models, self.seed));
        line(format!(
            "Learned from {} logged sessions, judged on {} others of the same router; intervals of {:.0} %. True figures are computed from \
             the dynamics. Margin: from the best baseline to the optimal policy.\n",
            self.train_sessions,
            self.held_out_sessions,
            100.0 * self.confidence
        ));
        let heads = [
            "policy",
            "value (weighted doubly robust)",
            "value (fitted Q, shown only)",
            "true value",
            "completed (weighted doubly robust)",
            "truly completed",
            "median turns, completed",
            "true median",
            "effective sessions",
            "verdict",
            "share of the margin",
        ];
        line(format!("| {} |", heads.join(" | ")));
        line(format!("|---|{}", "---:|".repeat(heads.len() - 1)));
        for arm in &self.arms {
            let judged = &arm.judgement;
            let turns = judged.lengths.as_ref().map_or("none".to_owned(), |lengths| {
                let turns = lengths.target;
                format!("{} ({} to {})", turns.value, turns.low, turns.high)
            });
            let cells = [
                arm.policy.clone(),
                interval(&judged.value.weighted_doubly_robust),
                format!("{:.4}", judged.value.direct.value),
                format!("{:.4}", arm.truth.value),
                interval(&judged.completion.weighted_doubly_robust),
                format!("{:.4}", arm.truth.completion_rate),
                turns,
                arm.truth.median_completed_turns.to_string(),
                format!("{:.0}", judged.support.effective_sessions),
                judged.verdict.words().to_owned(),
                format!("{:.1} %", 100.0 * self.share_of_margin(arm)),
            ];
            line(format!("| {} |", cells.join(" | ")));
        }
        if let Some(added) = self.cuts_add() {
            line(format!(
                "\nTo cut a session back after a failed turn, and to let a model answer from before it, adds {added:.4} to the optimum."
            ));
        }
        out
    }
}
