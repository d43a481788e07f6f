//! Opinions inside a replay record: outcomes, the hallucination check, and what this turn says about the one before.
//!
//! Every id is a function of the record's id and of what identifies the opinion, so a record that arrives again
//! replaces its feedback instead of adding to it.

use sha2::{Digest, Sha256};

use super::object::Object;
use super::request::is_code_word;
use super::{AdaptError, extra};
use crate::{EventTimeMs, Feedback, Field, Request};

pub(super) fn feedback(record: Object<'_>, request: &Request) -> Result<Vec<Feedback>, AdaptError> {
    let mut rows = outcomes(record, request)?;
    rows.extend(hallucination(record, request)?);
    rows.extend(follow_ups(record, request)?);
    Ok(rows)
}

/// `outcomes[]`: what an operator or application posted about this call. The router stores every source as
/// `operator`; reason and metadata are free text and stay out.
fn outcomes(record: Object<'_>, request: &Request) -> Result<Vec<Feedback>, AdaptError> {
    let mut rows = Vec::new();
    for outcome in record.objects("outcomes")? {
        let event_ms = match outcome.time("timestamp")? {
            Some(time) => time,
            None => ended_at(record, request)?,
        };
        let target = outcome.text("target")?.filter(|word| is_code_word(word)).unwrap_or("model");
        let verdict = outcome.text("verdict")?.filter(|word| is_code_word(word)).unwrap_or("unknown");
        let score = outcome.number("score")?.filter(|score| (0.0..=1.0).contains(score));
        rows.push(Feedback {
            feedback_id: outcome_id(&request.request_id, event_ms, target, verdict),
            event_ms,
            source: outcome.text("source")?.filter(|word| is_a_source(word)).unwrap_or("operator").to_owned(),
            kind: "verdict".to_owned(),
            request_id: Some(request.request_id.clone()),
            session_id: request.session_id.clone(),
            model: record.owned("selected_model")?,
            // Only outcomes about the model say how good the answer was. The score has no meaning of its own in the
            // router, which counts any score as one verdict: it is kept apart.
            value: if target == "model" { verdict_value(verdict) } else { None },
            label: Some(verdict.to_owned()),
            checked: Some(true),
            extra: extra::of_outcome(target, score),
            ..Feedback::default()
        });
    }
    Ok(rows)
}

fn is_a_source(word: &str) -> bool {
    let sources = Feedback::contract().field("source").and_then(Field::choices);
    sources.is_some_and(|sources| sources.contains(&word))
}

/// Was the answer good enough? A model that was larger than needed answered well; what it cost is another matter.
fn verdict_value(verdict: &str) -> Option<f64> {
    match verdict {
        "good_fit" | "overprovisioned" => Some(1.0),
        "underpowered" | "failed" => Some(0.0),
        _ => None,
    }
}

/// 128 bits over what identifies an outcome; fields that redaction removes are not part of it.
fn outcome_id(request_id: &str, event_ms: EventTimeMs, target: &str, verdict: &str) -> String {
    let mut hash = Sha256::new();
    for part in [request_id, &event_ms.0.to_string(), target, verdict] {
        hash.update(part.as_bytes());
        hash.update([0x1f]);
    }
    format!("vllm-sr:outcome:{}", hex::encode(&hash.finalize()[..16]))
}

/// The hallucination check of an ended call where it was switched on.
///
/// The router writes `hallucination_detected: false` both for "checked, nothing found" and for "never checked", and
/// has no flag to tell them apart. A confidence above zero comes from a detector, so there the check ran. Zero and
/// absent are taken as never checked: the NLI detector also writes zero for "nothing found", and a clean answer that
/// goes missing does less harm than one that nobody looked at and that counts as supported.
fn hallucination(record: Object<'_>, request: &Request) -> Result<Option<Feedback>, AdaptError> {
    let detected = record.flag("hallucination_detected")?;
    if request.terminal != Some(true) || !(detected || record.flag("hallucination_enabled")?) {
        return Ok(None);
    }
    let confidence = record.number("hallucination_confidence")?.filter(|confidence| *confidence > 0.0);
    let checked = detected || confidence.is_some();
    let label = match (detected, checked) {
        (true, _) => "hallucination",
        (false, true) => "supported",
        (false, false) => "not_checked",
    };
    Ok(Some(Feedback {
        feedback_id: format!("vllm-sr:hallucination:{}", request.request_id),
        event_ms: ended_at(record, request)?,
        source: "evaluation".to_owned(),
        kind: "verdict".to_owned(),
        revision: request.revision,
        request_id: Some(request.request_id.clone()),
        session_id: request.session_id.clone(),
        model: request.executed_model.clone(),
        value: checked.then_some(if detected { 0.0 } else { 1.0 }),
        label: Some(label.to_owned()),
        // Without a detection it is about what was left after filtering, or about spans that were filtered out.
        confidence: confidence.filter(|_| detected),
        checked: Some(checked),
        estimator: Some("vllm-sr/hallucination".to_owned()),
        ..Feedback::default()
    }))
}

/// Follow-up signals of this turn judge the answer to the turn before it, in the same session. Without a session
/// there is nothing that they could be about.
fn follow_ups(record: Object<'_>, request: &Request) -> Result<Vec<Feedback>, AdaptError> {
    let (Some(session_id), Some(signals)) = (&request.session_id, record.object("signals")?) else {
        return Ok(Vec::new());
    };
    let confidences = record.numbers("signal_confidences")?;
    let previous_turn = request.turn.and_then(|turn| turn.checked_sub(1)).filter(|turn| *turn >= 0);
    let mut rows = Vec::new();
    for kind in ["user_feedback", "reask"] {
        for name in signals.texts(kind)?.into_iter().filter(|name| is_code_word(name)) {
            let key = format!("{kind}:{name}");
            let confidence = confidences.iter().find(|(signal, _)| *signal == key).map(|(_, confidence)| *confidence);
            rows.push(Feedback {
                feedback_id: format!("vllm-sr:{key}:{}", request.request_id),
                event_ms: request.arrival_ms,
                source: "router".to_owned(),
                kind: "follow_up".to_owned(),
                session_id: Some(session_id.clone()),
                turn: previous_turn,
                value: follow_up_value(kind, name),
                label: Some(name.to_owned()),
                confidence,
                checked: Some(true),
                ..Feedback::default()
            });
        }
    }
    Ok(rows)
}

/// Satisfied or not, as far as the class says so: asking for clarification or for something else is neither.
fn follow_up_value(kind: &str, name: &str) -> Option<f64> {
    match (kind, name) {
        ("user_feedback", "satisfied") => Some(1.0),
        ("user_feedback", "wrong_answer") | ("reask", _) => Some(0.0),
        _ => None,
    }
}

fn ended_at(record: Object<'_>, request: &Request) -> Result<EventTimeMs, AdaptError> {
    Ok(record.time("ended_at")?.unwrap_or(request.arrival_ms))
}
