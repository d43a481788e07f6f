//! What logged sessions say of a policy that was learned from others.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use weir_policy_runtime::Exploration;

use super::config::Algorithm;
use super::in_force::StoredHeld;
use super::judge::{SessionJudgeConfig, SessionJudgement, SessionVerdict};
use super::left_out::LeftOut;
use super::tables::SessionReward;
use crate::ope::Verdict;
use crate::outcome::Part;
use crate::report::{interval, short};

/// One policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredArm {
    /// Which.
    pub policy: String,
    /// Is it the one that is proposed?
    pub is_candidate: bool,
    /// What held-out sessions say.
    pub judgement: SessionJudgement,
}

/// `report.json` of a session policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredReport {
    /// The verdict in words, by which policies are approved.
    pub verdict: String,
    /// How the policy was learned.
    pub algorithm: Algorithm,
    /// The seed.
    pub seed: u64,
    /// What a session is worth.
    pub reward: SessionReward,
    /// How the policy draws.
    pub exploration: Exploration,
    /// Coverage that intervals aim for.
    pub confidence: f64,
    /// Loss of completion that still counts as none.
    pub completion_margin: f64,
    /// Sessions learned from.
    pub train_sessions: usize,
    /// Sessions judged on.
    pub held_out_sessions: usize,
    /// Held-out sessions that cannot judge for lack of a propensity.
    pub without_propensity: usize,
    /// Turns that kept an earlier draw.
    pub kept_turns: usize,
    /// Sessions that were not used at all.
    pub left_out: LeftOut,
    /// Parts of the operator's outcome that sessions are not priced by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_priced: Vec<Part>,
    /// The candidate, then the baselines.
    pub arms: Vec<StoredArm>,
    /// The policy of sessions in force, that the candidate is held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<StoredHeld>,
}

impl StoredReport {
    /// Better: a session is worth more than a logged one by more than the margin, and completion is not lost by more than its own, each at
    /// the stated confidence. Worse: one of the two is shown to be broken.
    #[must_use]
    pub fn verdict_of(judgement: &SessionJudgement, config: &SessionJudgeConfig) -> Verdict {
        let (value, completion) = (&judgement.value.difference, &judgement.completion.difference);
        let (margin, completion_margin) = (config.evaluation.margin, config.completion_margin);
        match &judgement.verdict {
            SessionVerdict::InsufficientSupport { reasons } => {
                Verdict::InsufficientSupport { reasons: reasons.clone() }
            }
            _ if value.low > margin && completion.low > -completion_margin => Verdict::Better,
            _ if value.high < -margin || completion.high < -completion_margin => Verdict::Worse,
            _ => Verdict::NotShown,
        }
    }

