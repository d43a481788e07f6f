//! Verdicts on sampled traffic, written back as feedback: exactly once per version of the raw table `requests`.
//!
//! A verdict's rows and the position "read up to this version" land in one commit of the raw table `feedback`, compared
//! and set under the artefact's own name. Whatever dies, the next run goes on from the table; two runs at once cannot
//! both win. Feedback ids are functions of artefact and request, so even a request delivered twice has one verdict.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::array::{Int32Array, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, Schema};
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use weir_schemas::{Contract, Feedback, Request};
use weir_store::{Advance, Follower, Store, Table, TableSpec};

use super::estimator::{Estimator, Verdict};
use crate::error::{LearnError, Result};

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobSummary {
    /// Versions of `requests` read.
    pub versions: u64,
    /// Requests in them.
    pub requests: u64,
    /// Requests that the sample picked.
    pub sampled: u64,
    /// Verdicts written.
    pub verdicts: u64,
    /// Sampled requests without context or response text: no verdict, rather than a clean one.
    pub not_checkable: u64,
    /// Versions that a new artefact could not start with: the log of `requests` no longer holds them.
    pub versions_gone: u64,
}

/// Raw versions whose verdicts go into one commit: bounds memory, and what a crash repeats.
const VERSIONS_PER_COMMIT: i64 = 16;

/// Judges every raw version of `requests` that this artefact has not judged yet.
///
/// `sample_rate` in [0, 1] is the share of requests judged, picked by a hash of the request id, so that a repeated or
/// later run picks the same ones. A new artefact starts at the oldest version that the log still holds.
///
/// # Errors
/// When there is no raw table `requests`, or the store refuses, also because a version after the artefact's position is
/// gone from the log; what was committed before stays.
pub async fn run_hallucination_job(store: &Store, estimator: &Estimator, sample_rate: f64) -> Result<JobSummary> {
    if !(0.0..=1.0).contains(&sample_rate) {
        return Err(LearnError::Config("sample_rate must lie in [0, 1]".to_owned()));
    }
    let requests = store.existing(Request::contract().name).await?.ok_or(LearnError::MissingTable("requests"))?;
    let mut feedback = feedback_table(store).await?;
    let app_id = format!("estimate/hallucination/{}", estimator.id());
    let mut summary = JobSummary::default();
    let mut position = feedback.position(&app_id).await?;
    if position.is_none() {
        let follower = Follower { table: feedback.name().to_owned(), app_ids: vec![app_id.clone()] };
        store.follow(&requests, &follower).await?;
    }
    let mut first = match position {
        Some(done) => done + 1,
        None => start(&requests, estimator, &mut summary).await?,
    };
    while first <= requests.version() {
        let last = (first + VERSIONS_PER_COMMIT - 1).min(requests.version());
        let mut batches = Vec::new();
        for version in first..=last {
            let mut rows_before = 0;
            for batch in requests.appended(version).await? {
                let source = Source { version, rows_before };
                batches.extend(judge(&batch, source, estimator, sample_rate, &feedback.schema(), &mut summary)?);
                rows_before += batch.num_rows() as i64;
            }
            summary.versions += 1;
        }
        let advance = Advance { app_id: app_id.clone(), expected: position, next: last };
        let committed = feedback.commit(batches, vec![advance]).await?;
        tracing::info!(
            estimator = estimator.id(),
            requests_version = last,
            feedback_version = committed.version,
            verdicts = committed.rows,
            "hallucination verdicts committed"
        );
        (position, first) = (Some(last), last + 1);
    }
    Ok(summary)
}

/// Where an artefact that has judged nothing yet begins.
async fn start(requests: &Table, estimator: &Estimator, summary: &mut JobSummary) -> Result<i64> {
    let oldest = weir_features::oldest_version(requests).await?;
    summary.versions_gone = oldest.unsigned_abs();
    if oldest > 0 {
        tracing::warn!(
            estimator = estimator.id(),
            versions_gone = oldest,
            "a new estimator starts after versions of requests that the log no longer holds"
        );
    }
    Ok(oldest)
}

