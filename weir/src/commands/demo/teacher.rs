//! The estimator that the demo runs in its stream, trained on made-up answers of another seed.
//!
//! Only a simulator knows which of its answers state something that their context does not, so the demo can teach the
//! estimator without any labelled data set. On real traffic use `weir learn hallucination` with a set that people
//! labelled.

use std::collections::HashMap;

use weir_learners::hallucination::{HallucinationConfig, LabelledPair, train_hallucination};
use weir_traffic::simulate::{Profile, SimConfig, Simulator};
use weir_traffic::{Event, UniformRouter};

use crate::error::{Failure, Result};
use crate::pipeline::StreamEstimator;

/// Answers to learn from.
const PAIRS: usize = 1_500;

/// A trained estimator and how well it does on answers that it has not seen.
pub struct Taught {
    pub stream: StreamEstimator,
    pub auroc: f64,
}

/// Trains on `PAIRS` answers of a simulation like `like`, but of another seed.
pub fn estimator(like: &SimConfig) -> Result<Taught> {
    let config = SimConfig {
        seed: like.seed ^ 0x5eed_0f7e_ac4e_5000,
        profile: Profile::Rag,
        text_share: 1.0,
        duration_ms: 24 * 3_600_000,
        ..like.clone()
    };
    let mut simulator = Simulator::new(config, Box::new(UniformRouter::new("teacher")))?;
    let mut planted: HashMap<String, bool> = HashMap::new();
    let mut pairs = Vec::with_capacity(PAIRS);
    while pairs.len() < PAIRS {
        let Some(timed) = simulator.next() else { break };
        for truth in simulator.take_truths() {
            if let Some(unsupported) = truth.unsupported {
                planted.insert(truth.request_id, unsupported);
            }
        }
        let Event::Request(request) = timed.event else { continue };
        if let (Some(context), Some(response), Some(hallucinated)) =
            (&request.context_text, &request.response_text, planted.remove(&request.request_id))
        {
            pairs.push(LabelledPair {
                dataset: "simulated".into(),
                context: context.clone(),
                response: response.clone(),
                hallucinated,
            });
        }
    }
    let config = HallucinationConfig { seed: like.seed, ..HallucinationConfig::default() };
    let (estimator, report) = train_hallucination(&pairs, &config)?;
    let auroc = report
        .overall
        .get("estimator")
        .map(|metrics| metrics.auroc)
        .ok_or_else(|| Failure::ours("the estimator was not judged"))?;
    Ok(Taught { stream: StreamEstimator { estimator, sample_share: 1.0 }, auroc })
}
