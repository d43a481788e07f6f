//! The request of a replay record.

use std::collections::BTreeMap;

use super::AdaptError;
use super::object::Object;
use super::tools;
use crate::{Candidate, Request, Tokens, Usd};

/// Where the call stands in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Completed,
    Aborted,
    Failed,
}

pub(super) fn request(record: Object<'_>) -> Result<Request, AdaptError> {
    let request_id = match record.owned("id")? {
        Some(id) => id,
        None => record.owned("replay_id")?.ok_or(AdaptError::NotAReplayRecord)?,
    };
    let arrival_ms = record.time("timestamp")?.ok_or(AdaptError::Missing("timestamp"))?;
    let state = state(record)?;
    let ended = state != State::Running;
    let signals = record.object("signals")?;
    let diagnostics = record.object("route_diagnostics")?;
    let trace = tools::tool_trace(record)?;
    let session_id = session(record)?;
    let from_cache = record.flag("from_cache")?;
    let blocked = record.flag("pii_blocked")?;
    let status = record.count("response_status")?.filter(|status| *status > 0);
    let selected = record.owned("selected_model")?;
    let proposed = proposal(record, diagnostics)?.or_else(|| selected.clone());
    let overridden = proposed != selected;
    Ok(Request {
        request_id,
        arrival_ms,
        revision: Some(revision(record, ended)?),
        terminal: Some(ended),
        turn: if session_id.is_some() { record.count("turn_index")? } else { None },
        session_id,
        router: Some("vllm-semantic-router".to_owned()),
        policy_version: policy_version(diagnostics)?,
        end_to_end_ms: record.count("duration_ms")?.filter(|_| ended).map(f64::from),
        api: trace.api,
        message_count: tools::message_count(record)?,
        tools_offered: tools::tools_offered(record)?,
        tools_called: trace.called,
        chain_id: record.owned("previous_response_id")?.or(record.owned("conversation_id")?),
        domain: match record.owned("category")? {
            Some(category) => Some(category),
            None => strongest(record, signals, "domain")?,
        },
        complexity: strongest(record, signals, "complexity")?,
        language: strongest(record, signals, "language")?,
        axes: axes(record, signals)?,
        fact_check: needs_fact_check(signals)?,
        safety_score: safety_score(record)?,
        hazard_scores: hazard_scores(record)?,
        requested_model: record.owned("original_model")?,
        decision: record.owned("decision")?,
        candidates: candidates(record)?,
        fallback_reason: if overridden { override_reason(diagnostics)? } else { None },
        intended_model: proposed,
        propensity: None,
        executed_model: selected.filter(|_| ended && !from_cache && !blocked),
        reasoning_mode: record.owned("reasoning_mode")?,
        prompt_tokens: record.count("prompt_tokens")?.map(Tokens),
        cached_prompt_tokens: record.count("cached_prompt_tokens")?.map(Tokens),
        completion_tokens: record.count("completion_tokens")?.map(Tokens),
        prompt_tokens_before_compression: tokens_before_compression(diagnostics)?,
        http_status: status,
        error_class: error_class(record, state, status)?,
        semantic_cache_hit: ended.then_some(from_cache),
        semantic_cache_similarity: record.number("cache_similarity")?.filter(|_| from_cache),
        cost_usd: cost_usd(record)?,
        prompt_text: if record.flag("prompt_truncated")? { None } else { record.owned("prompt")? },
        context_text: trace.grounding,
        response_text: tools::response_text(record)?,
        extra: extra(record)?,
        ..Request::default()
    })
}

/// The router invents a session from the request id when the client names none; that is no session.
pub(super) fn session(record: Object<'_>) -> Result<Option<String>, AdaptError> {
    let request_id = record.text("request_id")?;
    let named = record.text("session_id")?.filter(|session| Some(*session) != request_id);
    Ok(named.or(record.text("conversation_id")?).map(str::to_owned))
}

/// Records of routers without life-cycle tracking say `unknown` for ever: those count as ended once they answered.
fn state(record: Object<'_>) -> Result<State, AdaptError> {
    let ended = record.time("ended_at")?.is_some();
    Ok(match record.text("lifecycle_state")? {
        Some("completed") => State::Completed,
        Some("aborted") => State::Aborted,
        Some("failed") => State::Failed,
        Some("in_progress") if !ended => State::Running,
        _ if ended || record.flag("from_cache")? => State::Completed,
        _ if record.count("response_status")?.is_some_and(|status| status > 0) => State::Completed,
        _ => State::Running,
    })
}

/// A number that grows with everything the router adds to a record: the end first (bit 20), then the parts that later
/// updates fill in (bits 16 to 19), then outcomes (bits 0 to 15). Updates only ever add, so a later copy of a record
/// never has a lower revision, and equal revisions carry the same parts.
fn revision(record: Object<'_>, ended: bool) -> Result<i32, AdaptError> {
    let parts = [
        record.count("response_status")?.is_some_and(|status| status > 0),
        record.count("prompt_tokens")?.is_some() || record.count("completion_tokens")?.is_some(),
        record.number("actual_cost")?.is_some(),
        record.flag("hallucination_detected")? || record.number("hallucination_confidence")?.is_some_and(|c| c > 0.0),
    ];
    let parts = parts.into_iter().filter(|present| *present).count();
    let outcomes = record.objects("outcomes")?.len().min(0xffff);
    Ok((i32::from(ended) << 20) | ((parts as i32) << 16) | outcomes as i32)
}