/// The raw table `feedback`, made if traffic has not made it yet.
async fn feedback_table(store: &Store) -> Result<Table> {
    let contract: &Contract = Feedback::contract();
    if let Some(table) = store.existing(contract.name).await? {
        return Ok(table);
    }
    let spec = TableSpec {
        name: contract.name.to_owned(),
        schema: weir_features::raw_schema(contract),
        partition_by: Some("event_date".to_owned()),
    };
    Ok(store.table(&spec).await?)
}

/// Where a batch of requests stands: its table version, and how many rows of that version come before it.
#[derive(Clone, Copy)]
struct Source {
    version: i64,
    rows_before: i64,
}

impl Source {
    /// A number of its own for each row, as Kafka's offsets are for events from a topic.
    fn offset(self, row: usize) -> i64 {
        (self.version << 32) + self.rows_before + row as i64
    }
}

/// One request with something to judge.
struct Judged {
    source_offset: i64,
    request_id: String,
    event_ms: i64,
    tenant: Option<String>,
    session_id: Option<String>,
    model: Option<String>,
    verdict: Verdict,
}

fn judge(
    batch: &RecordBatch,
    source: Source,
    estimator: &Estimator,
    sample_rate: f64,
    schema: &Arc<Schema>,
    summary: &mut JobSummary,
) -> Result<Option<RecordBatch>> {
    let text = |name: &str| optional(batch, name, &DataType::Utf8);
    let (ids, context, response) = (text("request_id")?, text("context_text")?, text("response_text")?);
    let (tenant, session, model) = (text("tenant")?, text("session_id")?, text("executed_model")?);
    let arrival = optional(batch, "arrival_ms", &DataType::Int64)?;
    let duration = optional(batch, "end_to_end_ms", &DataType::Float64)?;
    let mut rows = Vec::new();
    for row in 0..batch.num_rows() {
        summary.requests += 1;
        let Some(request_id) = at(&ids, row) else { continue };
        if sample_position(&request_id) >= sample_rate {
            continue;
        }
        summary.sampled += 1;
        let verdict = at(&context, row).zip(at(&response, row)).and_then(|(c, r)| estimator.score(&c, &r));
        let Some(verdict) = verdict else {
            summary.not_checkable += 1;
            continue;
        };
        let arrival_ms = arrival.as_primitive::<Int64Type>().value(row);
        let took_ms = duration.is_valid(row).then(|| duration.as_primitive::<Float64Type>().value(row));
        rows.push(Judged {
            source_offset: source.offset(row),
            event_ms: answered_ms(arrival_ms, took_ms),
            tenant: at(&tenant, row),
            session_id: at(&session, row),
            model: at(&model, row),
            request_id,
            verdict,
        });
    }
    summary.verdicts += rows.len() as u64;
    if rows.is_empty() { Ok(None) } else { feedback_rows(&rows, estimator, schema).map(Some) }
}

/// A longer answer is a broken clock: the views draw the same line, at 11 days.
const TOOK_MS_MAX: f64 = 1e9;

/// When the answer was complete, which is what the verdict is about: a run later must write the same row. A duration that
/// cannot be, or that leads out of the calendar, leaves the arrival; an arrival outside it goes to its nearest end, so
/// that one odd event does not stop the job for all others.
fn answered_ms(arrival_ms: i64, took_ms: Option<f64>) -> i64 {
    let took_ms = took_ms.filter(|took| (0.0..=TOOK_MS_MAX).contains(took)).unwrap_or(0.0);
    let known = |time_ms: i64| DateTime::from_timestamp_millis(time_ms).is_some();
    let answered = arrival_ms.saturating_add(took_ms as i64);
    if known(answered) {
        return answered;
    }
    let (first, last) = (DateTime::<Utc>::MIN_UTC.timestamp_millis(), DateTime::<Utc>::MAX_UTC.timestamp_millis());
    arrival_ms.clamp(first, last)
}

