//! Feedback: noisy, late, sometimes lost, sometimes twice.
//!
//! Whether somebody judges an answer does not depend on the answer or the model, and every kind of opinion has the
//! expected quality as its mean. So the judged requests are a fair sample, and an estimator that fails on them fails
//! for a reason of its own.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Binomial, Distribution};
use weir_schemas::{EventTimeMs, Feedback};

use super::arrivals::exponential;
use super::config::FeedbackConfig;

/// Steps of a rating above 0: a five-step scale.
const RATING_STEPS: u64 = 4;

/// What somebody judges.
pub(super) struct Judged<'a> {
    pub subject: String,
    pub request_id: Option<String>,
    pub session_id: &'a str,
    pub tenant: &'a str,
    pub caller: &'a str,
    pub model: Option<String>,
    /// Expected quality, 0 for a failed call.
    pub quality: f64,
    pub ended_ms: i64,
}

/// What became of an opinion.
pub(super) enum Fate {
    Lost,
    Arrives(i64),
    ArrivesTwice(i64, i64),
}

/// One opinion on the subject and when it arrives.
pub(super) fn form(judged: Judged<'_>, config: &FeedbackConfig, rng: &mut ChaCha8Rng) -> (Feedback, Fate) {
    let formed_ms = judged.ended_ms + exponential(rng, config.delay_ms).ceil() as i64;
    let success = f64::from(u8::from(rng.random::<f64>() < judged.quality));
    let steps = Binomial::new(RATING_STEPS, judged.quality).expect("qualities lie in [0, 1]").sample(rng);
    let (source, kind, value) = match rng.random_range(0..4) {
        0 | 1 => ("user", "rating", steps as f64 / RATING_STEPS as f64),
        2 => ("user", "thumb", success),
        _ => ("agent", "task_success", success),
    };
    let feedback = Feedback {
        feedback_id: format!("{}-f", judged.subject),
        event_ms: EventTimeMs(formed_ms),
        source: source.to_owned(),
        kind: kind.to_owned(),
        tenant: Some(judged.tenant.to_owned()),
        request_id: judged.request_id,
        session_id: Some(judged.session_id.to_owned()),
        caller: Some(judged.caller.to_owned()),
        model: judged.model,
        value: Some(value),
        checked: Some(true),
        ..Feedback::default()
    };
    let lost = rng.random::<f64>() < config.lost;
    let twice = rng.random::<f64>() < config.duplicated;
    let again_ms = formed_ms + exponential(rng, config.delay_ms).ceil() as i64;
    let fate = match (lost, twice) {
        (true, _) => Fate::Lost,
        (false, true) => Fate::ArrivesTwice(formed_ms, again_ms),
        (false, false) => Fate::Arrives(formed_ms),
    };
    (feedback, fate)
}
