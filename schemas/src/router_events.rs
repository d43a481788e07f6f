//! `router_events`: what a router says of a request line by line, before anybody joined it.

use std::collections::BTreeMap;

use crate::contract::contract;
use crate::units::{EventTimeMs, Tokens, Usd};

contract! {
    /// One log line of a router about one request. Several lines, in any order and any number, make up a request; they
    /// are stored as they come, so that a crash between two of them loses neither, and the view `router_requests`
    /// joins them by `request_id`.
    RouterEvent = "router_events", time = "event_ms",
    pseudonymised = ["session_id", "chain_id"], text = [];
    required {
        request_id: String = Text, "id", "The router's id of the request that the line is about.";
        event_ms: EventTimeMs = Int64, "ms since the Unix epoch", "When the line was written.";
        kind: String = Text, "one of: routing_decision, llm_usage, router_replay_start, router_replay_complete", "What the line says.";
    }
    optional {
        router: String = Text, "name", "Router that wrote the line.";
        tenant: String = Text, "name", "Who pays.";
        replay_id: String = Text, "id", "Id of the router's own record of the request.";
        session_id: String = Text, "id, pseudonym in the table", "Conversation or agent run that the request belongs to.";
        chain_id: String = Text, "id, pseudonym in the table", "Id of the response that the request continues.";
        turn: i32 = Int32, "count from 0", "Position of the request in its session.";
        reason_code: String = Text, "name", "Why the router chose as it did.";
        requested_model: String = Text, "name", "Model that the client asked for.";
        model: String = Text, "name", "Model that was chosen, or that answered.";
        decision: String = Text, "name", "Router rule or decision that matched.";
        domain: String = Text, "name", "Subject that the router's classifier found.";
        selection_method: String = Text, "name", "How the model was selected.";
        confidence: f64 = Float64, "0..1", "Confidence of the decision.";
        reasoning_mode: String = Text, "on, off", "Reasoning mode.";
        reasoning_effort: String = Text, "low, medium, high", "Reasoning effort asked for.";
        routing_latency_ms: f64 = Float64, "ms", "Time that routing took.";
        completion_latency_ms: f64 = Float64, "ms", "Time that the model took.";
        end_to_end_ms: f64 = Float64, "ms", "From the start of the router's record to the last token.";
        prompt_tokens: Tokens = Int32, "tokens", "Prompt tokens, cached ones included.";
        cached_prompt_tokens: Tokens = Int32, "tokens", "Prompt tokens served from the prefix cache.";
        completion_tokens: Tokens = Int32, "tokens", "Generated tokens, reasoning included.";
        cost_usd: Usd = Float64, "USD", "What the call cost.";
        semantic_cache_hit: bool = Bool, "flag", "Answered from the semantic cache.";
        streaming: bool = Bool, "flag", "The answer was streamed.";
        http_status: i32 = Int32, "HTTP status", "Status returned to the client.";
        lifecycle_state: String = Text, "name", "Where the router's record stands in its life.";
        terminal_reason: String = Text, "name", "Why the request ended.";
        recorded_ms: EventTimeMs = Int64, "ms since the Unix epoch", "When the router's record was made.";
        ended_ms: EventTimeMs = Int64, "ms since the Unix epoch", "When the request ended.";
        axes: BTreeMap<String, String> = TextMap, "name to class", "Classification axes, signals that matched among them.";
        tools_called: Vec<String> = TextList, "names", "Tools that the model called.";
        safety_score: f64 = Float64, "0..1", "Confidence that the request is unsafe.";
        pii_detected: bool = Bool, "flag", "Personal data was found in the request.";
        hallucination_detected: bool = Bool, "flag", "The router's check found a hallucination; false also means never looked.";
        hallucination_confidence: f64 = Float64, "0..1", "Confidence of that check.";
        extra: BTreeMap<String, String> = TextMap, "JSON text, headers as they are", "Unknown fields and headers (`header.NAME`) whose names the operator allowed.";
    }
}
