//! `POST /v1/cascade`: the cheap answer is there; will it do, and if not, may the strong pool be asked?
//!
//! The router says what it knows of the request, the answer and the pools; the bundle's `cascade.json` says what follows. Only the gate
//! on the strong pool has a memory: whether it was overloaded, and since when. It starts open, and anew with another policy.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use weir_policy_runtime::{Answer, CascadeAction, CascadeRequest, EscalationGate, OwnedContext, PolicyId, PoolState};

use crate::policy_client::Loaded;

/// What the router asks. Prompts end up in wrong fields, so refusals name none of the values.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CascadeAsk {
    #[serde(default)]
    context: OwnedContext,
    #[serde(default)]
    answer: Answer,
    /// What is left of the time to the first token, ms.
    ttft_budget_left_ms: f64,
    /// Tokens that the strong model would have to read, those in its cache left out; the context's when left out.
    prompt_tokens: Option<u32>,
    /// How many of them compression would take away.
    compressible_tokens: Option<u32>,
    /// How likely the model in between is good enough.
    mid_accept_score: Option<f64>,
    /// Pools as the router sees them; what is left out is unknown, and unknown is not slow.
    #[serde(default)]
    strong_pool: PoolState,
    mid_pool: Option<PoolState>,
}

impl CascadeAsk {
    /// # Errors
    /// One sentence that holds no value of the body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let ask: Self = serde_json::from_slice(body).map_err(|error| {
            format!(
                "the body is no question about a cascade (line {}, column {}): send ttft_budget_left_ms, and what is known under context, \
                 answer, prompt_tokens, compressible_tokens, mid_accept_score, strong_pool and mid_pool",
                error.line(),
                error.column()
            )
        })?;
        if !ask.ttft_budget_left_ms.is_finite() {
            return Err("ttft_budget_left_ms is not a number of milliseconds".to_owned());
        }
        Ok(ask)
    }
}

/// What to do.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct CascadeAnswered {
    policy_id: PolicyId,
    /// `serve_cheap`, `escalate`, `compress_and_retry` or `mid_tier`.
    action: &'static str,
    /// Why; for a fallback, why there was no escalation.
    reason: &'static str,
    /// The model whose answer is to be served.
    model: String,
    /// How likely the cheap answer is good enough.
    accept_score: f64,
}

/// The gate of the policy in force.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Option<(PolicyId, EscalationGate)>>);

impl Gate {
    /// Decides by the bundle's cascade; `None` where it brings none.
    pub(super) fn decide(&self, ask: &CascadeAsk, loaded: &Loaded, now_ms: i64) -> Option<CascadeAnswered> {
        let cascade = loaded.cascade.as_ref()?;
        let accept_score = cascade.accept.score(&ask.context.as_context(), &ask.answer, &mut Vec::new());
        let request = CascadeRequest {
            accept_score,
            ttft_budget_left_ms: ask.ttft_budget_left_ms,
            prompt_tokens: ask.prompt_tokens.or(ask.context.prompt_tokens),
            compressible_tokens: ask.compressible_tokens,
            mid_accept_score: ask.mid_accept_score,
        };
        // Pools without a time are as they are now.
        let timed =
            |pool: PoolState| PoolState { as_of_ms: if pool.as_of_ms == 0 { now_ms } else { pool.as_of_ms }, ..pool };
        let mut kept = self.0.lock().expect("no holder panics");
        let mut gate = kept.take().filter(|(id, _)| *id == loaded.id).map(|(_, gate)| gate).unwrap_or_default();
        let mid = ask.mid_pool.map(timed);
        let decision = cascade.decide(&mut gate, &request, &timed(ask.strong_pool), mid.as_ref(), now_ms);
        *kept = Some((loaded.id.clone(), gate));
        drop(kept);
        let model = match decision.action {
            CascadeAction::ServeCheap => &cascade.cheap_model,
            CascadeAction::Escalate | CascadeAction::CompressAndRetry => &cascade.strong_model,
            CascadeAction::MidTier => cascade.mid_tier.as_ref().map_or(&cascade.cheap_model, |tier| &tier.model),
        };
        let (action, reason) = (decision.action.name(), decision.reason.name());
        events::decided(action, reason);
        Some(CascadeAnswered { policy_id: loaded.id.clone(), action, reason, model: model.clone(), accept_score })
    }
}

/// Counters of cascades, together.
mod events {
    pub(super) fn decided(action: &'static str, reason: &'static str) {
        metrics::counter!("weir_decide_cascades_total", "action" => action, "reason" => reason).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_to_send_and_no_value() {
        for body in
            ["my secret", r#"{"context": "my secret"}"#, "{}", r#"{"ttft_budget_left_ms": 1, "prompt": "my secret"}"#]
        {
            let said = CascadeAsk::parse(body.as_bytes()).unwrap_err();
            assert!(said.contains("ttft_budget_left_ms") && !said.contains("secret"), "{said}");
        }
        assert!(CascadeAsk::parse(br#"{"ttft_budget_left_ms": 800, "strong_pool": {"queue_wait_ms": 20}}"#).is_ok());
    }
}
