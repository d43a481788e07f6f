//! One decision, as a row of the Delta table `policy_events`.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use weir_policy_runtime::PolicyId;
use weir_store::TableSpec;

use crate::{PublisherError, Result};

/// Name of the table.
pub const POLICY_EVENTS_TABLE: &str = "policy_events";

/// What happened to a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Its bundle was stored; it waits for a decision.
    Proposed,
    /// Somebody accepted it, and it went into force; `previous` was in force before.
    Approved,
    /// Somebody turned it down.
    Rejected,
    /// It was withdrawn; `previous` is in force again, or nothing.
    RolledBack,
}

impl EventKind {
    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::RolledBack => "rolled_back",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Proposed, Self::Approved, Self::Rejected, Self::RolledBack].into_iter().find(|kind| kind.name() == name)
    }
}

/// What a policy's report concludes, as far as the registry cares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Verdict(String);

impl Verdict {
    /// The `verdict` of a `report.json`: a word, or an object whose own `verdict` is one. Without it: `not reported`.
    #[must_use]
    pub fn of_report(report_json: Option<&[u8]>) -> Self {
        let report: Option<serde_json::Value> = report_json.and_then(|bytes| serde_json::from_slice(bytes).ok());
        let verdict = report.as_ref().and_then(|report| report.get("verdict"));
        let word = verdict.and_then(|v| v.as_str().or_else(|| v.get("verdict").and_then(serde_json::Value::as_str)));
        Self(word.unwrap_or("not_reported").replace('_', " "))
    }