    /// The bytes of `report.json`.
    ///
    /// # Errors
    /// When a number cannot be written.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
    }

    /// The report for people.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| writeln!(out, "{text}").expect("a String takes any text");
        line(format!("# Session policy by {}: {}\n", self.algorithm.words(), self.verdict));
        line(format!("{}\n", self.prices()));
        line(format!(
            "Learned from {} logged sessions (seed {}), judged on {} others; intervals of {} %. It draws anew at every turn, with gamma {} \
             per unit of utility and a floor of {}.\n",
            self.train_sessions,
            self.seed,
            self.held_out_sessions,
            (1000.0 * self.confidence).round() / 10.0,
            self.exploration.gamma,
            self.exploration.floor
        ));
        let heads = [
            "policy",
            "value of a session (weighted doubly robust)",
            "difference to logging",
            "value (fitted Q, shown only)",
            "completed (weighted doubly robust)",
            "median turns, completed",
            "effective sessions",
            "verdict on length",
        ];
        line(format!("| {} |", heads.join(" | ")));
        line(format!("|---|{}", "---:|".repeat(heads.len() - 1)));
        if let Some(arm) = self.arms.first() {
            line(format!("| {} |", logging(&arm.judgement).join(" | ")));
        }
        let held = self.in_force.as_ref().map(|held| (format!("policy in force ({})", short(&held.policy_id)), held));
        let shown: Vec<(&str, &SessionJudgement)> = held
            .iter()
            .map(|(name, held)| (name.as_str(), &held.judgement))
            .chain(self.arms.iter().map(|arm| (arm.policy.as_str(), &arm.judgement)))
            .collect();
        for (policy, judgement) in &shown {
            line(format!("| {} |", cells(policy, judgement).join(" | ")));
        }
        line(String::new());
        for (policy, judgement) in &shown {
            if let SessionVerdict::InsufficientSupport { reasons } = &judgement.verdict {
                reasons.iter().for_each(|reason| line(format!("{policy}: {reason}.\n")));
            }
        }
        if let Some((value, completion)) =
            held.as_ref().and_then(|(_, held)| held.difference.as_ref().zip(held.completion_difference.as_ref()))
        {
            line(format!(
                "Difference to the policy in force, over the same sessions: value {}, completed {}.\n",
                interval(value),
                interval(completion)
            ));
        }
        self.notes().into_iter().for_each(line);
        out
    }

    fn prices(&self) -> String {
        let SessionReward { completion, quality, usd, second, turn, switch_mtok, .. } = &self.reward;
        let mut terms = vec![format!("a session is worth {completion} if its task is done, less {turn} a turn")];
        let more = [
            (*usd, "a dollar"),
            (*second, "a second of waiting"),
            (*switch_mtok, "a million tokens read again after a switch"),
        ];
        terms.extend(more.into_iter().filter(|(price, _)| *price != 0.0).map(|(price, of)| format!("{price} {of}")));
        if *quality != 0.0 {
            terms.push(format!("and each turn gains {quality} times its quality"));
        }
        let text = terms.join(", ");
        format!("{}{}.", text[..1].to_uppercase(), &text[1..])
    }

    /// What was not used, and what the figures do not hold.
    fn notes(&self) -> Vec<String> {
        let LeftOut { unjudged, not_as_chosen, reward_unknown, prompt_unknown, ref by_model } = self.left_out;
        let mut notes = vec![format!(
            "Left out: {unjudged} sessions of which nobody said whether they were done, {not_as_chosen} with a turn whose choice is not known, \
             {reward_unknown} with a turn that lacks something that has a price, {prompt_unknown} with a turn whose prompt nobody counted; {} \
             held-out ones lack a propensity.",
            self.without_propensity
        )];
        if !by_model.is_empty() {
            let counts: Vec<String> = by_model.iter().map(|(model, sessions)| format!("{model} {sessions}")).collect();
            notes.push(format!("Of the last three kinds, by the model that was chosen: {}.", counts.join(", ")));
        }
        if self.kept_turns > 0 {
            notes.push(format!(
                "{} turns kept the model that their session drew earlier: nothing was drawn at them, so they say nothing of a policy that \
                 changes models there.",
                self.kept_turns
            ));
        }
        if !self.reward.handoffs.is_empty() {
            notes.push(format!(
                "The bandit was told what {} switches of models do to later turns; sessions hold that themselves.",
                self.reward.handoffs.len()
            ));
        }
        if !self.not_priced.is_empty() {
            let names: Vec<&str> = self.not_priced.iter().map(|part| part.in_words()).collect();
            notes.push(format!(
                "The operator's outcome also weighs {}: sessions are not priced by that.",
                names.join(", ")
            ));
        }
        notes
    }
}

/// The row of what was logged.
fn logging(judgement: &SessionJudgement) -> [String; 8] {
    let turns = judgement.lengths.as_ref().map_or("none".to_owned(), |lengths| lengths.logged.to_string());
    [
        "logging policy".to_owned(),
        interval(&judgement.value.logging),
        String::new(),
        String::new(),
        interval(&judgement.completion.logging),
        turns,
        judgement.support.sessions.to_string(),
        String::new(),
    ]
}

fn cells(policy: &str, judged: &SessionJudgement) -> [String; 8] {
    let has_support = !matches!(judged.verdict, SessionVerdict::InsufficientSupport { .. });
    // Logs that cannot carry an answer give no number that looks like one.
    let shown = |text: String| if has_support { text } else { "-".to_owned() };
    let turns = judged.lengths.as_ref().map_or("none".to_owned(), |lengths| {
        let turns = lengths.target;
        format!("{} ({} to {})", turns.value, turns.low, turns.high)
    });
    [
        policy.to_owned(),
        shown(interval(&judged.value.weighted_doubly_robust)),
        shown(interval(&judged.value.difference)),
        shown(format!("{:.4}", judged.value.direct.value)),
        shown(interval(&judged.completion.weighted_doubly_robust)),
        shown(turns),
        format!("{:.0}", judged.support.effective_sessions),
        judged.verdict.words().to_owned(),
    ]
}
