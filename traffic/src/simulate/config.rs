//! What to simulate.

use std::str::FromStr;

use weir_policy_runtime::Objective;

use super::safety::SafetyConfig;
use crate::TrafficError;
use crate::hash::stable_hash;

/// Kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// People talking: a few turns, tens of seconds apart.
    Chat,
    /// Questions over retrieved passages: long prompts, short answers, facts to check.
    Rag,
    /// Agents: many turns within seconds, tools, growing context.
    Agent,
    /// Half chat, a quarter each of the others (by sessions).
    Mixed,
}

impl FromStr for Profile {
    type Err = TrafficError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "chat" => Ok(Self::Chat),
            "rag" => Ok(Self::Rag),
            "agent" => Ok(Self::Agent),
            "mixed" => Ok(Self::Mixed),
            _ => Err(setting("profile", text, "choose chat, rag, agent or mixed")),
        }
    }
}

/// How the models differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorldKind {
    /// Models differ in price and in what they are good at: a good policy gains.
    Gain,
    /// Every model has the same expected utility for every request: no policy can gain or lose.
    NoGain,
}

impl FromStr for WorldKind {
    type Err = TrafficError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "gain" => Ok(Self::Gain),
            "no-gain" => Ok(Self::NoGain),
            _ => Err(setting("world", text, "choose gain or no-gain")),
        }
    }
}

/// Bursts of session starts: a two-state Markov-modulated Poisson process whose mean rate is the configured one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bursts {
    /// Rate in a burst, as a multiple of the mean rate.
    pub factor: f64,
    /// Mean length of a calm spell, ms.
    pub calm_ms: f64,
    /// Mean length of a burst, ms.
    pub burst_ms: f64,
}

/// What comes back about answers, and how it gets lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeedbackConfig {
    /// Share of requests that somebody judges, whatever the model and however good the answer.
    pub request_share: f64,
    /// Share of sessions that are judged as a whole.
    pub session_share: f64,
    /// Mean of the exponential delay after the answer, ms.
    pub delay_ms: f64,
    /// Share of opinions that never arrive.
    pub lost: f64,
    /// Share of arriving opinions that arrive twice.
    pub duplicated: f64,
}

/// What to simulate. [`SimConfig::default`] is a small mixed fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct SimConfig {
    /// Everything is a function of it.
    pub seed: u64,
    /// Kind of traffic.
    pub profile: Profile,
    /// How the models differ.
    pub world: WorldKind,
    /// Mean rate over a day. Sessions start at the rate that gives it, so it is reached once sessions overlap.
    pub requests_per_s: f64,
    /// First moment, ms since the Unix epoch.
    pub start_ms: i64,
    /// No request arrives later than this after the start, ms. What was sent off by then is still answered, judged and
    /// emitted.
    pub duration_ms: i64,
    /// Relative height of the daily cycle, 0 to 1: the rate is mean x (1 + amplitude x cos), highest at 14:00 UTC.
    pub daily_amplitude: f64,
    /// Bursts on top of it.
    pub bursts: Bursts,
    /// Feedback.
    pub feedback: FeedbackConfig,
    /// Share of calls that the intended model cannot take and its fallback answers.
    pub fallback_share: f64,
    /// Share of calls that fail.
    pub error_share: f64,
    /// Time between two samples of an engine, ms.
    pub gpu_sample_ms: i64,
    /// Share of retrieval requests that carry prompt, context and response text.
    pub text_share: f64,
    /// Share of answers with text that state something their context does not.
    pub unsupported_share: f64,
    /// Unsafe sessions and their review.
    pub safety: SafetyConfig,
    /// What utility means, for the truth beside the events.
    pub objective: Objective,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            profile: Profile::Mixed,
            world: WorldKind::Gain,
            requests_per_s: 10.0,
            // 2026-01-05T10:00:00Z, a Monday morning.
            start_ms: 1_767_607_200_000,
            duration_ms: 600_000,
            daily_amplitude: 0.5,
            bursts: Bursts { factor: 3.0, calm_ms: 120_000.0, burst_ms: 10_000.0 },
            feedback: FeedbackConfig {
                request_share: 0.5,
                session_share: 0.1,
                delay_ms: 20_000.0,
                lost: 0.05,
                duplicated: 0.03,
            },
            fallback_share: 0.02,
            error_share: 0.01,
            gpu_sample_ms: 10_000,
            text_share: 1.0,
            unsupported_share: 0.25,
            safety: SafetyConfig { unsafe_share: 0.03, review_share: 0.1 },
            objective: Objective { quality: 1.0, usd: 15.0 },
        }
    }
}

