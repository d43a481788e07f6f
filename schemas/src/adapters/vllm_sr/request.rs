//! The request of a replay record.

use std::collections::BTreeMap;

use super::object::Object;
use super::{AdaptError, extra, tools};
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
    let looped = extra::is_looper(record, diagnostics)?;
    Ok(Request {
        request_id,
        arrival_ms,
        revision: Some(revision(record, ended)?),
        terminal: Some(ended),
        turn: record.count("turn_index")?,
        session_id,
        router: Some("vllm-semantic-router".to_owned()),
        policy_version: policy_version(diagnostics)?,
        // A looper's record is made when all its calls are over: its duration is that of writing it down.
        end_to_end_ms: record.count("duration_ms")?.filter(|_| ended && !looped).map(f64::from),
        api: trace.api,
        message_count: tools::message_count(record)?,
        tools_offered: tools::tools_offered(record)?,
        tools_called: trace.called,
        chain_id: record.owned("previous_response_id")?,
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
        extra: extra::of_request(record, looped)?,
        ..Request::default()
    })
}

/// The session that the client named, or the conversation. Where there is neither, the router makes one up: from the
/// request id (`rid-...`), or from all messages so far (`cc-full-...`), which is another one on every turn. Those are no
/// sessions. `cc-...`, made from the user and the first message, stays the same and is one.
fn session(record: Object<'_>) -> Result<Option<String>, AdaptError> {
    let named = record.text("session_id")?.filter(|session| !is_made_up(session));
    Ok(named.or(record.text("conversation_id")?).map(str::to_owned))
}

fn is_made_up(session: &str) -> bool {
    let digits = session.strip_prefix("rid-").or(session.strip_prefix("cc-full-"));
    digits.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
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

/// A number that grows with everything that a copy of the record holds: the end first (bit 28), then the parts that
/// later updates fill in (bits 24 to 27), then how many outcomes (bits 8 to 23), then the parts that log lines, lists
/// and redacted records leave out (bits 0 to 7). The router only ever adds to a record, so a later copy of the same
/// form never has a lower revision, a fuller copy of the same moment has a higher one, and equal revisions carry the
/// same parts.
fn revision(record: Object<'_>, ended: bool) -> Result<i32, AdaptError> {
    let updates = [
        record.count("response_status")?.is_some_and(|status| status > 0),
        record.count("prompt_tokens")?.is_some() || record.count("completion_tokens")?.is_some(),
        record.number("actual_cost")?.is_some(),
        record.flag("hallucination_detected")? || record.number("hallucination_confidence")?.is_some_and(|c| c > 0.0),
    ];
    let outcomes = record.objects("outcomes")?.len().min(0xffff);
    let diagnostics = record.object("route_diagnostics")?;
    let steps = match record.object("tool_trace")? {
        Some(trace) => trace.objects("steps")?.len(),
        None => 0,
    };
    let details = [
        record.text("recipe")?.is_some(),
        diagnostics.is_some(),
        record.object("learning")?.is_some(),
        match diagnostics {
            Some(diagnostics) => diagnostics.object("annotations")?.is_some(),
            None => false,
        },
        steps > 0,
        record.text("prompt")?.is_some(),
        record.text("request_body")?.is_some(),
        record.text("response_body")?.is_some(),
    ];
    Ok((i32::from(ended) << 28) | (bits(&updates) << 24) | ((outcomes as i32) << 8) | bits(&details))
}

/// The flags as a number: of two sets, one within the other, the larger has the larger number.
fn bits(flags: &[bool]) -> i32 {
    flags.iter().fold(0, |bits, flag| (bits << 1) | i32::from(*flag))
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

/// Terminal reasons that say no more than the status and the state do.
const GENERIC_REASONS: [&str; 2] = ["upstream_error_response", "response_complete"];

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
    let says_more = |reason: &&str| is_code_word(reason) && !GENERIC_REASONS.contains(reason);
    let reason = record.text("terminal_reason")?.filter(says_more);
    Ok(Some(reason.map_or(fallback, str::to_owned)))
}

/// Costs in other currencies are kept in `extra`, not converted.
fn cost_usd(record: Object<'_>) -> Result<Option<Usd>, AdaptError> {
    let dollars = record.text("currency")?.is_some_and(|currency| currency.eq_ignore_ascii_case("usd"));
    Ok(record.number("actual_cost")?.filter(|_| dollars).map(Usd))
}

/// Router code words are short and have no spaces; a sentence may quote the prompt.
pub(super) fn is_code_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte))
}
