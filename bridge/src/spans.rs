//! Spans and log records as flat JSON messages, one each. The shape is in the crate's page ([`crate`]).

use serde_json::{Map, Value, json};

use crate::attributes::{find, ms, object, of, rendered};
use crate::message::{Message, Signal};
use crate::proto::otlp::{LogRecord, LogsRequest, Resource, Scope, Span, SpanEvent, TracesRequest};
use crate::room::{NoMessages, Room};
use crate::text::{Text, is_genai_event};

/// What became of a request.
#[derive(Debug, Default)]
pub(crate) struct Flattened {
    pub(crate) messages: Vec<Message>,
    /// Attributes, bodies and messages that can hold text and were dropped.
    pub(crate) dropped: u64,
}

impl Flattened {
    fn push(&mut self, signal: Signal, key: String, value: &Value, room: &mut Room) -> Result<(), NoMessages> {
        let payload = value.to_string().into_bytes();
        room.take(key.len() + payload.len())?;
        self.messages.push(Message { signal, key, payload });
        Ok(())
    }
}

/// What the spans or records of one scope share.
struct Origin<'a> {
    service_name: Option<&'a str>,
    scope: Option<&'a str>,
    resource: Map<String, Value>,
}

impl<'a> Origin<'a> {
    /// Of a resource, before any of its scopes.
    fn of(resource: Option<&'a Resource>, text: &Text, dropped: &mut u64) -> Self {
        let attributes = of(resource);
        Self {
            service_name: find(attributes, "service.name"),
            scope: None,
            resource: object(attributes, text, false, dropped),
        }
    }

    fn enter(&mut self, scope: Option<&'a Scope>) {
        self.scope = scope.map(|scope| scope.name.as_str()).filter(|name| !name.is_empty());
    }
}

pub(crate) fn spans(request: &TracesRequest, text: &Text, mut room: Room) -> Result<Flattened, NoMessages> {
    let mut flattened = Flattened::default();
    for of_resource in &request.resource_spans {
        let mut origin = Origin::of(of_resource.resource.as_ref(), text, &mut flattened.dropped);
        for of_scope in &of_resource.scope_spans {
            origin.enter(of_scope.scope.as_ref());
            for found in &of_scope.spans {
                let value = span(found, &origin, text, &mut flattened.dropped);
                flattened.push(Signal::Traces, hex::encode(&found.trace_id), &value, &mut room)?;
            }
        }
    }
    Ok(flattened)
}

pub(crate) fn logs(request: &LogsRequest, text: &Text, mut room: Room) -> Result<Flattened, NoMessages> {
    let mut flattened = Flattened::default();
    for of_resource in &request.resource_logs {
        let mut origin = Origin::of(of_resource.resource.as_ref(), text, &mut flattened.dropped);
        for of_scope in &of_resource.scope_logs {
            origin.enter(of_scope.scope.as_ref());
            for found in &of_scope.log_records {
                let value = record(found, &origin, text, &mut flattened.dropped);
                // A record outside of any trace keeps its order with those of its service.
                let key = id(&found.trace_id).unwrap_or_else(|| origin.service_name.unwrap_or_default().to_owned());
                flattened.push(Signal::Logs, key, &value, &mut room)?;
            }
        }
    }
    Ok(flattened)
}

fn span(span: &Span, origin: &Origin<'_>, text: &Text, dropped: &mut u64) -> Value {
    let status = span.status.as_ref();
    let mut status_message = status.map(|status| status.message.as_str()).filter(|message| !message.is_empty());
    // Providers quote the prompt in what they say of an error.
    if !text.is_kept() && status_message.take().is_some() {
        *dropped += 1;
    }
    let mut value = json!({
        "trace_id": id(&span.trace_id),
        "span_id": id(&span.span_id),
        "parent_span_id": id(&span.parent_span_id),
        "name": span.name,
        "kind": kind(span.kind),
        "start_time_ms": ms(span.start_time_unix_nano),
        "end_time_ms": ms(span.end_time_unix_nano),
        "status_code": status_code(status.map_or(0, |status| status.code)),
        "scope": origin.scope,
        "service_name": origin.service_name,
        "attributes": object(&span.attributes, text, false, dropped),
        "resource": origin.resource,
        "events": span.events.iter().map(|found| event(found, text, dropped)).collect::<Vec<_>>(),
    });
    if let Some(status_message) = status_message {
        value["status_message"] = status_message.into();
    }
    value
}

fn event(event: &SpanEvent, text: &Text, dropped: &mut u64) -> Value {
    json!({
        "name": event.name,
        "time_ms": ms(event.time_unix_nano),
        "attributes": object(&event.attributes, text, is_genai_event(&event.name), dropped),
    })
}

fn record(record: &LogRecord, origin: &Origin<'_>, text: &Text, dropped: &mut u64) -> Value {
    // Before events had a field for their name it was an attribute.
    let event_name = Some(record.event_name.as_str())
        .filter(|name| !name.is_empty())
        .or_else(|| find(&record.attributes, "event.name"));
    let of_genai = event_name.is_some_and(is_genai_event);
    let body = match &record.body {
        Some(_) if of_genai && !text.is_kept() => {
            *dropped += 1;
            None
        }
        body => body.as_ref().and_then(|body| rendered(body, text, of_genai, dropped)),
    };
    json!({
        "time_ms": ms(record.time_unix_nano),
        "observed_time_ms": ms(record.observed_time_unix_nano),
        "severity": severity(record),
        "event_name": event_name,
        "trace_id": id(&record.trace_id),
        "span_id": id(&record.span_id),
        "body": body,
        "scope": origin.scope,
        "service_name": origin.service_name,
        "attributes": object(&record.attributes, text, of_genai, dropped),
        "resource": origin.resource,
    })
}

/// An id in hexadecimal; `None` where there is none, which may be written as zeros.
fn id(bytes: &[u8]) -> Option<String> {
    bytes.iter().any(|byte| *byte != 0).then(|| hex::encode(bytes))
}

fn kind(kind: i32) -> &'static str {
    match kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "unspecified",
    }
}

fn status_code(code: i32) -> &'static str {
    match code {
        1 => "ok",
        2 => "error",
        _ => "unset",
    }
}

/// OTLP's six levels, or the emitter's word where it gave no number.
fn severity(record: &LogRecord) -> Option<&str> {
    Some(match record.severity_number {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        21..=24 => "fatal",
        _ => return Some(record.severity_text.as_str()).filter(|text| !text.is_empty()),
    })
}

#[cfg(test)]
mod tests;