impl SimConfig {
    /// Latest start: 2100-01-01T00:00:00Z. With [`SimConfig::DURATION_MS_MAX`] every sum of times fits its integer.
    pub const START_MS_MAX: i64 = 4_102_444_800_000;
    /// Longest run: ten years.
    pub const DURATION_MS_MAX: i64 = 3_650 * 86_400_000;

    /// What tells the ids of this run from those of another configuration with the same seed. A longer run is the same
    /// run gone on, and the objective touches no event, so neither counts.
    pub(super) fn fingerprint(&self) -> u32 {
        let same = Self { duration_ms: 0, objective: Objective { quality: 0.0, usd: 0.0 }, ..self.clone() };
        (stable_hash(&[b"configuration", format!("{same:?}").as_bytes()]) >> 32) as u32
    }

    pub(super) fn check(&self) -> Result<(), TrafficError> {
        let share = "give a share from 0 to 1";
        for (name, value) in [
            ("daily_amplitude", self.daily_amplitude),
            ("feedback.request_share", self.feedback.request_share),
            ("feedback.session_share", self.feedback.session_share),
            ("feedback.lost", self.feedback.lost),
            ("feedback.duplicated", self.feedback.duplicated),
            ("fallback_share", self.fallback_share),
            ("error_share", self.error_share),
            ("text_share", self.text_share),
            ("unsupported_share", self.unsupported_share),
            ("safety.unsafe_share", self.safety.unsafe_share),
            ("safety.review_share", self.safety.review_share),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(setting(name, value, share));
            }
        }
        let positive = |value: f64| value > 0.0 && value.is_finite();
        if !positive(self.requests_per_s) || self.requests_per_s > REQUESTS_PER_S_MAX {
            return Err(setting("requests_per_s", self.requests_per_s, "give a rate above 0 and up to 100000"));
        }
        if !(1..=SimConfig::DURATION_MS_MAX).contains(&self.duration_ms) {
            return Err(setting("duration_ms", self.duration_ms, "give a time above 0 and up to ten years"));
        }
        if !(1..=SimConfig::DURATION_MS_MAX).contains(&self.gpu_sample_ms) {
            return Err(setting("gpu_sample_ms", self.gpu_sample_ms, "give a time above 0 and up to ten years"));
        }
        if !(0..=SimConfig::START_MS_MAX).contains(&self.start_ms) {
            return Err(setting(
                "start_ms",
                self.start_ms,
                "give a moment from 1970 to 2100, in ms since the Unix epoch",
            ));
        }
        if !positive(self.feedback.delay_ms) {
            return Err(setting("feedback.delay_ms", self.feedback.delay_ms, "give a time above 0"));
        }
        let Bursts { factor, calm_ms, burst_ms } = self.bursts;
        let shapes = positive(factor) && positive(calm_ms) && positive(burst_ms);
        if !shapes || factor * burst_ms > calm_ms + burst_ms {
            return Err(setting(
                "bursts",
                format!("{:?}", self.bursts),
                "keep factor x burst_ms below calm_ms + burst_ms, else calm spells need a rate below 0",
            ));
        }
        Ok(())
    }
}

/// Above this a run no longer fits one process.
const REQUESTS_PER_S_MAX: f64 = 100_000.0;

fn setting(setting: &'static str, value: impl ToString, mend: &'static str) -> TrafficError {
    TrafficError::Setting { setting, value: value.to_string(), mend }
}
