//! What a record says about tools: which were offered, which this call used, and the results that grounded it.

use serde_json::Value;

use super::AdaptError;
use super::object::Object;
use crate::ToolCall;

/// What the tool trace of one record holds.
#[derive(Default)]
pub(super) struct ToolTrace {
    /// Calls that this response made.
    pub called: Option<Vec<ToolCall>>,
    /// `chat_completions` or `responses`.
    pub api: Option<String>,
    /// Tool results that the model saw as one text, when none was cut.
    pub grounding: Option<String>,
}

/// Reads `tool_trace`.
///
/// The trace repeats the conversation so far: a call that is followed by a result or by the user was made by an
/// earlier response and is reported by that one's record. What is left are the calls of this response, whose results
/// nobody has seen yet, so success and latency stay null.
pub(super) fn tool_trace(record: Object<'_>) -> Result<ToolTrace, AdaptError> {
    let Some(trace) = record.object("tool_trace")? else { return Ok(ToolTrace::default()) };
    let mut cut = trace.flag("steps_truncated")?;
    let mut read = ToolTrace::default();
    let mut called = Vec::new();
    let mut results = Vec::new();
    for step in trace.objects("steps")? {
        if read.api.is_none() {
            read.api = step.owned("api_type")?;
        }
        match step.text("type")? {
            Some("assistant_tool_call") => {
                called.push(ToolCall { name: step.owned("tool_name")?.unwrap_or_default(), ..ToolCall::default() });
            }
            Some("client_tool_result") => {
                called.clear();
                cut |= step.flag("truncated")?;
                let output = step.text("output")?.or(step.text("raw_output")?).or(step.text("text")?);
                results.extend(output);
            }
            Some("user_input") => called.clear(),
            _ => {}
        }
    }
    if !called.is_empty() {
        read.called = Some(called);
    }
    if !cut && !results.is_empty() {
        read.grounding = Some(results.join("\n\n"));
    }
    Ok(read)
}

/// Names in `tool_definitions`, a JSON array as text; null when it was cut or is not what the APIs define.
pub(super) fn tools_offered(record: Object<'_>) -> Result<Option<Vec<String>>, AdaptError> {
    if record.flag("tool_definitions_truncated")? {
        return Ok(None);
    }
    let Some(text) = record.text("tool_definitions")? else { return Ok(None) };
    let Ok(Value::Array(definitions)) = serde_json::from_str(text) else { return Ok(None) };
    let name = |definition: &Value| {
        let chat = definition.get("function").and_then(|function| function.get("name"));
        chat.or_else(|| definition.get("name")).and_then(Value::as_str).map(str::to_owned)
    };
    Ok(definitions.iter().map(name).collect())
}

/// Messages in the request, counted in `request_body` when all of it was captured.
pub(super) fn message_count(record: Object<'_>) -> Result<Option<i32>, AdaptError> {
    if record.flag("request_body_truncated")? {
        return Ok(None);
    }
    let Some(text) = record.text("request_body")? else { return Ok(None) };
    let Ok(Value::Object(body)) = serde_json::from_str(text) else { return Ok(None) };
    let messages = match (body.get("messages"), body.get("input")) {
        (Some(Value::Array(messages)), _) | (None, Some(Value::Array(messages))) => messages.len(),
        (None, Some(Value::String(_))) => 1,
        _ => return Ok(None),
    };
    Ok(i32::try_from(messages).ok())
}

/// The answer in `response_body`, when all of it was captured and it is one chat completion or response object.
/// Of a stream the router stores one such object, put together from its chunks; where that fails it stores bare text,
/// which is not told apart from other bodies and stays null.
pub(super) fn response_text(record: Object<'_>) -> Result<Option<String>, AdaptError> {
    if record.flag("response_body_truncated")? {
        return Ok(None);
    }
    let Some(text) = record.text("response_body")? else { return Ok(None) };
    let Ok(Value::Object(body)) = serde_json::from_str(text) else { return Ok(None) };
    let chat = || body.get("choices")?.get(0)?.get("message")?.get("content")?.as_str().map(str::to_owned);
    let responses = || {
        let parts = body.get("output")?.as_array()?.iter().filter_map(|item| item.get("content")?.as_array()).flatten();
        let text: String = parts.filter_map(|part| part.get("text")?.as_str()).collect();
        (!text.is_empty()).then_some(text)
    };
    Ok(chat().or_else(responses))
}
