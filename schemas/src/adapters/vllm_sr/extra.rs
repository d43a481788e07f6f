//! What the router says and our contracts have no column for: its numbers, flags and code words, never text.

use std::collections::BTreeMap;

use serde_json::Value;

use super::AdaptError;
use super::object::Object;
use super::request::is_code_word;

/// Every key that the adapter writes into `extra`, of requests and of feedback. Values are JSON text.
pub const EXTRA_KEYS: [&str; 26] = [
    "vllm_sr.actual_cost",
    "vllm_sr.baseline_cost",
    "vllm_sr.baseline_model",
    "vllm_sr.cache_hit_kind",
    "vllm_sr.cache_source",
    "vllm_sr.cache_write_tokens",
    "vllm_sr.confidence_score",
    "vllm_sr.context_token_count",
    "vllm_sr.cost_savings",
    "vllm_sr.currency",
    "vllm_sr.decision_tier",
    "vllm_sr.prompt_truncated",
    "vllm_sr.rag_context_length",
    "vllm_sr.rag_enabled",
    "vllm_sr.rag_similarity_score",
    "vllm_sr.recipe",
    "vllm_sr.request_body_truncated",
    "vllm_sr.request_id",
    "vllm_sr.response_body_truncated",
    "vllm_sr.sampling_seed",
    "vllm_sr.sampling_used",
    "vllm_sr.score",
    "vllm_sr.selection_method",
    "vllm_sr.streaming",
    "vllm_sr.target",
    "vllm_sr.tokens_of_several_calls",
];

/// Selection methods that call models themselves, several times for one request. The router makes the record when all
/// of them have answered, and its tokens and cost are sums over the calls.
const LOOPERS: [&str; 5] = ["confidence", "fusion", "ratings", "remom", "workflows"];

pub(super) fn is_looper(record: Object<'_>, diagnostics: Option<Object<'_>>) -> Result<bool, AdaptError> {
    // PostgreSQL's rows have the method in the diagnostics only.
    let method = match (record.text("selection_method")?, diagnostics) {
        (Some(method), _) => Some(method),
        (None, Some(diagnostics)) => diagnostics.text("selection_method")?,
        (None, None) => None,
    };
    Ok(method.is_some_and(|method| LOOPERS.contains(&method)))
}

pub(super) fn of_request(record: Object<'_>, looped: bool) -> Result<Option<BTreeMap<String, String>>, AdaptError> {
    let mut extra = Extra::default();
    for name in
        ["request_id", "recipe", "selection_method", "cache_hit_kind", "cache_source", "baseline_model", "currency"]
    {
        extra.keep(name, record.text(name)?.filter(|word| is_code_word(word)));
    }
    for name in ["actual_cost", "baseline_cost", "cost_savings", "confidence_score", "rag_similarity_score"] {
        extra.keep(name, record.number(name)?);
    }
    for name in ["cache_write_tokens", "context_token_count", "rag_context_length", "decision_tier"] {
        extra.keep(name, record.integer(name)?);
    }
    for name in ["streaming", "rag_enabled", "prompt_truncated", "request_body_truncated", "response_body_truncated"] {
        extra.keep(name, record.flag(name)?.then_some(true));
    }
    extra.keep("tokens_of_several_calls", looped.then_some(true));
    if let Some(learning) = record.object("learning")?
        && let Some(adaptation) = learning.object("adaptation")?
        && let Some(sampling) = adaptation.object("sampling")?
    {
        extra.keep("sampling_used", Some(sampling.flag("used")?));
        extra.keep("sampling_seed", sampling.integer("seed")?);
    }
    Ok(extra.into_map())
}

/// What an outcome says besides its verdict: `target` is a code word.
pub(super) fn of_outcome(target: &str, score: Option<f64>) -> Option<BTreeMap<String, String>> {
    let mut extra = Extra::default();
    extra.keep("target", Some(target));
    extra.keep("score", score);
    extra.into_map()
}

#[derive(Default)]
struct Extra(BTreeMap<String, String>);

impl Extra {
    fn keep(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(format!("vllm_sr.{name}"), value.into().to_string());
        }
    }

    fn into_map(self) -> Option<BTreeMap<String, String>> {
        (!self.0.is_empty()).then_some(self.0)
    }
}
