//! What a candidate is worth and how that is known, for people (Markdown) and machines (JSON).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use weir_policy_runtime::{Exploration, Objective};

use crate::exports::ExportSummary;
use crate::learning::LearningSummary;
use crate::ope::{Estimate, Evaluation, Verdict};
use crate::outcome::{Outcome, Part};
use crate::reward_model::RewardModelMetrics;

/// Where the evaluated decisions come from, and what was left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DataSummary {
    /// Versions of the tables read.
    pub tables: BTreeMap<String, i64>,
    /// Decisions held out for judging.
    pub decisions: usize,
    /// Those evaluated: with a propensity, a reward, and no fallback.
    pub evaluated: usize,
    /// Left out: the router logged no propensity.
    pub without_propensity: usize,
    /// Left out: another model answered than was chosen.
    pub fallbacks: usize,
    /// Left out: nobody judged the answer, or its cost is unknown and the objective weighs cost.
    pub without_reward: usize,
    /// Left out: the candidates' probabilities do not sum to 1, or that of the chosen model is not the propensity.
    #[serde(default)]
    pub inconsistent_propensity: usize,
    /// Of those without a reward, the ones that are too young for one to be believed.
    #[serde(default)]
    pub unsettled: usize,
    /// Evaluated ones whose model was drawn at an earlier turn of their session and kept; so would another policy's be.
    #[serde(default)]
    pub kept_for_session: usize,
    /// Evaluated ones whose propensity was estimated: weaker evidence.
    #[serde(default)]
    pub estimated_propensities: usize,
    /// How much of what each model was chosen for could be evaluated.
    #[serde(default)]
    pub kept_by_model: Vec<KeptShare>,
}

/// Decisions for one model, whatever answered in the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptShare {
    /// The model that was chosen.
    pub model: String,
    /// Decisions for it with a usable propensity.
    pub decisions: usize,
    /// Share that could be evaluated (no fallback, a reward), were the model chosen for every request; none where there
    /// are too few sessions to say.
    pub kept: Option<Estimate>,
}

impl DataSummary {
    /// What was judged, and what was left out.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut left_out = format!(
            "{} had no propensity, {} fell back to another model, {} had no reward",
            self.without_propensity, self.fallbacks, self.without_reward
        );
        if self.unsettled > 0 {
            write!(left_out, " ({} of them too young)", self.unsettled).expect("a String takes any text");
        }
        if self.inconsistent_propensity > 0 {
            let count = self.inconsistent_propensity;
            write!(left_out, ", {count} had probabilities that contradict each other")
                .expect("a String takes any text");
        }
        format!(
            "Judged on {} of {} held out: {left_out}; values hold for decisions like those kept.",
            self.evaluated, self.decisions
        )
    }

    /// What a reader of the values must know besides, a sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.estimated_propensities > 0 {
            notes.push(format!(
                "{} of them have propensities that were estimated from how often the router chose each model: what else it saw when it \
                 chose is in none of these values.",
                self.estimated_propensities
            ));
        }
        if self.kept_for_session > 0 {
            notes.push(format!(
                "{} of them kept the model that their session drew earlier: every policy is judged as drawing once for a \
                 session.",
                self.kept_for_session
            ));
        }
        let shares: Vec<String> = self
            .kept_by_model
            .iter()
            .filter_map(|share| share.kept.map(|kept| format!("{} {:.0} %", shown(&share.model), kept.value * 100.0)))
            .collect();
        if !shares.is_empty() {
            notes.push(format!("Share of each model's decisions that could be judged: {}.", shares.join(", ")));
        }
        if let Some([least, most]) = self.kept_apart() {
            notes.push(format!(
                "Warning: more of {}'s decisions could be judged than of {}'s, beyond chance. What is missing depends on \
                 the choice, so the values may favour one of them.",
                shown(&most.model),
                shown(&least.model)
            ));
        }
        notes
    }

    /// The models of which the smallest and the largest share was kept, if chance does not explain how far these lie
    /// apart. What is missing then depends on the choice, and no estimator here allows for that.
    #[must_use]
    pub fn kept_apart(&self) -> Option<[&KeptShare; 2]> {
        let known = || self.kept_by_model.iter().filter_map(|share| share.kept.map(|kept| (share, kept)));
        let (least, low) = known().min_by(|a, b| a.1.high.total_cmp(&b.1.high))?;
        let (most, high) = known().max_by(|a, b| a.1.low.total_cmp(&b.1.low))?;
        (low.high < high.low).then_some([least, most])
    }
}

