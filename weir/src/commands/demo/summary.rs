//! What the demo ends with: one table for people, one JSON object for machines.
//!
//! Most figures are computed from the tables. Not so: `produced`, which the routers counted, so that it can disagree with
//! the tables; `late_rows` and `hallucination_verdicts`, which the pipeline counted while it wrote them; the verdict and the
//! off-policy figures, from the candidate's report; `hallucination_auroc`, from the estimator's training; and what only a
//! simulator knows: `true_values_*` and `value_oracle`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use weir_store::Store;
use weir_traffic::simulate::ValueSummary;

use super::capacity::{self, FLEET_REQUESTS_PER_S, Fleet};
use super::routers::Board;
use super::value::{self, Measured};
use super::{Judged, START_MS, Setup, WINDOW_MS};
use crate::error::{Failure, Result};
use crate::pipeline::Derived;

/// By topic: rows, distinct messages and dead letters.
const AUDIT_SQL: &str = include_str!("../../../sql/demo_audit.sql");

/// What the summary says of an approval.
const APPROVED_BY: &str = "weir demo, automatically";

/// The summary.
#[derive(Debug, Serialize)]
pub struct Ending {
    /// Messages that the routers handed to the broker.
    pub produced: u64,
    /// Rows in the raw tables.
    pub stored: u64,
    /// Messages that could not be read as events: kept beside the tables, and not stored.
    pub dead_letters: u64,
    /// Sums over the topics, each judged by itself: a loss in one cannot hide behind a double in another.
    pub lost: u64,
    pub doubled: u64,
    pub topics: BTreeMap<String, Audit>,
    /// Mean utility per judged request under the logging policy, by rewards.
    pub value_logging: Option<f64>,
    pub value_logging_interval: Option<[f64; 2]>,
    /// The same under the policy that was taken up; the candidate's off-policy estimate when none was.
    pub value_policy: Option<f64>,
    pub value_policy_interval: Option<[f64; 2]>,
    /// `measured` after take-up, or `off-policy`.
    pub value_policy_source: &'static str,
    /// Of every interval of values.
    pub confidence: f64,
    /// True value of choosing the best model for every request, hidden variables known, on the same requests.
    pub value_oracle: Option<f64>,
    /// True values of the two policies and of simple ones, on the requests that each policy routed.
    pub true_values_logging: Option<ValueSummary>,
    pub true_values_policy: Option<ValueSummary>,
    /// better, not shown, insufficient support; or "not judged".
    pub verdict: &'static str,
    pub reasons: Vec<String>,
    pub off_policy_difference: Option<f64>,
    pub off_policy_difference_interval: Option<[f64; 2]>,
    /// The policy that routers took up.
    pub policy_id: Option<String>,
    pub candidate_id: Option<String>,
    /// Who made the candidate the active policy, if anybody did; the demo says of itself that it did so unasked.
    pub approved_by: Option<&'static str>,
    pub gpus_before: Option<u32>,
    /// Null when no policy was taken up: there is no after.
    pub gpus_after: Option<u32>,
    pub fleet_before: Option<Fleet>,
    pub fleet_after: Option<Fleet>,
    pub fleet_requests_per_s: f64,
    pub late_rows: u64,
    pub hallucination_verdicts: u64,
    pub hallucination_auroc: f64,
    pub seconds: f64,
    /// What was cut off because this machine is slow, in sentences.
    pub warnings: Vec<String>,
}

/// Where one topic's messages ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    pub produced: u64,
    pub stored: u64,
    pub dead_letters: u64,
    pub lost: u64,
    pub doubled: u64,
}

/// A demo whose traffic has ended and is stored.
pub struct Run<'a> {
    pub setup: &'a Setup,
    pub board: &'a Board,
    pub judged: Option<Judged>,
    pub derived: Derived,
    pub auroc: f64,
    pub elapsed: Duration,
    /// How long sizing the fleets may take.
    pub sized_within: Duration,
    pub warnings: Vec<String>,
}