/// Where in [0, 1) a request falls: it is sampled if that is under the rate.
fn sample_position(request_id: &str) -> f64 {
    let digest = Sha256::digest(format!("weir hallucination sample\u{1f}{request_id}").as_bytes());
    let bytes: [u8; 8] = digest[..8].try_into().expect("a SHA-256 has 32 bytes");
    (u64::from_be_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Rows of the raw table `feedback`, in its own column order; columns that a verdict has nothing for are null.
fn feedback_rows(rows: &[Judged], estimator: &Estimator, schema: &Arc<Schema>) -> Result<RecordBatch> {
    let texts =
        |of: &dyn Fn(&Judged) -> Option<String>| Arc::new(rows.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let numbers = |of: &dyn Fn(&Judged) -> f64| {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<Float64Array>()) as ArrayRef
    };
    let same = |text: &str| Arc::new(StringArray::from(vec![text; rows.len()])) as ArrayRef;
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let column: ArrayRef = match field.name().as_str() {
                "feedback_id" => texts(&|row| Some(format!("hallucination/{}/{}", estimator.id(), row.request_id))),
                "event_ms" => Arc::new(rows.iter().map(|row| Some(row.event_ms)).collect::<Int64Array>()),
                "source" => same("evaluation"),
                "kind" => same("verdict"),
                "tenant" => texts(&|row| row.tenant.clone()),
                "request_id" => texts(&|row| Some(row.request_id.clone())),
                "session_id" => texts(&|row| row.session_id.clone()),
                "model" => texts(&|row| row.model.clone()),
                "value" => numbers(&|row| 1.0 - row.verdict.probability),
                "label" => {
                    texts(&|row| Some(if row.verdict.hallucinated { "hallucination" } else { "faithful" }.to_owned()))
                }
                "confidence" => numbers(&|row| row.verdict.probability.max(1.0 - row.verdict.probability)),
                "checked" => Arc::new(BooleanArray::from(vec![true; rows.len()])),
                "estimator" => same(estimator.id()),
                "event_date" => texts(&|row| utc_day(row.event_ms)),
                "source_topic" => same(&format!("weir:estimate/hallucination/{}", estimator.id())),
                "source_offset" => Arc::new(rows.iter().map(|row| Some(row.source_offset)).collect::<Int64Array>()),
                "source_partition" => Arc::new(Int32Array::from(vec![0; rows.len()])),
                _ => new_null_array(field.data_type(), rows.len()),
            };
            if column.data_type() == field.data_type() { Ok(column) } else { cast(&column, field.data_type()) }
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn utc_day(time_ms: i64) -> Option<String> {
    DateTime::from_timestamp_millis(time_ms).map(|time| time.format("%Y-%m-%d").to_string())
}

/// The column, or nulls where this version of the table lacks it.
fn optional(batch: &RecordBatch, name: &str, wanted: &DataType) -> Result<ArrayRef> {
    match batch.column_by_name(name) {
        Some(column) => Ok(cast(column, wanted)?),
        None => Ok(new_null_array(wanted, batch.num_rows())),
    }
}

fn at(column: &ArrayRef, row: usize) -> Option<String> {
    column.is_valid(row).then(|| column.as_string::<i32>().value(row).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_duration_or_arrival_still_gives_a_day() {
        let arrival_ms = 1_767_225_600_000;
        for (took, answered) in [
            (Some(500.9), arrival_ms + 500),
            (None, arrival_ms),
            (Some(-5.0), arrival_ms),
            (Some(1e18), arrival_ms),
            (Some(f64::NAN), arrival_ms),
            (Some(f64::INFINITY), arrival_ms),
        ] {
            assert_eq!(answered_ms(arrival_ms, took), answered, "{took:?}");
        }
        for arrival_ms in [i64::MIN, i64::MAX, DateTime::<Utc>::MAX_UTC.timestamp_millis()] {
            assert!(utc_day(answered_ms(arrival_ms, Some(1e9))).is_some(), "{arrival_ms}");
        }
    }
}