/// One baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What it does.
    pub name: String,
    /// What it would have earned.
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

/// The policy in force when a candidate was judged, on the same decisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldAgainst {
    /// Which one.
    pub policy_id: String,
    /// What it would have earned.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// The candidate's value minus its own, decision by decision; none where one of them is not known.
    pub difference: Option<Estimate>,
}

/// A candidate beside the policy in force and the baselines, on the same decisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lineup {
    /// What the logging policy earned on the same decisions; known even where a candidate is refused.
    pub logging: Option<Estimate>,
    /// The candidate.
    pub candidate: Evaluation,
    /// The candidate's quality a session minus what was earned, by an interval that holds at every moment of the logs together. None
    /// where support is insufficient.
    #[serde(default)]
    pub quality_at_any_time: Option<Estimate>,
    /// The candidate in each part of the outcome, in the part's own unit; empty where support is insufficient.
    #[serde(default)]
    pub parts: Vec<PartJudged>,
    /// The policy in force, if there was one: a candidate is "better" only if it is better than this too.
    #[serde(default)]
    pub in_force: Option<HeldAgainst>,
    /// Uniform, best single model, best model per domain.
    pub baselines: Vec<Comparison>,
    /// The decisions.
    pub data: DataSummary,
}

/// A candidate in one part of the outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartJudged {
    /// Which one.
    pub part: Part,
    /// Value of a unit of it.
    pub weight: f64,
    /// Decisions that could be judged by it.
    pub decisions: usize,
    /// What the logging policy had on them.
    pub logging: Option<Estimate>,
    /// What the candidate would have had.
    pub value: Option<Estimate>,
    /// The candidate's minus what was logged.
    pub difference: Option<Estimate>,
    /// The operator's limit on it, where there is one.
    pub guardrail: Option<Guardrail>,
}

/// A limit on how much worse a part may become.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guardrail {
    /// In the part's unit.
    pub worse_by_at_most: f64,
    /// The candidate's minus that of the policy in force, or of what was logged where there is none.
    pub against: Option<Estimate>,
    /// Whether it is kept.
    pub standing: Standing,
}

/// Whether a guardrail is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The whole interval lies within it.
    Kept,
    /// Part of it does, or nothing is known.
    NotShown,
    /// The whole interval lies beyond it.
    Broken,
}

impl Standing {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::NotShown => "not shown to be kept",
            Self::Broken => "broken",
        }
    }
}

impl PartJudged {
    /// A line on the guardrail, where there is one.
    #[must_use]
    pub fn guardrail_sentence(&self) -> Option<String> {
        let Guardrail { worse_by_at_most, against, standing } = self.guardrail.as_ref()?;
        let against =
            against.as_ref().map_or_else(|| "unknown".to_owned(), |against| part_interval(self.part, against));
        Some(format!(
            "{} may become worse by {worse_by_at_most}: difference {against}, {}",
            self.part,
            standing.words()
        ))
    }
}

/// An interval with digits enough for the part: requests cost fractions of a cent.
#[must_use]
pub fn part_interval(part: Part, estimate: &Estimate) -> String {
    if part == Part::Usd {
        let shown = fixed::<6>;
        return format!("{} ({} to {})", shown(estimate.value), shown(estimate.low), shown(estimate.high));
    }
    interval(estimate)
}

impl Lineup {
    /// The verdict as a registry reads it. What rests on estimated propensities says so, and is not "better" for it.
    #[must_use]
    pub fn verdict(&self) -> String {
        let words = self.candidate.verdict.words();
        if self.data.estimated_propensities > 0 {
            return format!("{words} on estimated propensities");
        }
        words.to_owned()
    }
}