impl Run<'_> {
    /// Reads the tables and puts the summary together.
    pub async fn ending(self, store: &Store) -> Result<Ending> {
        let Self { setup, board, judged, derived, auroc, elapsed, sized_within, mut warnings } = self;
        let session = weir_sql::open(store).await?;
        let topics = audit(&session, &board.produced_by_topic()).await?;
        let sum = |of: fn(&Audit) -> u64| topics.values().map(of).sum();
        let taken_up_ms = board.taken_up_ms();

        let set = weir_learners::training_set(store).await?;
        let evaluation = setup.train_config().evaluation;
        let before_ms = taken_up_ms.unwrap_or(i64::MAX);
        let logging = value::measured(&set, &setup.objective, i64::MIN, before_ms, &evaluation);
        let after = taken_up_ms.and_then(|from| value::measured(&set, &setup.objective, from, i64::MAX, &evaluation));
        let estimates = judged.as_ref().and_then(|judged| judged.estimates);
        let (policy, source) = match (after, estimates) {
            (Some(measured), _) => (Some(measured), "measured"),
            (None, Some([_, candidate, _])) => (
                Some(Measured { value: candidate.value, low: candidate.low, high: candidate.high, requests: 0 }),
                "off-policy",
            ),
            (None, None) => (None, "off-policy"),
        };
        let (fleet_before, fleet_after) =
            sized(&session, setup.args.seed, taken_up_ms, sized_within, &mut warnings).await?;
        let (true_logging, true_policy) = board.truth();
        let difference = estimates.map(|[_, _, difference]| difference);
        Ok(Ending {
            produced: sum(|audit| audit.produced),
            stored: sum(|audit| audit.stored),
            dead_letters: sum(|audit| audit.dead_letters),
            lost: sum(|audit| audit.lost),
            doubled: sum(|audit| audit.doubled),
            topics,
            value_logging: logging.map(|found| found.value),
            value_logging_interval: logging.map(|found| [found.low, found.high]),
            value_policy: policy.map(|found| found.value),
            value_policy_interval: policy.map(|found| [found.low, found.high]),
            value_policy_source: source,
            confidence: evaluation.confidence,
            value_oracle: true_policy.as_ref().or(true_logging.as_ref()).map(|truth| truth.oracle),
            true_values_logging: true_logging,
            true_values_policy: true_policy,
            verdict: judged.as_ref().map_or("not judged", |judged| judged.verdict),
            reasons: judged.as_ref().map(|judged| judged.reasons.clone()).unwrap_or_default(),
            off_policy_difference: difference.map(|found| found.value),
            off_policy_difference_interval: difference.map(|found| [found.low, found.high]),
            policy_id: board.policy_id(),
            approved_by: judged.as_ref().filter(|judged| judged.approved).map(|_| APPROVED_BY),
            candidate_id: judged.map(|judged| judged.policy_id),
            gpus_before: fleet_before.as_ref().map(|fleet| fleet.gpus),
            gpus_after: fleet_after.as_ref().map(|fleet| fleet.gpus),
            fleet_before,
            fleet_after,
            fleet_requests_per_s: FLEET_REQUESTS_PER_S,
            late_rows: derived.late_rows,
            hallucination_verdicts: derived.verdicts,
            hallucination_auroc: auroc,
            seconds: elapsed.as_secs_f64(),
            warnings,
        })
    }
}

/// Whether every message is in its table once, by topic.
async fn audit(session: &weir_sql::Context, produced: &BTreeMap<&'static str, u64>) -> Result<BTreeMap<String, Audit>> {
    let json = weir_sql::render(&weir_sql::query(session, AUDIT_SQL).await?, weir_sql::Format::Json)?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).map_err(Failure::ours)?;
    let found: BTreeMap<&str, &serde_json::Value> =
        rows.iter().filter_map(|row| Some((row["topic"].as_str()?, row))).collect();
    let topics: BTreeSet<&str> = found.keys().chain(produced.keys()).copied().collect();
    let of_topic = |topic: &str| {
        let count = |name: &str| found.get(topic).and_then(|row| row[name].as_u64()).unwrap_or(0);
        let produced = produced.get(topic).copied().unwrap_or(0);
        Audit::of(produced, count("stored"), count("dead_letters"), count("messages"))
    };
    Ok(topics.into_iter().map(|topic| (topic.to_owned(), of_topic(topic))).collect())
}

impl Audit {
    /// `messages` are the distinct ones among the stored rows and the dead letters.
    fn of(produced: u64, stored: u64, dead_letters: u64, messages: u64) -> Self {
        Self {
            produced,
            stored,
            dead_letters,
            lost: produced.saturating_sub(messages),
            // A row that nobody produced counts here too: it is one too many.
            doubled: (stored + dead_letters).saturating_sub(messages.min(produced)),
        }
    }

    fn is_exact(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.dead_letters == 0 && self.stored == self.produced
    }
}

impl Ending {
    /// Why the demo has failed, if any event was lost, stored twice or not readable.
    pub fn complaint(&self) -> Option<Failure> {
        let wrong: Vec<String> = self
            .topics
            .iter()
            .filter(|(_, audit)| !audit.is_exact())
            .map(|(topic, audit)| {
                let Audit { produced, lost, doubled, dead_letters, .. } = audit;
                format!(
                    "of {produced} in {topic} {lost} were lost, {doubled} stored twice, {dead_letters} not readable"
                )
            })
            .collect();
        (!wrong.is_empty())
            .then(|| Failure::ours(format!("the tables do not hold every event once: {}", wrong.join("; "))))
    }
}

/// Both fleets, unless that takes too long: then none, and a warning.
async fn sized(
    session: &weir_sql::Context,
    seed: u64,
    taken_up_ms: Option<i64>,
    within: Duration,
    warnings: &mut Vec<String>,
) -> Result<(Option<Fleet>, Option<Fleet>)> {
    // Sizing computes for seconds without a pause, so only a task of its own can be left behind.
    let task = tokio::spawn({
        let session = session.clone();
        async move { fleets(&session, seed, taken_up_ms).await }
    });
    match tokio::time::timeout(within, task).await {
        Ok(sized) => sized.map_err(|error| Failure::ours(format!("sizing the fleets stopped: {error}")))?,
        Err(_) => {
            warnings.push(format!(
                "the fleets were not sized: that took longer than the {:.0} s left",
                within.as_secs_f64()
            ));
            Ok((None, None))
        }
    }
}

