//! One decision: a pure function of the cascade, the gate, the request and the pools, but for the gate's own memory.

use super::gate::{EscalationGate, Load, PoolState};
use super::{Cascade, Fallback};

/// A request whose cheap answer is there.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CascadeRequest {
    /// [`AcceptModel::score`](super::AcceptModel::score). One that is no number is not trusted.
    pub accept_score: f64,
    /// What is left of the budget for the first token, ms: the objective less what the cheap answer took.
    pub ttft_budget_left_ms: f64,
    /// Tokens of the prompt that the strong model would have to read, those in its cache left out.
    pub prompt_tokens: Option<u32>,
    /// How many of them compression would take away.
    pub compressible_tokens: Option<u32>,
    /// How likely the model in between is good enough.
    pub mid_accept_score: Option<f64>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CascadeAction {
    /// Serve the cheap answer.
    ServeCheap,
    /// Ask the strong model.
    Escalate,
    /// Compress the prompt, then ask the strong model.
    CompressAndRetry,
    /// Ask the model in between.
    MidTier,
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CascadeReason {
    /// The score is at or above the threshold.
    Accepted,
    /// Not accepted, and the strong pool can give the first token in time.
    InTime,
    /// Not accepted, and nobody knows how long the strong pool takes: unknown is not slow.
    TimeUnknown,
    /// Not accepted; the strong pool is late by its queue alone, and not for long yet.
    WithinGrace,
    /// The strong pool has been overloaded for longer than the grace period, or has not been fine for long enough since.
    PoolOverloaded,
    /// The strong pool goes on, but this request's first token would come too late.
    BudgetTooShort,
}

impl CascadeReason {
    /// Its name in logs and counters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::InTime => "in_time",
            Self::TimeUnknown => "time_unknown",
            Self::WithinGrace => "within_grace",
            Self::PoolOverloaded => "pool_overloaded",
            Self::BudgetTooShort => "budget_too_short",
        }
    }
}

impl CascadeAction {
    /// Its name in logs and counters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ServeCheap => "serve_cheap",
            Self::Escalate => "escalate",
            Self::CompressAndRetry => "compress_and_retry",
            Self::MidTier => "mid_tier",
        }
    }
}

/// What to do, and why. For a fallback the reason says why there was no escalation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CascadeDecision {
    /// What to do.
    pub action: CascadeAction,
    /// Why.
    pub reason: CascadeReason,
}

impl Cascade {
    /// Decides, and lets the gate take note of the strong pool. Allocates nothing.
    ///
    /// `now_ms` is the caller's clock, the one of [`PoolState::as_of_ms`]. A cascade without a threshold accepts no cheap answer.
    pub fn decide(
        &self,
        gate: &mut EscalationGate,
        request: &CascadeRequest,
        strong: &PoolState,
        mid: Option<&PoolState>,
        now_ms: i64,
    ) -> CascadeDecision {
        gate.observe(&self.limits, strong, now_ms);
        let decided = |action, reason| CascadeDecision { action, reason };
        if self.threshold.is_some_and(|threshold| request.accept_score >= threshold) {
            return decided(CascadeAction::ServeCheap, CascadeReason::Accepted);
        }
        let strong = strong.at(now_ms, &self.limits);
        let held_back = match gate.is_open() {
            false => CascadeReason::PoolOverloaded,
            true => match self.timeliness(request, &strong) {
                CascadeReason::BudgetTooShort => CascadeReason::BudgetTooShort,
                why => return decided(CascadeAction::Escalate, why),
            },
        };
        decided(self.fallback(request, &strong, mid, now_ms), held_back)
    }

    /// Would the first token of an escalation come in time, and how do we know?
    fn timeliness(&self, request: &CascadeRequest, strong: &PoolState) -> CascadeReason {
        let in_time = |ttft_ms: f64| ttft_ms <= request.ttft_budget_left_ms;
        let unqueued = request.prompt_tokens.and_then(|tokens| strong.unqueued_ttft_ms(tokens));
        // Where a part is unknown, what is known is a lower bound of the whole.
        let unqueued_ms = unqueued.unwrap_or(0.0);
        if in_time(unqueued_ms + strong.queue_wait_ms.unwrap_or(0.0)) {
            let is_known = unqueued.is_some() && strong.queue_wait_ms.is_some();
            return if is_known { CascadeReason::InTime } else { CascadeReason::TimeUnknown };
        }
        let late_by_overload = in_time(unqueued_ms) && self.limits.load(strong) == Load::Over;
        if late_by_overload { CascadeReason::WithinGrace } else { CascadeReason::BudgetTooShort }
    }

    /// The first fallback whose conditions hold; the cheap answer has none.
    fn fallback(
        &self,
        request: &CascadeRequest,
        strong: &PoolState,
        mid: Option<&PoolState>,
        now_ms: i64,
    ) -> CascadeAction {
        let possible = |fallback: &&Fallback| match fallback {
            Fallback::ServeCheap => true,
            Fallback::CompressAndRetry => compressed_in_time(request, strong),
            Fallback::MidTier => self.mid_tier_takes(request, mid, now_ms),
        };
        match self.fallbacks.iter().find(possible) {
            Some(Fallback::CompressAndRetry) => CascadeAction::CompressAndRetry,
            Some(Fallback::MidTier) => CascadeAction::MidTier,
            Some(Fallback::ServeCheap) | None => CascadeAction::ServeCheap,
        }
    }

    fn mid_tier_takes(&self, request: &CascadeRequest, mid: Option<&PoolState>, now_ms: i64) -> bool {
        let (Some(tier), Some(pool)) = (&self.mid_tier, mid) else { return false };
        let pool = pool.at(now_ms, &tier.limits);
        let has_headroom = matches!(tier.limits.load(&pool), Load::Fine | Load::Between);
        let ttft_ms = request.prompt_tokens.and_then(|tokens| pool.expected_ttft_ms(tokens));
        let accepted = request.mid_accept_score.is_some_and(|score| score >= tier.threshold);
        accepted && has_headroom && ttft_ms.is_some_and(|ttft_ms| ttft_ms <= request.ttft_budget_left_ms)
    }
}

/// A retry needs a shorter prompt, and to know that the first token then comes in time.
fn compressed_in_time(request: &CascadeRequest, strong: &PoolState) -> bool {
    let (Some(tokens), Some(removed)) = (request.prompt_tokens, request.compressible_tokens) else { return false };
    let ttft_ms = strong.expected_ttft_ms(tokens.saturating_sub(removed));
    removed > 0 && ttft_ms.is_some_and(|ttft_ms| ttft_ms <= request.ttft_budget_left_ms)
}
