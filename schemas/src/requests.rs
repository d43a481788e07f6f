//! `requests`: one message per finished model call.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::contract::contract;
use crate::units::{EventTimeMs, Propensity, Tokens, Usd};

/// One tool call made by the model in this request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolCall {
    /// Name of the tool.
    pub name: String,
    /// Did it succeed? Null when the router did not see the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
    /// Class of its error, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_class: Option<String>,
    /// From call to result, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
}

/// One model that the router could have chosen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Candidate {
    /// Name of the model.
    pub model: String,
    /// The router's score for it, in the router's own scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Probability with which it would have been chosen, 0..1; 0 says that it could not have been. The intended
    /// model's is the request's `propensity`, and all together are at most 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propensity: Option<f64>,
}

contract! {
    /// One finished model call. A source that corrects a record sends the same `request_id` with a higher
    /// `revision`.
    Request = "requests", time = "arrival_ms",
    pseudonymised = ["session_id", "caller", "chain_id"], text = ["prompt_text", "context_text", "response_text"];
    required {
        request_id: String = Text, "id", "The router's id of this model call.";
        arrival_ms: EventTimeMs = Int64, "ms since the Unix epoch", "When the request reached the router.";
    }
    optional {
        revision: i32 = Int32, "count", "Higher revisions of a request id replace lower ones; null is 0.";
        terminal: bool = Bool, "flag", "False while the call is still running; null counts as true.";
        session_id: String = Text, "id, pseudonym in the table", "Conversation or agent run that the call belongs to.";
        turn: i32 = Int32, "count from 0", "Position of the call in its session.";
        parent_request_id: String = Text, "id", "The call that led to this one (retry, cascade step, tool loop).";
        delegation_parent_id: String = Text, "id", "The agent call that delegated to this one.";
        tenant: String = Text, "name", "Who pays; the unit of keys, opt-ins and budgets.";
        caller: String = Text, "id, pseudonym in the table", "End user or service account.";
        role: String = Text, "name", "Caller's role claim.";
        scopes: Vec<String> = TextList, "names", "Scopes granted to the caller.";
        gateway_tags: BTreeMap<String, String> = TextMap, "text", "Tags that the gateway attached.";
        router: String = Text, "name", "Router that handled the call.";
        policy_version: String = Text, "id", "Policy in force when the model was chosen.";
        ttft_ms: f64 = Float64, "ms", "Time to first token, from arrival.";
        tpot_ms: f64 = Float64, "ms per token", "Mean time per output token after the first.";
        end_to_end_ms: f64 = Float64, "ms", "From arrival to the last token.";
        queue_ms: f64 = Float64, "ms", "Time spent waiting for an engine.";
        api: String = Text, "chat_completions, responses, messages, ...", "API family of the call.";
        message_count: i32 = Int32, "count", "Messages in the request.";
        tools_offered: Vec<String> = TextList, "names", "Tools that the request offers.";
        tools_called: Vec<ToolCall> = ToolCalls, "calls; latency in ms", "Tools that the model called, with outcome.";
        system_prompt_hash: String = Text, "hash", "Fingerprint of the system prompt.";
        chain_id: String = Text, "id, pseudonym in the table", "Id of the response that the call continues; null on a first turn.";
        modalities: Vec<String> = TextList, "text, image, audio, video", "Kinds of content in the request.";
        domain: String = Text, "name", "Subject that the router's classifier found.";
        complexity: String = Text, "name", "Complexity class that the router found.";
        language: String = Text, "BCP 47", "Language of the request.";
        axes: BTreeMap<String, String> = TextMap, "name to class", "Further classification axes (SIRP).";
        fact_check: bool = Bool, "flag", "The request seeks facts that can be checked.";
        safety_score: f64 = Float64, "0..1", "Confidence that the request is unsafe.";
        hazard_scores: BTreeMap<String, f64> = NumberMap, "category to 0..1", "Confidence per hazard category.";
        embedding: Vec<f32> = Float32List, "vector", "Embedding of the request, if the router logs one.";
        embedding_model: String = Text, "name", "Model that made the embedding.";
        requested_model: String = Text, "name", "Model that the client asked for (auto, or a name).";
        decision: String = Text, "name", "Router rule or decision that matched.";
        candidates: Vec<Candidate> = Candidates, "models; scores; 0..1", "Models that could have been chosen.";
        intended_model: String = Text, "name", "Model that the policy chose.";
        propensity: Propensity = Float64, "(0, 1]", "Probability with which the intended model was chosen.";
        executed_model: String = Text, "name", "Model that answered; differs after a fallback.";
        attempt: i32 = Int32, "count from 1", "Attempt number of this call.";
        fallback_reason: String = Text, "name", "Why the executed model is not the intended one.";
        provider: String = Text, "name", "Provider that served the call.";
        reasoning_mode: String = Text, "on, off", "Reasoning mode.";
        reasoning_effort: String = Text, "low, medium, high", "Reasoning effort asked for.";
        pool: String = Text, "name", "GPU pool that served the call.";
        instance: String = Text, "name", "Engine instance that served the call.";
        cascade_step: i32 = Int32, "count from 0", "Step of a cascade.";
        prompt_tokens: Tokens = Int32, "tokens", "Prompt tokens, cached ones included.";
        cached_prompt_tokens: Tokens = Int32, "tokens", "Prompt tokens served from the prefix cache.";
        completion_tokens: Tokens = Int32, "tokens", "Generated tokens, reasoning included.";
        reasoning_tokens: Tokens = Int32, "tokens", "Generated tokens spent on reasoning.";
        prompt_tokens_before_compression: Tokens = Int32, "tokens", "Prompt tokens before the router compressed the prompt.";
        prefix_block_hashes: Vec<i64> = Int64List, "hashes", "Hashes of the prompt's prefix blocks, in order.";
        http_status: i32 = Int32, "HTTP status", "Status returned to the client.";
        error_class: String = Text, "name", "Class of the error; null when the call succeeded.";
        finish_reason: String = Text, "stop, length, tool_calls, ...", "Why generation ended.";
        semantic_cache_hit: bool = Bool, "flag", "Answered from the semantic cache.";
        semantic_cache_similarity: f64 = Float64, "0..1", "Similarity of the cached request.";
        cost_usd: Usd = Float64, "USD", "What the call cost.";
        energy_joules: f64 = Float64, "J", "Energy spent on the call.";
        prompt_text: String = Text, "text, personal data", "Prompt. Dropped at the door unless text is kept.";
        context_text: String = Text, "text, personal data", "Grounding context. Dropped at the door unless text is kept.";
        response_text: String = Text, "text, personal data", "Response. Dropped at the door unless text is kept.";
        extra: BTreeMap<String, String> = TextMap, "JSON text, headers as they are", "Unknown fields and headers (`header.NAME`) whose names the operator allowed.";
    }
}