/// An estimator's score beside those of trivial baselines.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EstimatorSummary {
    /// Which artefact.
    pub artifact: String,
    /// Metric by method, the estimator's own and the baselines'.
    pub metrics: BTreeMap<String, BTreeMap<String, f64>>,
}

/// Evidence that a policy leaves to the one after it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NextSupport {
    /// Effective sessions that logs as long as those judged here would hold for a policy that takes the runner-up in a tenth of the
    /// decisions.
    pub effective_clusters: f64,
    /// Fewer than this, and a policy is not judged at all.
    pub asked_for: f64,
}

impl NextSupport {
    /// A warning, where the next policy may find no evidence.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        (self.effective_clusters < self.asked_for).then(|| {
            format!(
                "Logs of this policy may not carry the next verdict: as long as those judged here, they would hold {:.0} effective sessions for a \
                 policy that takes the runner-up in a tenth of its decisions, and {:.0} are asked for. Log for longer, or explore more: a larger \
                 objective.floor, and with inverse-gap weighting a smaller objective.gamma.",
                self.effective_clusters, self.asked_for
            )
        })
    }
}

/// The report of one candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The verdict in words: the one line that the registry reads.
    pub verdict: String,
    /// Seed of the training.
    pub seed: u64,
    /// What a policy maximises when it decides: the parts that it can foresee.
    pub objective: Objective,
    /// What it is judged by. Reports of older versions know the objective alone.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// How far the candidate strays from its best guess.
    pub exploration: Exploration,
    /// How it was learned. Reports of older versions know one way only.
    #[serde(default)]
    pub learned: Option<LearningSummary>,
    /// What its own logs would offer the next policy.
    #[serde(default)]
    pub next: Option<NextSupport>,
    /// Decisions trained on.
    pub train_decisions: usize,
    /// Values and verdicts.
    #[serde(flatten)]
    pub lineup: Lineup,
    /// The reward model on held-out decisions.
    pub reward_model: RewardModelMetrics,
    /// What else was learned, by name, beside trivial baselines: the hallucination estimator that runs in the stream, and
    /// the output-length quantiles.
    pub estimators: BTreeMap<String, EstimatorSummary>,
    /// The policy in other routers' forms, each judged as it is exported.
    #[serde(default)]
    pub exports: Vec<ExportSummary>,
}

