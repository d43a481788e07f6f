//! The loop that conservative and batch-constrained Q-learning share.
//!
//! The best action of the next state is chosen by `Q` and valued by an earlier `Q̂` (van Hasselt, Guez and Silver 2016, arXiv 1509.06461),
//! which takes away most of what a maximum over noise adds.

use rand_chacha::ChaCha8Rng;

use super::config::SessionLearnerConfig;
use super::replay::{Learner, Replay, column, mean_square, step_size};
use crate::backend::Device;
use crate::error::Result;

/// `Q` that minimises `½ E (r + γ Q̂(s', argmax Q) - Q(s, a))² + α E (ln Σ_a exp Q(s, a) - Q(s, a))`; maxima and sums run over what the
/// replay does not forbid.
pub(super) fn double_q(
    replay: &Replay,
    conservatism: f64,
    config: &SessionLearnerConfig,
    rng: &mut ChaCha8Rng,
) -> Result<Learner> {
    let device = Device::default();
    let mut quality = Learner::new(replay.inputs.width, &vec![replay.mean_return; replay.actions], config, rng);
    let mut target = quality.network.frozen();
    for step in 0..config.steps {
        let batch = replay.batch(config.batch_rows, rng);
        let next = replay.next(&batch);
        let best = replay.best(&next, &quality.network.frozen().predict(&replay.inputs, &next)?);
        let worth = target.predict(&replay.inputs, &next)?;
        let later: Vec<f32> =
            best.iter().zip(worth.chunks_exact(replay.actions)).map(|(best, worth)| worth[*best]).collect();
        let targets = replay.backed_up(&batch, config.discount, &later);
        quality.step(step_size(step, config.steps, config), |network| {
            let all = network.forward(replay.inputs.tensor(&batch, &device));
            let logged = (all.clone() * replay.taken(&batch, &device)).sum_dim(1);
            let error = mean_square(logged - column(targets, &device)) * 0.5;
            if conservatism == 0.0 {
                return error;
            }
            // ln Σ exp Q - Q(logged) is the log loss of a softmax over Q.
            error + replay.weighted_log_loss(all, &batch, None, &device) * conservatism
        });
        if (step + 1) % config.target_every == 0 {
            target = quality.network.frozen();
        }
    }
    Ok(quality)
}
