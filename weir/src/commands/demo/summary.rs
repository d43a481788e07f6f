//! What the demo ends with: one table for people, one JSON object for machines. Every figure is computed from the tables,
//! except those named `true_`, which only a simulator knows.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use weir_store::Store;
use weir_traffic::simulate::ValueSummary;

use super::capacity::{self, FLEET_REQUESTS_PER_S, Fleet};
use super::routers::Board;
use super::value::{self, Measured};
use super::{Judged, Setup, WINDOW_MS};
use crate::error::{Failure, Result};
use crate::pipeline::Derived;

/// Rows per message, over all raw tables and the dead letters.
const AUDIT_SQL: &str = include_str!("../../../sql/demo_audit.sql");

/// The summary.
#[derive(Debug, Serialize)]
pub struct Ending {
    /// Messages that the routers handed to the broker.
    pub produced: u64,
    /// Rows in the raw tables and the dead letters.
    pub stored: u64,
    /// Of the stored ones, those that could not be read as events.
    pub dead_letters: u64,
    pub lost: u64,
    pub doubled: u64,
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
    /// The policy that routers follow, if one was promoted.
    pub policy_id: Option<String>,
    pub candidate_id: Option<String>,
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
}

/// Reads the tables and puts the summary together.
pub async fn ending(
    setup: &Setup,
    store: &Store,
    board: &Board,
    judged: Option<Judged>,
    derived: Derived,
    auroc: f64,
    elapsed: Duration,
) -> Result<Ending> {
    let session = weir_sql::open(store).await?;
    let Audit { stored, messages, dead_letters } = audit(&session).await?;
    let produced = board.produced();
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
    let (fleet_before, fleet_after) = fleets(setup, &session, taken_up_ms).await?;
    let (true_logging, true_policy) = board.truth();
    let difference = estimates.map(|[_, _, difference]| difference);
    Ok(Ending {
        produced,
        stored,
        dead_letters,
        lost: produced.saturating_sub(messages),
        doubled: stored.saturating_sub(messages),
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
    })
}

struct Audit {
    stored: u64,
    messages: u64,
    dead_letters: u64,
}

async fn audit(session: &weir_sql::Context) -> Result<Audit> {
    let json = weir_sql::render(&weir_sql::query(session, AUDIT_SQL).await?, weir_sql::Format::Json)?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).map_err(Failure::ours)?;
    let count = |name: &str| rows.first().and_then(|row| row[name].as_u64()).unwrap_or(0);
    Ok(Audit { stored: count("stored"), messages: count("messages"), dead_letters: count("dead_letters") })
}

/// Fleets of the mix before and after take-up. Sketches are kept per ten minutes, so each side takes whole windows of its
/// own and the one in which the policy changed belongs to neither.
async fn fleets(
    setup: &Setup,
    session: &weir_sql::Context,
    taken_up_ms: Option<i64>,
) -> Result<(Option<Fleet>, Option<Fleet>)> {
    let Some(taken_up_ms) = taken_up_ms else {
        return Ok((capacity::fleet(session, setup.start_ms, i64::MAX, setup.args.seed).await?, None));
    };
    let before_until = taken_up_ms / WINDOW_MS * WINDOW_MS;
    let after_from = before_until + WINDOW_MS;
    let before = capacity::fleet(session, setup.start_ms, before_until, setup.args.seed).await?;
    let after = capacity::fleet(session, after_from, i64::MAX, setup.args.seed).await?;
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
            "\nevents     {} produced, {} stored, {} lost, {} doubled",
            self.produced, self.stored, self.lost, self.doubled
        )?;
        writeln!(f, "verdict    {}", self.verdict)?;
        for reason in &self.reasons {
            writeln!(f, "           {reason}")?;
        }
        if let Some(id) = &self.policy_id {
            writeln!(f, "policy     {id}, approved automatically because this is a demo")?;
        } else {
            writeln!(f, "policy     nothing was promoted")?;
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
                writeln!(
                    f,
                    "           {when}: {} GPUs ({} to {}), {:.0} USD/h: {}",
                    fleet.gpus,
                    fleet.gpus_low,
                    fleet.gpus_high.map_or("no upper end".to_owned(), |high| high.to_string()),
                    fleet.usd_per_hour,
                    models.join(", ")
                )?;
            }
        }
        write!(
            f,
            "estimator  {} answers checked in the stream, AUROC {:.2} on answers it had not seen",
            self.hallucination_verdicts, self.hallucination_auroc
        )
    }
}