/// Fleets of the mix before and after take-up. Sketches are kept per ten minutes, so each side takes whole windows of its
/// own and the one in which the policy changed belongs to neither.
async fn fleets(
    session: &weir_sql::Context,
    seed: u64,
    taken_up_ms: Option<i64>,
) -> Result<(Option<Fleet>, Option<Fleet>)> {
    let Some(taken_up_ms) = taken_up_ms else {
        return Ok((capacity::fleet(session, START_MS, i64::MAX, seed).await?, None));
    };
    let before_until = taken_up_ms / WINDOW_MS * WINDOW_MS;
    let after_from = before_until + WINDOW_MS;
    let before = capacity::fleet(session, START_MS, before_until, seed).await?;
    let after = capacity::fleet(session, after_from, i64::MAX, seed).await?;
    Ok((before, after))
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let percent = self.confidence * 100.0;
        let interval = |ends: Option<[f64; 2]>| {
            ends.map_or(String::new(), |[low, high]| format!(" ({percent:.0} %: {low:.3} to {high:.3})"))
        };
        writeln!(
            f,
            "\nevents     {} produced, {} stored, {} lost, {} doubled, {} not readable",
            self.produced, self.stored, self.lost, self.doubled, self.dead_letters
        )?;
        writeln!(f, "verdict    {}", self.verdict)?;
        for reason in &self.reasons {
            writeln!(f, "           {reason}")?;
        }
        match (&self.policy_id, self.approved_by, &self.candidate_id) {
            (Some(id), ..) => writeln!(f, "policy     {id}, approved automatically because this is a demo")?,
            (None, Some(_), Some(id)) => {
                writeln!(f, "policy     {id}, approved automatically because this is a demo;")?;
                writeln!(f, "           traffic ended before routers took it up")?;
            }
            _ => writeln!(f, "policy     nothing was promoted")?,
        }
        writeln!(
            f,
            "value      logging policy {}{}",
            number(self.value_logging),
            interval(self.value_logging_interval)
        )?;
        writeln!(
            f,
            "           {} {}{}, {}",
            if self.policy_id.is_some() { "new policy    " } else { "candidate     " },
            number(self.value_policy),
            interval(self.value_policy_interval),
            self.value_policy_source
        )?;
        for (when, truth) in [("before", &self.true_values_logging), ("after", &self.true_values_policy)] {
            if let Some(truth) = truth {
                writeln!(
                    f,
                    "in truth   {when}: router {:.3}, uniform {:.3}, best single ({}) {:.3}, best per domain {:.3}, oracle {:.3}",
                    truth.router,
                    truth.uniform,
                    truth.best_single_model,
                    truth.best_single,
                    truth.per_domain_best,
                    truth.oracle
                )?;
            }
        }
        writeln!(f, "fleet      for {:.0} requests/s of the observed mix:", self.fleet_requests_per_s)?;
        for (when, fleet) in [("before", &self.fleet_before), ("after", &self.fleet_after)] {
            if let Some(fleet) = fleet {
                let models: Vec<String> =
                    fleet.by_model.iter().map(|(model, gpus)| format!("{model} {gpus}")).collect();
                let end = |gpus: Option<u32>| gpus.map_or("no end".to_owned(), |gpus| gpus.to_string());
                let interval = fleet.interval.as_ref().map_or(String::new(), |found| {
                    let (low, high) = (end(found.low_gpus), end(found.high_gpus));
                    format!(" ({:.0} %: {low} to {high})", 100.0 * found.confidence)
                });
                writeln!(
                    f,
                    "           {when}: {} GPUs{interval}, {:.0} USD/h: {}",
                    fleet.gpus,
                    fleet.usd_per_hour,
                    models.join(", ")
                )?;
                for (model, why) in &fleet.infeasible {
                    writeln!(f, "           {model} is not in it, infeasible: {why}")?;
                }
            }
        }
        for warning in &self.warnings {
            writeln!(f, "warning    {warning}")?;
        }
        write!(
            f,
            "estimator  {} answers checked in the stream, AUROC {:.2} on answers it had not seen",
            self.hallucination_verdicts, self.hallucination_auroc
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_is_only_what_is_in_its_table_once() {
        assert!(Audit::of(10, 10, 0, 10).is_exact());
        let dead = Audit::of(10, 9, 1, 10);
        assert_eq!((dead.lost, dead.doubled, dead.is_exact()), (0, 0, false));
        let lost = Audit::of(10, 9, 0, 9);
        assert_eq!((lost.lost, lost.doubled, lost.is_exact()), (1, 0, false));
        // As many rows as messages, and still one is missing and another is there twice.
        let both = Audit::of(10, 10, 0, 9);
        assert_eq!((both.lost, both.doubled, both.is_exact()), (1, 1, false));
        let made_up = Audit::of(10, 11, 0, 11);
        assert_eq!((made_up.lost, made_up.doubled, made_up.is_exact()), (0, 1, false));
    }
}
