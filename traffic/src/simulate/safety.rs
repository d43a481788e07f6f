//! Sessions that ask for what they should not, how a router's classifier scores them, and what reviewers say afterwards.
//!
//! Whether a session is unsafe, and whether it is reviewed, depends on nothing else; reviewers are right. So the rates at which a
//! threshold catches and troubles are known, and reviewed sessions are a fair sample.

use std::collections::BTreeMap;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Beta, Distribution};
use weir_schemas::{EventTimeMs, Feedback};

use super::arrivals::exponential;

/// Share of an unsafe session's requests that show it.
const SHOWS: f64 = 0.6;
/// Laws of the classifier's confidence, Beta(a, b): where something shows, and where nothing does.
const SHOWN: (f64, f64) = (5.0, 3.0);
const HARMLESS: (f64, f64) = (1.0, 9.0);
/// The kinds of hazard, one of which an unsafe session is about.
const HAZARDS: [&str; 3] = ["fraud", "malware", "self_harm"];
/// Mean time until a session is reviewed after its end, ms.
const REVIEWED_AFTER_MS: f64 = 60_000.0;

/// How unsafe the traffic is, and how much of it people look at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SafetyConfig {
    /// Share of sessions that ask for what they should not.
    pub unsafe_share: f64,
    /// Share of sessions that an operator reviews and labels.
    pub review_share: f64,
}

/// What a session is about in this respect.
#[derive(Clone, Copy)]
pub(super) struct Nature {
    pub hazard: Option<&'static str>,
    pub is_reviewed: bool,
}

impl Nature {
    pub(super) fn draw(config: &SafetyConfig, rng: &mut ChaCha8Rng) -> Self {
        let is_unsafe = rng.random::<f64>() < config.unsafe_share;
        let hazard = HAZARDS[rng.random_range(0..HAZARDS.len())];
        Self { hazard: is_unsafe.then_some(hazard), is_reviewed: rng.random::<f64>() < config.review_share }
    }

    /// The classifier's confidence that a request is unsafe, and by hazard.
    pub(super) fn scores(&self, rng: &mut ChaCha8Rng) -> (f64, BTreeMap<String, f64>) {
        let about = self.hazard.filter(|_| rng.random::<f64>() < SHOWS);
        let of = |name: &str, rng: &mut ChaCha8Rng| {
            let (a, b) = if about == Some(name) { SHOWN } else { HARMLESS };
            let score = Beta::new(a, b).expect("the laws here have parameters above 0").sample(rng);
            (name.to_owned(), (score * 1e4).round() / 1e4)
        };
        let hazards: BTreeMap<String, f64> = HAZARDS.into_iter().map(|name| of(name, rng)).collect();
        (hazards.values().copied().fold(0.0, f64::max), hazards)
    }

    /// What a reviewer says of the session, by its last request, and when.
    pub(super) fn review(
        &self,
        (tenant, session_id): (&str, &str),
        request_id: &str,
        ended_ms: i64,
        rng: &mut ChaCha8Rng,
    ) -> Option<(Feedback, i64)> {
        let at_ms = ended_ms + exponential(rng, REVIEWED_AFTER_MS).ceil() as i64;
        let label = if self.hazard.is_some() { "unsafe" } else { "safe" };
        let review = Feedback {
            feedback_id: format!("{session_id}-review"),
            event_ms: EventTimeMs(at_ms),
            source: "operator".to_owned(),
            kind: "verdict".to_owned(),
            tenant: Some(tenant.to_owned()),
            request_id: Some(request_id.to_owned()),
            session_id: Some(session_id.to_owned()),
            label: Some(label.to_owned()),
            ..Feedback::default()
        };
        self.is_reviewed.then_some((review, at_ms))
    }
}
