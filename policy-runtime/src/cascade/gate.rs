//! Is the strong pool worth escalating to? A state with a grace period on the way out, and a longer look on the way back.

use serde::{Deserialize, Serialize};

/// A pool as it is now. The names are those of the view `pool_state`, which has them by window; a router that measures them itself may
/// give fresher ones. Missing is unknown, never slow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolState {
    /// When it was so, ms of the caller's clock.
    pub as_of_ms: i64,
    /// Requests that wait in its engines, each instance on average: `engine_waiting_max` where engines are scraped.
    pub engine_waiting: Option<f64>,
    /// Expected wait before an engine takes a request up, ms.
    pub queue_wait_ms: Option<f64>,
    /// What comes before the first token at any length, ms.
    pub ttft_base_ms: Option<f64>,
    /// Prompt tokens that an instance reads per second.
    pub prefill_tokens_per_s: Option<f64>,
}

impl PoolState {
    /// Expected time to the first token of a prompt: wait, base and prefill, ms. `None` where a part of it is unknown.
    #[must_use]
    pub fn expected_ttft_ms(&self, prompt_tokens: u32) -> Option<f64> {
        self.queue_wait_ms.zip(self.unqueued_ttft_ms(prompt_tokens)).map(|(wait, unqueued)| wait + unqueued)
    }

    /// The same, were there nobody before it.
    pub(super) fn unqueued_ttft_ms(&self, prompt_tokens: u32) -> Option<f64> {
        let per_token = self.prefill_tokens_per_s.filter(|rate| *rate > 0.0).map(|rate| 1e3 / rate);
        self.ttft_base_ms.zip(per_token).map(|(base, per_token)| base + per_token * f64::from(prompt_tokens))
    }

    /// It, or a pool of which nothing is known, where it is too old or holds a number that cannot be. What is as far ahead of the clock
    /// is no better: one of the two clocks is wrong, and such a state would never grow old.
    pub(super) fn at(self, now_ms: i64, limits: &PoolLimits) -> Self {
        let unknown = Self { as_of_ms: self.as_of_ms, ..Self::default() };
        if now_ms.abs_diff(self.as_of_ms) > limits.stale_after_ms.unsigned_abs() {
            return unknown;
        }
        let sound = |value: Option<f64>| value.filter(|value| value.is_finite() && *value >= 0.0);
        Self {
            as_of_ms: self.as_of_ms,
            engine_waiting: sound(self.engine_waiting),
            queue_wait_ms: sound(self.queue_wait_ms),
            ttft_base_ms: sound(self.ttft_base_ms),
            prefill_tokens_per_s: sound(self.prefill_tokens_per_s),
        }
    }
}

/// When a pool counts as overloaded, and for how long it has to be so, or fine again, before anything changes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolLimits {
    /// More waiting requests than this, each instance, are an overload.
    pub engine_waiting_max: f64,
    /// It is fine again at this many or fewer; at most `engine_waiting_max`.
    pub engine_waiting_resume: f64,
    /// A longer wait than this is an overload, ms.
    pub queue_wait_ms_max: f64,
    /// It is fine again at this wait or less, ms; at most `queue_wait_ms_max`.
    pub queue_wait_ms_resume: f64,
    /// An overload that lasts less than this does not stop escalation, ms.
    pub grace_ms: i64,
    /// After a stop the pool has to be fine, or nothing known of it, for so long before escalation starts again, ms.
    pub recovery_ms: i64,
    /// What is older than this, or as far ahead of the clock, says nothing, ms.
    pub stale_after_ms: i64,
}

/// How a pool stands against its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// At or under the level at which it may resume.
    Fine,
    /// Between that and the limit.
    Between,
    /// Over a limit.
    Over,
    /// Nothing is known.
    Unknown,
}

impl PoolLimits {
    pub(super) fn load(&self, pool: &PoolState) -> Load {
        let measured = [
            (pool.engine_waiting, self.engine_waiting_max, self.engine_waiting_resume),
            (pool.queue_wait_ms, self.queue_wait_ms_max, self.queue_wait_ms_resume),
        ];
        let mut load = Load::Unknown;
        for (value, max, resume) in measured {
            let Some(value) = value else { continue };
            if value > max {
                return Load::Over;
            }
            load = if value > resume || load == Load::Between { Load::Between } else { Load::Fine };
        }
        load
    }

    pub(super) fn problem(&self) -> Option<&'static str> {
        let ordered = |resume: f64, max: f64| resume.is_finite() && max.is_finite() && 0.0 <= resume && resume <= max;
        if !ordered(self.engine_waiting_resume, self.engine_waiting_max)
            || !ordered(self.queue_wait_ms_resume, self.queue_wait_ms_max)
        {
            return Some("limits must be finite, zero or above, and each resume level at most its max");
        }
        if self.grace_ms < 0 || self.recovery_ms < 0 || self.stale_after_ms < 0 {
            return Some("grace_ms, recovery_ms and stale_after_ms must be zero or above");
        }
        None
    }
}

/// Whether escalation goes on: one for each strong pool, kept by the caller from request to request.
///
/// ```text
/// open ---- over a limit for grace_ms on end ----> closed
/// closed -- at or under the resume levels for recovery_ms on end --> open
/// closed -- nothing known for recovery_ms on end --> open
/// ```
///
/// A period survives a gap in what is known of up to `stale_after_ms`; after a longer one it starts again, since nobody saw the pool in
/// between. Unknown is not slow: a pool that nobody measures any more does not stay closed for ever. A clock that steps back starts
/// periods again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EscalationGate {
    is_open: bool,
    /// Since when the pool has looked like the other state.
    since_ms: Option<i64>,
    /// When something was known of the pool last.
    known_ms: Option<i64>,
}

impl Default for EscalationGate {
    fn default() -> Self {
        Self { is_open: true, since_ms: None, known_ms: None }
    }
}

impl EscalationGate {
    /// Does escalation go on?
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Takes note of the pool. To be called with every request, or more often.
    pub fn observe(&mut self, limits: &PoolLimits, pool: &PoolState, now_ms: i64) {
        let load = limits.load(&pool.at(now_ms, limits));
        let known_ms = self.known_ms.filter(|known| *known <= now_ms).unwrap_or(now_ms);
        let gap_ms = now_ms.saturating_sub(known_ms);
        if load == Load::Unknown {
            self.known_ms = Some(known_ms);
            if !self.is_open && gap_ms >= limits.recovery_ms {
                (self.is_open, self.since_ms) = (true, None);
            }
            return;
        }
        self.known_ms = Some(now_ms);
        if gap_ms > limits.stale_after_ms {
            self.since_ms = None;
        }
        let (contrary, period_ms) =
            if self.is_open { (load == Load::Over, limits.grace_ms) } else { (load == Load::Fine, limits.recovery_ms) };
        if !contrary {
            self.since_ms = None;
            return;
        }
        let since_ms = self.since_ms.filter(|since| *since <= now_ms).unwrap_or(now_ms);
        self.since_ms = Some(since_ms);
        if now_ms.saturating_sub(since_ms) >= period_ms {
            (self.is_open, self.since_ms) = (!self.is_open, None);
        }
    }
}
