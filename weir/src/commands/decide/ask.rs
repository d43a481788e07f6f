//! What a router may ask, and a clear word about what it may not. Prompts end up in wrong fields, so a refusal names
//! fields and never repeats a value.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use weir_learners::WEIGHT_MAX;
use weir_policy_runtime::{ActionParts, OwnedContext};

/// Bytes of a decision request at most: room for an embedding of many thousand dimensions.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;
/// Bytes of an id or a tenant's name at most; they are kept in memory and written to the log.
const MAX_ID_BYTES: usize = 256;
/// Candidates at most.
const MAX_CANDIDATES: usize = 1_024;

/// A wait at most: a day.
const MAX_WAIT_S: f64 = 86_400.0;

/// What is known of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    pub request_id: Option<String>,
    pub session_id: Option<String>,
    pub tenant: Option<String>,
    #[serde(default)]
    pub context: OwnedContext,
    /// Models that may be chosen, each with all of its providers and modes unless the name says which; all of the policy's when left out.
    pub candidates: Option<Vec<String>>,
    /// The router holds the request for unsafe: it is not explored with.
    pub flagged: Option<bool>,
    /// Utility lost per US dollar, in the place of the policy's own: what this request's dollars are worth, and with them everything
    /// that the operator's outcome prices in dollars.
    pub usd_weight: Option<f64>,
    /// By model or action, how much longer than usual its pool would let the request wait now, seconds.
    #[serde(default)]
    pub wait_s: BTreeMap<String, f64>,
}

impl Ask {
    /// What a request without a tenant counts as.
    pub(super) const NO_TENANT: &'static str = "default";

    /// Reads a request's body.
    ///
    /// # Errors
    /// One sentence that names what is wrong and holds no value of the body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let ask: Self = serde_json::from_slice(body).map_err(|_| what_is_wrong(body))?;
        let OwnedContext { domain, complexity, language, api, embedding_model, .. } = &ask.context;
        let names = [
            ("request_id", &ask.request_id),
            ("session_id", &ask.session_id),
            ("tenant", &ask.tenant),
            ("context.domain", domain),
            ("context.complexity", complexity),
            ("context.language", language),
            ("context.api", api),
            ("context.embedding_model", embedding_model),
        ];
        for (name, id) in names {
            let Some(id) = id else { continue };
            if id.is_empty() && !name.starts_with("context.") {
                return Err(format!("{name} is empty: leave it out where there is none"));
            }
            if id.len() > MAX_ID_BYTES {
                return Err(format!("{name} has more than {MAX_ID_BYTES} bytes: send a shorter one"));
            }
        }
        if ask.usd_weight.is_some_and(|weight| !(0.0..=WEIGHT_MAX).contains(&weight)) {
            return Err(format!(
                "usd_weight lies outside 0 to {WEIGHT_MAX}: give what a dollar is worth in units of quality"
            ));
        }
        if ask.wait_s.len() > MAX_CANDIDATES || !ask.wait_s.values().all(|wait| (0.0..=MAX_WAIT_S).contains(wait)) {
            return Err(format!(
                "wait_s is to hold a number of seconds from 0 to {MAX_WAIT_S} for each of at most {MAX_CANDIDATES} models"
            ));
        }
        if ask.candidates.as_ref().is_some_and(|candidates| candidates.len() > MAX_CANDIDATES) {
            return Err(format!("candidates has more than {MAX_CANDIDATES} names: send fewer, or leave it out"));
        }
        Ok(ask)
    }

    /// How much longer than usual the pool would let the request wait, seconds: the action's own where it is named, else its model's.
    pub(super) fn wait_s(&self, action: &str) -> f64 {
        let of = |name: &str| self.wait_s.get(name).copied();
        of(action).or_else(|| of(ActionParts::of(action).model)).unwrap_or_default()
    }

    pub(super) fn tenant(&self) -> &str {
        self.tenant.as_deref().unwrap_or(Self::NO_TENANT)
    }

    pub(super) fn may_serve(&self, action: &str) -> bool {
        let model = ActionParts::of(action).model;
        self.candidates.as_ref().is_none_or(|named| named.iter().any(|name| name == action || name == model))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Count,
    Flag,
    Number,
    Numbers,
    Object,
}

impl Kind {
    fn fits(self, value: &Value) -> bool {
        let all = |of: fn(&Value) -> bool| value.as_array().is_some_and(|items| items.iter().all(of));
        match self {
            Self::Object => value.is_object(),
            _ if value.is_null() => true,
            Self::Text => value.is_string(),
            Self::Texts => all(Value::is_string),
            Self::Count => value.as_u64().is_some_and(|count| count <= u64::from(u32::MAX)),
            Self::Flag => value.is_boolean(),
            Self::Number => value.is_number(),
            Self::Numbers => all(Value::is_number),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Texts => "a list of texts",
            Self::Count => "a whole number from 0 to 4294967295",
            Self::Flag => "true or false",
            Self::Number => "a number",
            Self::Numbers => "a list of numbers",
            Self::Object => "an object",
        }
    }
}

const ASK: &[(&str, Kind)] = &[
    ("request_id", Kind::Text),
    ("session_id", Kind::Text),
    ("tenant", Kind::Text),
    ("context", Kind::Object),
    ("candidates", Kind::Texts),
    ("flagged", Kind::Flag),
    ("usd_weight", Kind::Number),
    ("wait_s", Kind::Object),
];

