//! Cascades: the cheap model answers first, and the strong one only where that answer is not trusted and the strong pool has time.
//!
//! **In:** what is known once the cheap answer is there, and the live state of the pools. **Out:** serve the cheap answer, escalate,
//! compress the prompt and retry, or take a middle model, and why ([`Cascade::decide`]).
//!
//! ```text
//! context + cheap answer --AcceptModel--> accept score --threshold--> trusted? --> serve cheap
//!                                                                       | no
//! pool state --EscalationGate--> open, and the first token in time? ----+--> escalate, or the operator's fallbacks in their order
//! ```
//!
//! The file `cascade.json` of a bundle holds all of it: signed, versioned and delivered with the policy. Time is the caller's: nothing
//! here reads a clock, and a decision allocates nothing.

mod accept;
mod decide;
mod gate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use accept::{AcceptModel, Answer, AnswerFeature, AnswerField, LOGISTIC_SHARE};
pub use decide::{CascadeAction, CascadeDecision, CascadeReason, CascadeRequest};
pub use gate::{EscalationGate, PoolLimits, PoolState};

use crate::bundle::{Bundle, canonical_json};
use crate::error::BundleError;
use crate::knobs::Support;

/// Version of the shape that this build writes, and the newest that it reads.
pub const CASCADE_SCHEMA: u32 = 1;
/// Where a bundle keeps its cascade.
pub const CASCADE_FILE: &str = "cascade.json";

/// `cascade.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cascade {
    /// Version of this shape: [`CASCADE_SCHEMA`].
    pub schema: u32,
    /// What each router does with it, by the router's name.
    pub routers: BTreeMap<String, Support>,
    /// The model that answers first.
    pub cheap_model: String,
    /// The model that is escalated to.
    pub strong_model: String,
    /// How likely the cheap answer is good enough.
    pub accept: AcceptModel,
    /// The least score at which the cheap answer is served; null where none was shown to be safe: then everything escalates.
    pub threshold: Option<f64>,
    /// What the threshold promises, and what that rests on.
    pub evidence: CascadeEvidence,
    /// When the strong pool counts as overloaded.
    pub limits: PoolLimits,
    /// A model in between, if there is one.
    pub mid_tier: Option<MidTier>,
    /// What to do where the strong pool has no time, in the order in which to try it. The cheap answer comes last, named or not.
    pub fallbacks: Vec<Fallback>,
}

/// What a threshold promises: `P(risk > alpha) <= delta` over what it was learned from. Risk and rate are means over clusters, sessions
/// as a rule, each counted once however many requests it has. Learners fill it in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CascadeEvidence {
    /// Which loss against always escalating.
    pub loss: String,
    /// The mean loss that is not to be passed, on average over sessions, each counted once, in units of quality.
    pub alpha: f64,
    /// Probability with which it may be passed all the same.
    pub delta: f64,
    /// Independent clusters that the threshold was tested on.
    pub clusters: u64,
    /// Mean loss there, on average over clusters; null without a threshold.
    pub risk: Option<f64>,
    /// Share of a session's requests that escalates there, on average over sessions, each counted once.
    pub escalation_rate: f64,
}

/// A model between the cheap and the strong one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MidTier {
    /// The model.
    pub model: String,
    /// The least score, in \[0, 1\], at which it is expected to be good enough.
    pub threshold: f64,
    /// When its pool counts as overloaded.
    pub limits: PoolLimits,
}

/// What to do in place of an escalation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// The cheap answer after all. Always possible.
    ServeCheap,
    /// The strong model with a shorter prompt, where that is known to bring the first token in time.
    CompressAndRetry,
    /// The model in between, where its own threshold accepts, and its pool is known to have headroom and time.
    MidTier,
}

impl Cascade {
    /// Reads and checks it.
    ///
    /// # Errors
    /// When it cannot be parsed, is of a newer schema, or holds a value that makes no sense.
    pub fn from_json(bytes: &[u8]) -> Result<Self, BundleError> {
        let cascade: Self =
            serde_json::from_slice(bytes).map_err(|error| BundleError::BadCascade { why: error.to_string() })?;
        match cascade.problem() {
            Some(why) => Err(BundleError::BadCascade { why }),
            None => Ok(cascade),
        }
    }

    /// Canonical JSON: the same cascade gives the same bytes.
    ///
    /// # Errors
    /// When it holds a value that makes no sense: nobody could read it back.
    pub fn to_json(&self) -> Result<Vec<u8>, BundleError> {
        let bad = |why| BundleError::BadCascade { why };
        if let Some(why) = self.problem() {
            return Err(bad(why));
        }
        serde_json::to_value(self).map(|value| canonical_json(&value)).map_err(|error| bad(error.to_string()))
    }

    /// The cascade of a bundle, if it brings one.
    ///
    /// # Errors
    /// As [`Cascade::from_json`].
    pub fn of_bundle(bundle: &Bundle) -> Result<Option<Self>, BundleError> {
        bundle.files.get(CASCADE_FILE).map(|bytes| Self::from_json(bytes)).transpose()
    }

    /// What makes no sense in it, if anything.
    fn problem(&self) -> Option<String> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        if self.schema == 0 || self.schema > CASCADE_SCHEMA {
            return Some(format!("it has schema {}, and this build reads up to {CASCADE_SCHEMA}", self.schema));
        }
        if self.threshold.is_some_and(|threshold| !share(threshold)) {
            return Some("threshold must lie in [0, 1]".to_owned());
        }
        let evidence = &self.evidence;
        if !share(evidence.alpha) || !share(evidence.delta) || !share(evidence.escalation_rate) {
            return Some("alpha, delta and escalation_rate must lie in [0, 1]".to_owned());
        }
        if evidence.risk.is_some_and(|risk| !risk.is_finite()) {
            return Some("evidence.risk must be a finite number".to_owned());
        }
        if self.mid_tier.as_ref().is_some_and(|tier| !share(tier.threshold)) {
            return Some("mid_tier.threshold must lie in [0, 1]".to_owned());
        }
        if self.fallbacks.contains(&Fallback::MidTier) && self.mid_tier.is_none() {
            return Some("fallbacks name mid_tier, and there is none".to_owned());
        }
        let twice = (1..self.fallbacks.len()).find(|at| self.fallbacks[..*at].contains(&self.fallbacks[*at]));
        if let Some(at) = twice {
            return Some(format!("fallbacks name {:?} twice", self.fallbacks[at]));
        }
        let limits = self.mid_tier.iter().map(|tier| &tier.limits).chain([&self.limits]);
        self.accept.problem().or_else(|| limits.filter_map(PoolLimits::problem).next().map(str::to_owned))
    }
}