impl Report {
    /// The report as canonical JSON.
    ///
    /// # Errors
    /// When a number is not finite: JSON has none such, and this crate could not read the report back.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let value = serde_json::to_value(self)?;
        // Numbers that are not finite became nulls, which the report's own types refuse.
        serde_json::from_value::<Self>(value.clone())?;
        Ok(weir_policy_runtime::canonical_json(&value))
    }

    /// The report for people.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = String::new();
        let candidate = &self.lineup.candidate;
        line(&mut out, format_args!("# Candidate policy: {}\n", self.verdict));
        if let Verdict::InsufficientSupport { reasons } = &candidate.verdict {
            reasons.iter().for_each(|reason| line(&mut out, format_args!("- {reason}")));
            out.push('\n');
        }
        line(&mut out, format_args!("Value is {} per request.\n", self.formula()));
        if let Some(learned) = &self.learned {
            line(&mut out, format_args!("{}\n", learned.in_words()));
        }
        self.values(&mut out);
        if self.outcome.as_ref().is_some_and(|outcome| outcome.weight(Part::LatencyS) > 0.0) {
            line(
                &mut out,
                format_args!(
                    "\nRequests may say how long pools would let them wait; values are of the policy without such waits."
                ),
            );
        }
        self.parts(&mut out);
        self.data(&mut out);
        if let Some(warning) = self.next.as_ref().and_then(NextSupport::warning) {
            line(&mut out, format_args!("{warning}\n"));
        }
        self.models(&mut out);
        self.exports(&mut out);
        out
    }

    fn exports(&self, out: &mut String) {
        if self.exports.is_empty() {
            return;
        }
        line(out, format_args!("\n## Exports\n"));
        line(out, format_args!("| file | chooses as its parent | predicted loss | value | difference to its parent |"));
        line(out, format_args!("|---|---:|---:|---|---|"));
        for export in &self.exports {
            let value = export.estimates.as_ref().map(|found| interval(&found.dr));
            let difference = export.difference_to_parent.as_ref().map(interval);
            let shown = |text: Option<String>| text.unwrap_or_else(|| "insufficient support".to_owned());
            line(
                out,
                format_args!(
                    "| {} | {:.1} % | {:.4} | {} | {} |",
                    export.file,
                    100.0 * export.agreement,
                    export.predicted_loss,
                    shown(value),
                    shown(difference)
                ),
            );
        }
        line(
            out,
            format_args!("\nDistilled from {} decisions; judged are the exported bytes.", self.exports[0].decisions),
        );
    }

    /// Of the value, in words.
    fn formula(&self) -> String {
        let outcome = self.outcome.clone().unwrap_or_else(|| self.objective.into());
        let costs = Part::ALL.into_iter().filter(|part| *part != Part::Quality && outcome.weight(*part) > 0.0);
        let costs: Vec<String> =
            costs.map(|part| format!(" - {} x {}", outcome.weight(part), part.in_words())).collect();
        format!("{} x quality{}", outcome.weight(Part::Quality), costs.concat())
    }

    fn parts(&self, out: &mut String) {
        if self.lineup.parts.is_empty() {
            return;
        }
        line(out, format_args!("| part | decisions | candidate | logging policy | difference |"));
        line(out, format_args!("|---|---:|---|---|---|"));
        for part in &self.lineup.parts {
            let shown = |estimate: &Option<Estimate>| {
                estimate
                    .as_ref()
                    .map_or_else(|| "insufficient support".to_owned(), |found| part_interval(part.part, found))
            };
            line(
                out,
                format_args!(
                    "| {} | {} | {} | {} | {} |",
                    part.part.in_words(),
                    part.decisions,
                    shown(&part.value),
                    shown(&part.logging),
                    shown(&part.difference)
                ),
            );
        }
        out.push('\n');
        let rails: Vec<String> = self.lineup.parts.iter().filter_map(PartJudged::guardrail_sentence).collect();
        rails.iter().for_each(|rail| line(out, format_args!("- guardrail: {rail}")));
        if !rails.is_empty() {
            out.push('\n');
        }
    }

    fn values(&self, out: &mut String) {
        line(out, format_args!("| policy | value (doubly robust) | difference to logging | IPS | SNIPS |"));
        line(out, format_args!("|---|---|---|---|---|"));
        let candidate = &self.lineup.candidate;
        if let Some(logging) = &self.lineup.logging {
            line(out, format_args!("| logging policy | {} | | | |", interval(logging)));
        }
        let in_force = self.lineup.in_force.as_ref();
        let in_force_name = in_force.map(|held| format!("policy in force ({})", short(&held.policy_id)));
        let rows = [("candidate", candidate)]
            .into_iter()
            .chain(in_force_name.as_deref().zip(in_force.map(|held| &held.evaluation)))
            .chain(self.lineup.baselines.iter().map(|baseline| (baseline.name.as_str(), &baseline.evaluation)));
        for (name, evaluation) in rows {
            match &evaluation.estimates {
                Some(e) => line(
                    out,
                    format_args!(
                        "| {name} | {} | {} | {} | {} |",
                        interval(&e.dr),
                        interval(&e.difference),
                        interval(&e.ips),
                        interval(&e.snips)
                    ),
                ),
                None => line(out, format_args!("| {name} | insufficient support | | | |")),
            }
        }
        out.push('\n');
        if let Some(quality) = &self.lineup.quality_at_any_time {
            line(
                out,
                format_args!(
                    "Quality a session, difference to logging: {}, at every moment of the logs together, however often one looks.\n",
                    interval(quality)
                ),
            );
        }
        if let Some(difference) = in_force.and_then(|held| held.difference.as_ref()) {
            line(out, format_args!("Difference to the policy in force: {}.\n", interval(difference)));
        }
    }

    fn data(&self, out: &mut String) {
        let (data, support) = (&self.lineup.data, &self.lineup.candidate.support);
        line(
            out,
            format_args!("Trained on {} decisions (seed {}). {}", self.train_decisions, self.seed, data.sentence()),
        );
        data.notes().iter().for_each(|note| line(out, format_args!("{note}")));
        line(
            out,
            format_args!(
                "{} clusters, effectively {:.0}; largest weight {:.1}; {} % of choices unsupported.",
                support.clusters,
                support.effective_clusters,
                support.weight_max,
                fixed::<2>(support.unsupported_mass * 100.0)
            ),
        );
        for (table, version) in &data.tables {
            line(out, format_args!("Read {table} at version {version}."));
        }
        out.push('\n');
    }

    fn models(&self, out: &mut String) {
        let model = &self.reward_model;
        line(out, format_args!("| held-out error | reward model | mean of each model |"));
        line(out, format_args!("|---|---|---|"));
        line(
            out,
            format_args!(
                "| quality, cross entropy | {:.4} | {:.4} |",
                model.quality_log_loss, model.quality_log_loss_of_means
            ),
        );
        line(out, format_args!("| quality, RMSE | {:.4} | {:.4} |", model.quality_rmse, model.quality_rmse_of_means));
        line(
            out,
            format_args!("| cost, RMSE USD | {:.3e} | {:.3e} |", model.cost_rmse_usd, model.cost_rmse_usd_of_means),
        );
        for (name, estimator) in &self.estimators {
            line(out, format_args!("\n## {name} ({})\n", estimator.artifact));
            line(out, format_args!("| method | metrics |\n|---|---|"));
            for (method, metrics) in &estimator.metrics {
                let shown: Vec<String> = metrics.iter().map(|(metric, value)| format!("{metric} {value:.4}")).collect();
                line(out, format_args!("| {method} | {} |", shown.join(", ")));
            }
        }
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes any text");
}