fn policy_version(diagnostics: Option<Object<'_>>) -> Result<Option<String>, AdaptError> {
    let Some(diagnostics) = diagnostics else { return Ok(None) };
    let Some(annotations) = diagnostics.object("annotations")? else { return Ok(None) };
    annotations.owned("policy_version")
}

/// What the selector proposed before session protection had its say.
fn proposal(record: Object<'_>, diagnostics: Option<Object<'_>>) -> Result<Option<String>, AdaptError> {
    if let Some(diagnostics) = diagnostics
        && let Some(model) = diagnostics.owned("proposal_model")?
    {
        return Ok(Some(model));
    }
    let Some(learning) = record.object("learning")? else { return Ok(None) };
    let Some(adaptation) = learning.object("adaptation")? else { return Ok(None) };
    // In `observe` mode the proposal is written down but not applied: the base model was intended.
    match adaptation.text("mode")? {
        Some("observe") => adaptation.owned("base_model"),
        _ => adaptation.owned("proposal_model"),
    }
}

/// Why another model than the proposed one was called: the router's own code words, never its sentences.
fn override_reason(diagnostics: Option<Object<'_>>) -> Result<Option<String>, AdaptError> {
    let Some(diagnostics) = diagnostics else { return Ok(None) };
    for field in ["hard_lock_reason", "session_reason", "session_action"] {
        if let Some(reason) = diagnostics.text(field)?.filter(|reason| is_code_word(reason)) {
            return Ok(Some(reason.to_owned()));
        }
    }
    Ok(None)
}

/// Scores of the models that competed. Scores are not probabilities: propensities stay null.
fn candidates(record: Object<'_>) -> Result<Option<Vec<Candidate>>, AdaptError> {
    let Some(learning) = record.object("learning")? else { return Ok(None) };
    let mut scores: BTreeMap<&str, Option<f64>> = BTreeMap::new();
    if let Some(adaptation) = learning.object("adaptation")?
        && let Some(by_model) = adaptation.object("scores")?
    {
        for (model, score) in by_model.0 {
            let wrong = AdaptError::WrongType { field: "scores", expected: "an object of objects" };
            scores.insert(model, Object(score.as_object().ok_or(wrong)?).number("score")?);
        }
    } else if let Some(protection) = learning.object("protection")? {
        scores.extend(protection.numbers("final_scores")?.into_iter().map(|(model, score)| (model, Some(score))));
    }
    let candidate =
        |(model, score): (&str, Option<f64>)| Candidate { model: model.to_owned(), score, propensity: None };
    Ok((!scores.is_empty()).then(|| scores.into_iter().map(candidate).collect()))
}

/// The matched name of a signal with the highest confidence; the first one without any.
fn strongest(
    record: Object<'_>,
    signals: Option<Object<'_>>,
    kind: &'static str,
) -> Result<Option<String>, AdaptError> {
    let Some(signals) = signals else { return Ok(None) };
    let confidences = record.numbers("signal_confidences")?;
    let confidence = |name: &str| {
        let key =
            confidences.iter().find(|(key, _)| key.strip_prefix(kind).and_then(|k| k.strip_prefix(':')) == Some(name));
        key.map_or(0.0, |(_, confidence)| *confidence)
    };
    let mut best: Option<(&str, f64)> = None;
    for name in signals.texts(kind)? {
        if best.is_none_or(|(_, highest)| confidence(name) > highest) {
            best = Some((name, confidence(name)));
        }
    }
    Ok(best.map(|(name, _)| name.to_owned()))
}

/// Signals with a meaning of their own elsewhere are left out: domain, complexity, language, fact_check, jailbreak and
/// pii have columns; user_feedback and reask are about the turn before.
const AXES: [&str; 12] = [
    "keyword",
    "embedding",
    "preference",
    "context",
    "structure",
    "modality",
    "authz",
    "kb",
    "conversation",
    "event",
    "metadata",
    "classifier",
];

/// Every other signal as an axis: the names of the rules that matched, joined by commas.
fn axes(record: Object<'_>, signals: Option<Object<'_>>) -> Result<Option<BTreeMap<String, String>>, AdaptError> {
    let mut axes = BTreeMap::new();
    if let Some(signals) = signals {
        for kind in AXES {
            let names = signals.texts(kind)?;
            if !names.is_empty() {
                axes.insert(kind.to_owned(), names.join(","));
            }
        }
    }
    let projections = record.texts("projections")?;
    if !projections.is_empty() {
        axes.insert("projection".to_owned(), projections.join(","));
    }
    Ok((!axes.is_empty()).then_some(axes))
}

