//! The baseline: each turn is judged by its own reward, as if nothing came after it.
//!
//! Two networks guess a turn's reward, each from half of the sessions; each corrects the other half's,
//! `Γ(a) = q(s, a) + 1(a = a_logged) (r - q(s, a)) / p` (Dudík, Langford and Li 2011, arXiv 1103.4601), and the policy's scores are the
//! regression of `Γ` on the state. What it gives up beside the others is only what a session's later turns are worth.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::config::{Algorithm, SessionLearnerConfig};
use super::policy::SessionPolicy;
use super::replay::{Learner, Replay, column, mean_square, runtime, step_size};
use super::trajectory::SessionLog;
use crate::backend::Device;
use crate::error::{LearnError, Result};
use crate::ope::fold_of;

/// Halves of the sessions.
const FOLDS: usize = 2;

pub(super) fn learn(log: &SessionLog, config: &SessionLearnerConfig) -> Result<SessionPolicy> {
    let device = Device::default();
    let replay = Replay::new(log, config);
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let propensity: Vec<f64> = log.propensities()?.concat();
    let fold: Vec<usize> = (log.trajectories().iter().enumerate())
        .flat_map(|(session, trajectory)| trajectory.turns.iter().map(move |_| fold_of(session, FOLDS)))
        .collect();
    let mean = replay.reward.iter().sum::<f32>() / replay.rows() as f32;
    let mut scores = vec![0.0_f32; replay.rows() * replay.actions];
    for held_out in 0..FOLDS {
        let (judged, seen): (Vec<usize>, Vec<usize>) = (0..replay.rows()).partition(|row| fold[*row] == held_out);
        if seen.is_empty() || judged.is_empty() {
            let sessions = log.trajectories().len();
            let why = format!("{sessions} sessions cannot be halved: a bandit corrects each half with the other");
            return Err(LearnError::NotEnoughData(why));
        }
        let mut guess = Learner::new(log.width(), &vec![mean; replay.actions], config, &mut rng);
        for step in 0..config.steps {
            let batch: Vec<usize> = (0..config.batch_rows).map(|_| seen[rng.random_range(0..seen.len())]).collect();
            let rewards = batch.iter().map(|&row| replay.reward[row]).collect();
            guess.step(step_size(step, config.steps, config), |network| {
                let all = network.forward(replay.inputs.tensor(&batch, &device));
                mean_square((all * replay.taken(&batch, &device)).sum_dim(1) - column(rewards, &device))
            });
        }
        let guesses = guess.network.frozen().predict(&replay.inputs, &judged)?;
        for (&row, guesses) in judged.iter().zip(guesses.chunks_exact(replay.actions)) {
            let scores = &mut scores[row * replay.actions..(row + 1) * replay.actions];
            scores.copy_from_slice(guesses);
            let action = replay.action[row];
            scores[action] += (f64::from(replay.reward[row] - guesses[action]) / propensity[row]) as f32;
        }
    }
    let mut policy = Learner::new(log.width(), &vec![mean; replay.actions], config, &mut rng);
    for step in 0..config.steps {
        let batch = replay.batch(config.batch_rows, &mut rng);
        policy.step(step_size(step, config.steps, config), |network| {
            let all = network.forward(replay.inputs.tensor(&batch, &device));
            mean_square((all - replay.gathered(&scores, &batch, &device)) * replay.is_allowed(&batch, &device))
        });
    }
    Ok(SessionPolicy::new(log, Algorithm::TurnBandit, runtime(&policy.network)?, None))
}