/// A name from the logs in a line of a report: a line end in it would begin a line of its own, an escape would reach the reader's terminal.
fn shown(name: &str) -> Cow<'_, str> {
    if !name.contains(char::is_control) {
        return Cow::Borrowed(name);
    }
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(name.chars().map(escaped).collect())
}

/// The first digits of a policy's id, without the name of the hash.
pub(crate) fn short(policy_id: &str) -> &str {
    let digits = policy_id.rsplit(':').next().unwrap_or(policy_id);
    digits.get(..12).unwrap_or(digits)
}

/// `value (low to high)`.
pub(crate) fn interval(estimate: &Estimate) -> String {
    let shown = fixed::<4>;
    format!("{} ({} to {})", shown(estimate.value), shown(estimate.low), shown(estimate.high))
}

/// A number with that many decimals; one that rounds to zero has no sign.
fn fixed<const DECIMALS: usize>(number: f64) -> String {
    let shown = format!("{number:.DECIMALS$}");
    match shown.strip_prefix('-') {
        Some(digits) if digits.bytes().all(|byte| matches!(byte, b'0' | b'.')) => digits.to_owned(),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_line() {
        assert_eq!(shown("qwen3:32b"), "qwen3:32b");
        assert_eq!(shown("a\n# better\u{1b}[31m"), r"a\n# better\u{1b}[31m");
    }

    #[test]
    fn zero_has_no_sign() {
        assert_eq!(
            [-1e-17, -0.0, -0.004, 0.0, -0.006, 99.999].map(fixed::<2>),
            ["0.00", "0.00", "0.00", "0.00", "-0.01", "100.00"]
        );
        let estimate = Estimate { value: -1e-9, low: -0.5, high: 0.5 };
        assert_eq!(interval(&estimate), "0.0000 (-0.5000 to 0.5000)");
    }
}