/// The router's two rule names; no name means that no fact-check rule ran.
pub(super) fn needs_fact_check(signals: Option<Object<'_>>) -> Result<Option<bool>, AdaptError> {
    let Some(signals) = signals else { return Ok(None) };
    let names = signals.texts("fact_check")?;
    Ok((!names.is_empty()).then(|| names.iter().any(|name| *name != "no_fact_check_needed")))
}

/// The confidence belongs to the detected class: without a detection it says nothing about being unsafe.
fn safety_score(record: Object<'_>) -> Result<Option<f64>, AdaptError> {
    let detected = record.flag("jailbreak_detected")?;
    Ok(record.number("jailbreak_confidence")?.filter(|_| detected))
}

fn hazard_scores(record: Object<'_>) -> Result<Option<BTreeMap<String, f64>>, AdaptError> {
    let is_hazard = |key: &str| key.starts_with("jailbreak:") || key.starts_with("pii:");
    let confidences = record.numbers("signal_confidences")?;
    let mut scores: BTreeMap<String, f64> =
        confidences.into_iter().filter(|(key, _)| is_hazard(key)).map(|(key, score)| (key.to_owned(), score)).collect();
    for (detected, kind, confidence, side) in [
        ("jailbreak_detected", "jailbreak_type", "jailbreak_confidence", "jailbreak"),
        (
            "response_jailbreak_detected",
            "response_jailbreak_type",
            "response_jailbreak_confidence",
            "response_jailbreak",
        ),
    ] {
        if record.flag(detected)?
            && let Some(score) = record.number(confidence)?
        {
            let kind = record.text(kind)?.filter(|kind| is_code_word(kind)).unwrap_or("detected");
            scores.insert(format!("{side}:{kind}"), score);
        }
    }
    Ok((!scores.is_empty()).then_some(scores))
}

fn tokens_before_compression(diagnostics: Option<Object<'_>>) -> Result<Option<Tokens>, AdaptError> {
    let Some(diagnostics) = diagnostics else { return Ok(None) };
    let applied = diagnostics.flag("context_compression_applied")?;
    Ok(diagnostics.count("context_compression_tokens_before")?.filter(|_| applied).map(Tokens))
}

fn error_class(record: Object<'_>, state: State, status: Option<i32>) -> Result<Option<String>, AdaptError> {
    if record.flag("pii_blocked")? {
        return Ok(Some("pii_blocked".to_owned()));
    }
    let fallback = match (state, status) {
        (State::Running, _) => return Ok(None),
        (_, Some(status)) if status >= 400 => format!("http_{status}"),
        (State::Failed, _) => "failed".to_owned(),
        (State::Aborted, _) => "aborted".to_owned(),
        (State::Completed, _) => return Ok(None),
    };
    let reason = record.text("terminal_reason")?.filter(|reason| is_code_word(reason));
    Ok(Some(reason.map_or(fallback, str::to_owned)))
}

/// Costs in other currencies are kept in `extra`, not converted.
fn cost_usd(record: Object<'_>) -> Result<Option<Usd>, AdaptError> {
    let dollars = record.text("currency")?.is_some_and(|currency| currency.eq_ignore_ascii_case("usd"));
    Ok(record.number("actual_cost")?.filter(|_| dollars).map(Usd))
}

/// The router's own numbers and code words that have no column of ours. Free text stays out.
fn extra(record: Object<'_>) -> Result<Option<BTreeMap<String, String>>, AdaptError> {
    let mut extra = BTreeMap::new();
    let mut keep = |name: &str, value: Option<serde_json::Value>| {
        if let Some(value) = value {
            extra.insert(format!("vllm_sr.{name}"), value.to_string());
        }
    };
    for field in ["request_id", "recipe", "selection_method", "cache_hit_kind", "cache_source", "baseline_model"] {
        keep(field, record.text(field)?.map(Into::into));
    }
    for field in ["actual_cost", "baseline_cost", "cost_savings", "confidence_score", "rag_similarity_score"] {
        keep(field, record.number(field)?.map(Into::into));
    }
    for field in ["cache_write_tokens", "context_token_count", "rag_context_length", "decision_tier"] {
        keep(field, record.integer(field)?.map(Into::into));
    }
    for field in ["streaming", "rag_enabled", "prompt_truncated", "request_body_truncated", "response_body_truncated"] {
        keep(field, record.flag(field)?.then_some(true.into()));
    }
    keep("currency", record.text("currency")?.filter(|word| is_code_word(word)).map(Into::into));
    if let Some(learning) = record.object("learning")?
        && let Some(adaptation) = learning.object("adaptation")?
        && let Some(sampling) = adaptation.object("sampling")?
    {
        keep("sampling_used", Some(sampling.flag("used")?.into()));
        keep("sampling_seed", sampling.integer("seed")?.map(Into::into));
    }
    Ok((!extra.is_empty()).then_some(extra))
}

/// Router code words are short and have no spaces; a sentence may quote the prompt.
pub(super) fn is_code_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte))
}