    /// Is it the one verdict that needs no overriding?
    #[must_use]
    pub fn is_better(&self) -> bool {
        self.0 == "better"
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryEvent {
    /// Position in the registry, from 0 without gaps.
    pub sequence: i64,
    /// Random, so that a writer recognises its own event.
    pub event_id: String,
    /// When, ms since the Unix epoch, by the writer's clock.
    pub event_ms: i64,
    /// Which policy.
    pub policy_id: PolicyId,
    /// The policy's name for people.
    pub policy_name: String,
    /// What happened.
    pub event: EventKind,
    /// Who decided.
    pub actor: String,
    /// Why, in the actor's words.
    pub reason: Option<String>,
    /// The other policy of an approval or a rollback; see [`EventKind`].
    pub previous: Option<PolicyId>,
    /// What the report said, at the time of the event.
    pub verdict: Verdict,
    /// Did the actor override the verdict or an earlier withdrawal?
    pub forced: bool,
}

/// The table's spec.
#[must_use]
pub fn policy_events_spec() -> TableSpec {
    TableSpec { name: POLICY_EVENTS_TABLE.to_owned(), schema: schema(), partition_by: None }
}

fn schema() -> SchemaRef {
    let column = |name: &str, kind: DataType, nullable| Field::new(name, kind, nullable);
    Arc::new(Schema::new(vec![
        column("sequence", DataType::Int64, false),
        column("event_id", DataType::Utf8, false),
        column("event_ms", DataType::Int64, false),
        column("policy_id", DataType::Utf8, false),
        column("policy_name", DataType::Utf8, false),
        column("event", DataType::Utf8, false),
        column("actor", DataType::Utf8, false),
        column("reason", DataType::Utf8, true),
        column("previous", DataType::Utf8, true),
        column("verdict", DataType::Utf8, false),
        column("forced", DataType::Boolean, false),
    ]))
}

pub(super) fn to_batch(event: &RegistryEvent) -> Result<RecordBatch> {
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let maybe = |value: Option<&str>| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let number = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
    let columns = vec![
        number(event.sequence),
        text(&event.event_id),
        number(event.event_ms),
        text(event.policy_id.as_str()),
        text(&event.policy_name),
        text(event.event.name()),
        text(&event.actor),
        maybe(event.reason.as_deref()),
        maybe(event.previous.as_ref().map(PolicyId::as_str)),
        text(&event.verdict.0),
        Arc::new(BooleanArray::from(vec![event.forced])),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|error| PublisherError::Damaged { why: error.to_string() })
}

/// Reads the rows of any number of batches, in order of their sequence.
pub(super) fn from_batches(batches: &[RecordBatch]) -> Result<Vec<RegistryEvent>> {
    let mut events = Vec::new();
    for batch in batches {
        let columns = Columns::of(batch)?;
        for row in 0..batch.num_rows() {
            events.push(columns.event(row)?);
        }
    }
    events.sort_by_key(|event| event.sequence);
    Ok(events)
}

/// A batch's columns by name; a reader may hand text over in any of Arrow's forms, so each is cast to one.
struct Columns(RecordBatch);

impl Columns {
    fn of(batch: &RecordBatch) -> Result<Self> {
        let columns = schema()
            .fields()
            .iter()
            .map(|field| {
                let column = batch.column_by_name(field.name()).ok_or_else(|| damaged("a column is missing"))?;
                arrow::compute::cast(column, field.data_type()).map_err(damaged)
            })
            .collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(schema(), columns).map(Self).map_err(damaged)
    }

    fn text(&self, name: &str, row: usize) -> Option<&str> {
        let column = self.0.column_by_name(name)?.as_string::<i32>();
        column.is_valid(row).then(|| column.value(row))
    }

    fn number(&self, name: &str, row: usize) -> i64 {
        self.0.column_by_name(name).map_or(0, |column| column.as_primitive::<Int64Type>().value(row))
    }

    fn event(&self, row: usize) -> Result<RegistryEvent> {
        let text = |name: &str| self.text(name, row).unwrap_or_default().to_owned();
        let kind = EventKind::from_name(&text("event")).ok_or_else(|| damaged("an event has an unknown name"))?;
        Ok(RegistryEvent {
            sequence: self.number("sequence", row),
            event_id: text("event_id"),
            event_ms: self.number("event_ms", row),
            policy_id: text("policy_id").parse().map_err(damaged)?,
            policy_name: text("policy_name"),
            event: kind,
            actor: text("actor"),
            reason: self.text("reason", row).map(str::to_owned),
            previous: self.text("previous", row).map(str::parse).transpose().map_err(damaged)?,
            verdict: Verdict(text("verdict")),
            forced: self.0.column_by_name("forced").is_some_and(|column| column.as_boolean().value(row)),
        })
    }
}

fn damaged(why: impl fmt::Display) -> PublisherError {
    PublisherError::Damaged { why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: i64, previous: Option<PolicyId>) -> RegistryEvent {
        RegistryEvent {
            sequence,
            event_id: format!("{sequence:032x}"),
            event_ms: 1_700_000_000_000 + sequence,
            policy_id: PolicyId::of_manifest(&sequence.to_le_bytes()),
            policy_name: "demo".to_owned(),
            event: EventKind::Approved,
            actor: "alice".to_owned(),
            reason: previous.as_ref().map(|_| "a \"reason\"".to_owned()),
            previous,
            verdict: Verdict("not shown".to_owned()),
            forced: sequence % 2 == 0,
        }
    }

    #[test]
    fn events_survive_the_table_form_and_come_back_in_order() {
        let events = [event(0, None), event(1, Some(PolicyId::of_manifest(b"x"))), event(2, None)];
        let mut batches: Vec<RecordBatch> = events.iter().map(|event| to_batch(event).unwrap()).collect();
        batches.reverse();
        assert_eq!(from_batches(&batches).unwrap(), events);
    }

    #[test]
    fn a_verdict_is_read_from_both_forms_of_report() {
        let of = |json: &str| Verdict::of_report(Some(json.as_bytes())).to_string();
        assert_eq!(of(r#"{"verdict": "better"}"#), "better");
        assert_eq!(of(r#"{"verdict": {"verdict": "insufficient_support", "reasons": []}}"#), "insufficient support");
        assert_eq!(of("{}"), "not reported");
        assert_eq!(of("no json"), "not reported");
        assert!(!Verdict::of_report(None).is_better());
        assert!(Verdict::of_report(Some(br#"{"verdict": "better"}"#)).is_better());
    }
}