const CONTEXT: &[(&str, Kind)] = &[
    ("domain", Kind::Text),
    ("complexity", Kind::Text),
    ("language", Kind::Text),
    ("api", Kind::Text),
    ("prompt_tokens", Kind::Count),
    ("turn", Kind::Count),
    ("message_count", Kind::Count),
    ("tools_offered", Kind::Count),
    ("fact_check", Kind::Flag),
    ("multimodal", Kind::Flag),
    ("embedding", Kind::Numbers),
    ("embedding_model", Kind::Text),
    ("warm_model", Kind::Text),
    ("warm_tokens", Kind::Count),
    ("failures", Kind::Count),
    ("failed_last", Kind::Flag),
    ("tool_calls", Kind::Count),
];

/// Why this body is no request. The parser's own message quotes what it could not take, so it is not passed on.
fn what_is_wrong(body: &[u8]) -> String {
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return format!("the body is not JSON (line {}, column {})", error.line(), error.column()),
    };
    let Value::Object(fields) = &value else {
        return "the body is not a JSON object: send an object with what is known of the request".to_owned();
    };
    let context = fields.get("context").and_then(Value::as_object);
    wrong_field("", fields, ASK)
        .or_else(|| wrong_field("context.", context?, CONTEXT))
        .unwrap_or_else(|| "the body is not a decision request: is a field given twice?".to_owned())
}

fn wrong_field(path: &str, fields: &Map<String, Value>, known: &[(&str, Kind)]) -> Option<String> {
    fields.iter().find_map(|(name, value)| match known.iter().find(|(known, _)| known == name) {
        None => {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            Some(format!("unknown field {path}{}: the fields are {}", shown(name), names.join(", ")))
        }
        Some((_, kind)) if !kind.fits(value) => Some(format!("{path}{name} must be {}", kind.words())),
        Some(_) => None,
    })
}

/// A field's name as sent, if it looks like one: a prompt can also stand where a name should.
fn shown(name: &str) -> &str {
    let like_a_name =
        name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if like_a_name { name } else { "(whose name is not shown)" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> String {
        Ask::parse(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_refusal_names_fields_and_never_repeats_a_value() {
        let secret = "my secret prompt";
        for body in [
            format!(r#"{{"context": "{secret}"}}"#),
            format!(r#"{{"context": {{"prompt_tokens": "{secret}"}}}}"#),
            format!(r#"{{"context": {{"turn": "{secret}"}}}}"#),
            format!(r#"{{"candidates": "{secret}"}}"#),
            format!(r#"{{"{secret}": 1}}"#),
            format!(r#"{{"context": {{"{secret}": 1}}}}"#),
            format!(r#"["{secret}"]"#),
            format!(r#"{{"tenant": "a", "tenant": "{secret}"}}"#),
            format!(r#"{{"tenant": {secret}}}"#),
            secret.to_owned(),
        ] {
            let said = refusal(&body);
            assert!(!said.contains("secret"), "{body}: {said}");
        }
        assert_eq!(
            refusal(r#"{"context": {"prompt_tokens": -1}}"#),
            "context.prompt_tokens must be a whole number from 0 to 4294967295"
        );
        assert!(refusal(r#"{"sesion_id": "s"}"#).starts_with("unknown field sesion_id: the fields are request_id"));
    }

    #[test]
    fn ids_are_bounded_and_an_empty_one_is_no_id() {
        assert!(refusal(r#"{"session_id": ""}"#).contains("session_id is empty"));
        let long = "x".repeat(MAX_ID_BYTES + 1);
        for field in ["request_id", "session_id", "tenant"] {
            let said = refusal(&format!(r#"{{"{field}": "{long}"}}"#));
            assert!(said.starts_with(field) && !said.contains("xxx"), "{said}");
        }
    }

    #[test]
    fn a_model_stands_for_all_of_its_actions_and_an_action_for_itself() {
        let ask: Ask = serde_json::from_str(
            r#"{"candidates": ["a", "b;reasoning=high"], "wait_s": {"a": 2, "a;reasoning=low": 1, "b;reasoning=high": 3}}"#,
        )
        .unwrap();
        let may_serve = |action: &str| ask.may_serve(action);
        assert!(may_serve("a") && may_serve("a;reasoning=low") && may_serve("a;provider=x;reasoning=low"));
        assert!(may_serve("b;reasoning=high") && !may_serve("b") && !may_serve("b;reasoning=low"));
        let waits = ["a", "a;reasoning=high", "a;reasoning=low", "b;reasoning=high", "b"].map(|name| ask.wait_s(name));
        assert_eq!(waits, [2.0, 2.0, 1.0, 3.0, 0.0]);
    }

    /// The lists above are what refusals are made of; they must know every field that is read.
    #[test]
    fn every_field_of_the_context_is_in_the_list() {
        let full = OwnedContext {
            domain: Some("d".into()),
            complexity: Some("c".into()),
            language: Some("l".into()),
            api: Some("a".into()),
            prompt_tokens: Some(1),
            turn: Some(1),
            message_count: Some(1),
            tools_offered: Some(1),
            fact_check: Some(true),
            multimodal: Some(true),
            embedding: Some(vec![1.0]),
            embedding_model: Some("m".into()),
            warm_model: Some("w".into()),
            warm_tokens: Some(1),
            failures: Some(1),
            failed_last: Some(true),
            tool_calls: Some(1),
        };
        let json = serde_json::to_value(&full).unwrap();
        assert_eq!(json.as_object().unwrap().len(), CONTEXT.len());
        assert_eq!(wrong_field("", json.as_object().unwrap(), CONTEXT), None);
    }
}
