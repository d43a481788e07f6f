//! Sessions drawn from the simulator, as a router would have logged them.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::simulator::{Next, Simulator};
use super::trajectory::{SessionLog, SessionTurn, Trajectory};
use crate::error::{LearnError, Result};

/// Logged sessions, and where each turn stood.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulatedLog {
    /// The sessions as a learner sees them.
    pub log: SessionLog,
    /// [`Simulator::index`] of every turn's state, session by session.
    pub states: Vec<Vec<usize>>,
}

impl Simulator {
    /// Draws sessions with a policy's probabilities, shape `[states, actions]`, and logs them.
    ///
    /// # Errors
    /// [`LearnError::Config`] where the table has another shape; as [`SessionLog::new`] without a session.
    pub fn draw(&self, policy: &[f64], sessions: usize, seed: u64) -> Result<SimulatedLog> {
        let actions = self.actions();
        if policy.len() != self.states() * actions {
            return Err(LearnError::Config(format!(
                "a policy of this simulator has {} probabilities, not {}",
                self.states() * actions,
                policy.len()
            )));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let starts = self.starts();
        let (mut trajectories, mut states) = (Vec::with_capacity(sessions), Vec::with_capacity(sessions));
        for _ in 0..sessions {
            let mut at = Next::Turn(starts[drawn(starts.iter().map(|(chance, _)| *chance), &mut rng)].1);
            let (mut trajectory, mut visited) = (Trajectory::default(), Vec::new());
            while let Next::Turn(state) = at {
                let index = self.index(&state);
                let probabilities = &policy[index * actions..(index + 1) * actions];
                let action = drawn(probabilities.iter().copied(), &mut rng);
                let ends = self.ends(&state, action);
                let end = ends[drawn(ends.iter().map(|end| end.chance), &mut rng)];
                visited.push(index);
                trajectory.turns.push(SessionTurn {
                    state: self.features(&state),
                    allowed: self.allowed(&state),
                    action,
                    propensity: Some(probabilities[action]),
                    reward: end.reward,
                });
                at = end.next;
            }
            trajectory.completed = at == Next::Completed;
            trajectories.push(trajectory);
            states.push(visited);
        }
        Ok(SimulatedLog { log: SessionLog::new(self.action_names(), trajectories)?, states })
    }
}

/// Index drawn with these chances, which sum to 1; rounding falls to the last one that is possible.
fn drawn(chances: impl Iterator<Item = f64>, rng: &mut ChaCha8Rng) -> usize {
    let uniform: f64 = rng.random();
    let (mut sum, mut last) = (0.0, 0);
    for (index, chance) in chances.enumerate().filter(|(_, chance)| *chance > 0.0) {
        sum += chance;
        last = index;
        if uniform < sum {
            break;
        }
    }
    last
}
