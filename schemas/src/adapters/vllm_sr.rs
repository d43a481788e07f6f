//! vLLM Semantic Router's replay record -> one request and its feedback.
//!
//! Accepted: one replay record (Redis value, detail API), the router's `router_replay_start` and
//! `router_replay_complete` log lines, a row of the replay table in PostgreSQL as change data capture sends it, and a
//! page of `GET /v1/router_replay`. Field names and meanings are those of the router at `3d48f8c9` (2026-08-22).
//!
//! What this adapter refuses to invent, because the record does not say it:
//! - **Propensity** is null: the router draws by sampling at most, and never logs with which probability.
//! - **Time to first token, queueing, provider, instance, caller, tenant** are not in the record.
//! - **"Checked and clean"**: `hallucination_detected: false` also means "never looked", see `vllm_sr/feedback.rs`.
//! - **When the request arrived**: `timestamp` is when the record was made, after routing. For a method that calls
//!   several models that is after the last of them, so such a call has no end-to-end time.
//! - **A cut text** is not the text: what the router truncated stays null.
//!
//! A record is written when routing ends and updated until the call ends, so one call arrives several times. Its
//! `id` is our request id, and `vllm_sr/request.rs` derives a revision that only grows along that way.

mod extra;
mod feedback;
mod object;
mod request;
mod tools;

use serde_json::{Map, Value};

pub use extra::EXTRA_KEYS;

use crate::{Feedback, Request};
use object::Object;

/// What one message held.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Adapted {
    /// One request per replay record.
    pub requests: Vec<Request>,
    /// Outcomes, hallucination verdicts and follow-up signals of those records.
    pub feedback: Vec<Feedback>,
}

/// Why a message is not a replay record. No message of this type quotes the payload: it can hold prompts.
///
/// All of them are the sender's fault, and none goes away by trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdaptError {
    /// Not JSON at all, or nested beyond 128 levels.
    #[error("not JSON (line {line}, column {column}): send one replay record per message")]
    NotJson {
        /// Line of the first error, from 1.
        line: usize,
        /// Column of the first error, from 1.
        column: usize,
    },
    /// JSON, but no object with a replay id in it.
    #[error("not a replay record: expected a JSON object with `id` or `replay_id`")]
    NotAReplayRecord,
    /// A field that every record has is not there.
    #[error("replay record without `{0}`: the router always writes it, so look for what drops it on the way")]
    Missing(&'static str),
    /// A field holds something else than the router writes.
    #[error("replay record's `{field}` is not {expected}: check the router's version against the adapter's")]
    WrongType {
        /// Name of the field, or of the object that holds it.
        field: &'static str,
        /// What the router writes there.
        expected: &'static str,
    },
    /// A page of no records.
    #[error("a page without records: send pages that hold some")]
    EmptyPage,
    /// One record of a page is odd, and the page is refused with it.
    #[error("record {record} of {records} in the page: {why}")]
    InPage {
        /// Which one, from 1.
        record: usize,
        /// How many the page holds.
        records: usize,
        /// What is wrong with it.
        why: Box<AdaptError>,
    },
}

/// Turns one message of vLLM Semantic Router into events.
///
/// # Errors
/// When the bytes are not JSON, not a replay record, or a known field has a type that the router never writes.
/// Unknown fields are ignored. A page is adapted as a whole or not at all, as every message is.
pub fn adapt(bytes: &[u8]) -> Result<Adapted, AdaptError> {
    let mut value: Value = serde_json::from_slice(bytes)
        .map_err(|error| AdaptError::NotJson { line: error.line(), column: error.column() })?;
    let Value::Object(fields) = &mut value else { return Err(AdaptError::NotAReplayRecord) };
    read_json_columns(fields);
    let mut adapted = Adapted::default();
    let is_page = fields.get("object").and_then(Value::as_str) == Some("router_replay.list");
    match fields.get("data") {
        Some(Value::Array(records)) if is_page => {
            if records.is_empty() {
                return Err(AdaptError::EmptyPage);
            }
            for (index, record) in records.iter().enumerate() {
                let read = match record {
                    Value::Object(record) => adapt_record(Object(record), &mut adapted),
                    _ => Err(AdaptError::NotAReplayRecord),
                };
                read.map_err(|why| AdaptError::InPage {
                    record: index + 1,
                    records: records.len(),
                    why: Box::new(why),
                })?;
            }
        }
        _ => adapt_record(Object(fields), &mut adapted)?,
    }
    Ok(adapted)
}

/// The columns of the replay table that are JSONB. Debezium sends them as text.
const JSON_COLUMNS: [&str; 13] = [
    "signals",
    "projections",
    "projection_scores",
    "signal_confidences",
    "signal_values",
    "tool_trace",
    "projection_trace",
    "session_policy",
    "route_diagnostics",
    "learning",
    "outcomes",
    "hallucination_spans",
    "hallucination_span_details",
];

/// None of these fields is ever a string in the router's own JSON. What is no JSON stays the string that it is, and is
/// refused by whoever reads the field.
fn read_json_columns(fields: &mut Map<String, Value>) {
    for name in JSON_COLUMNS {
        if let Some(Value::String(text)) = fields.get(name)
            && let Ok(value) = serde_json::from_str(text)
        {
            fields.insert(name.to_owned(), value);
        }
    }
}

fn adapt_record(record: Object<'_>, adapted: &mut Adapted) -> Result<(), AdaptError> {
    let request = request::request(record)?;
    adapted.feedback.extend(feedback::feedback(record, &request)?);
    adapted.requests.push(request);
    Ok(())
}
