//! Discrete batch-constrained Q-learning: Q-learning among choices that the log makes often enough.
//!
//! Fujimoto et al. 2019, arXiv 1910.01708, algorithm 1: `G(a|s)` imitates the log, and only choices with `G(a|s) / max_a' G(a'|s)` above a
//! threshold may be the best one, in targets and in the policy. The squared error stands for the paper's Huber loss, which is the same for
//! errors below 1.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::config::{Algorithm, SessionLearnerConfig};
use super::double_q::double_q;
use super::policy::{Imitated, SessionPolicy};
use super::replay::{Learner, Replay, runtime, step_size};
use super::trajectory::SessionLog;
use crate::backend::Device;
use crate::error::Result;

pub(super) fn learn(log: &SessionLog, config: &SessionLearnerConfig) -> Result<SessionPolicy> {
    let device = Device::default();
    let mut replay = Replay::new(log, config);
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut imitator = Learner::new(log.width(), &vec![0.0; replay.actions], config, &mut rng);
    for step in 0..config.steps {
        let batch = replay.batch(config.batch_rows, &mut rng);
        imitator.step(step_size(step, config.steps, config), |network| {
            let logits = network.forward(replay.inputs.tensor(&batch, &device));
            replay.weighted_log_loss(logits, &batch, None, &device)
        });
    }
    let imitated = Imitated { logits: runtime(&imitator.network)?, threshold: config.threshold };
    replay.forbid_rare(&imitated);
    let quality = double_q(&replay, 0.0, config, &mut rng)?;
    Ok(SessionPolicy::new(log, Algorithm::BatchConstrainedQ, runtime(&quality.network)?, Some(imitated)))
}
