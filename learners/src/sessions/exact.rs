//! What every policy is worth in the simulator, by backward induction and by adding up chances: no sampling, no learning.
//!
//! `Q(s, a) = Σ p (r + V(s'))` over the ends of a turn, from the last turn to the first. Bellman 1957; Puterman 1994, section 4.5.

use serde::{Deserialize, Serialize};
use weir_policy_runtime::{Exploration, inverse_gap_weights};

use super::simulator::{Next, SimulatedState, Simulator};

/// What a policy's sessions are worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionTruth {
    /// Expected utility of a session.
    pub value: f64,
    /// Share of sessions that end with the task done.
    pub completion_rate: f64,
    /// Median turns of those.
    pub median_completed_turns: usize,
    /// Share of all sessions that were done after exactly so many turns, from 1.
    pub completed_after: Vec<f64>,
}

impl Simulator {
    /// The best policy: in every state the allowed action of the highest `Q`, the first of equals. Probabilities of shape
    /// `[states, actions]`.
    #[must_use]
    pub fn optimal(&self) -> Vec<f64> {
        let actions = self.actions();
        let mut values = vec![0.0; self.states()];
        let mut policy = vec![0.0; self.states() * actions];
        // States of later turns have larger indices.
        for index in (0..self.states()).rev() {
            let state = self.state(index);
            let q: Vec<f64> = (0..actions).map(|action| self.q(&state, action, &values)).collect();
            let best = best_allowed(&q, &self.allowed(&state));
            values[index] = q[best];
            policy[index * actions + best] = 1.0;
        }
        policy
    }

    /// The value of every state under a policy's probabilities, shape `[states, actions]`.
    #[must_use]
    pub fn values(&self, policy: &[f64]) -> Vec<f64> {
        let actions = self.actions();
        let mut values = vec![0.0; self.states()];
        for index in (0..self.states()).rev() {
            let state = self.state(index);
            let possible = (0..actions).filter(|action| policy[index * actions + action] > 0.0);
            values[index] =
                possible.map(|action| policy[index * actions + action] * self.q(&state, action, &values)).sum();
        }
        values
    }

    fn q(&self, state: &SimulatedState, action: usize, values: &[f64]) -> f64 {
        let worth = |next: &Next| match next {
            Next::Turn(state) => values[self.index(state)],
            Next::Completed | Next::Undone => 0.0,
        };
        self.ends(state, action).iter().map(|end| end.chance * (end.reward + worth(&end.next))).sum()
    }

    /// Expected reward of the turn itself.
    #[must_use]
    pub fn immediate(&self, state: &SimulatedState, action: usize) -> f64 {
        self.ends(state, action).iter().map(|end| end.chance * end.reward).sum()
    }

    /// What greedy selection turn by turn does, knowing every turn's expected reward exactly.
    #[must_use]
    pub fn greedy_per_turn(&self) -> Vec<f64> {
        self.exploring(Exploration::NONE, 0.0)
    }

    /// A router that chooses by the same scores with inverse-gap weighting, after it has stayed with the warm model in a share `stays` of
    /// turns without asking. Every probability is known.
    #[must_use]
    pub fn exploring(&self, Exploration { gamma, floor }: Exploration, stays: f64) -> Vec<f64> {
        self.policy_of(|state| {
            let scores: Vec<f64> = (0..self.actions()).map(|action| self.immediate(state, action)).collect();
            let allowed = self.allowed(state);
            let mut probabilities = vec![0.0; scores.len()];
            inverse_gap_weights(&scores, &allowed, gamma, floor, &mut probabilities);
            if let Some(warm) = state.warm.filter(|warm| allowed[*warm]) {
                probabilities.iter_mut().for_each(|p| *p *= 1.0 - stays);
                probabilities[warm] += stays;
            }
            probabilities
        })
    }

    /// One model for everything; the largest allowed one below it where it is forbidden.
    #[must_use]
    pub fn always(&self, model: usize) -> Vec<f64> {
        self.policy_of(|state| {
            let allowed = self.allowed(state);
            let used = (0..=model).rev().find(|&used| allowed[used]).unwrap_or(0);
            (0..self.actions()).map(|action| f64::from(u8::from(action == used))).collect()
        })
    }

    /// A policy as a table of shape `[states, actions]`.
    #[must_use]
    pub fn policy_of(&self, probabilities: impl Fn(&SimulatedState) -> Vec<f64>) -> Vec<f64> {
        (0..self.states()).flat_map(|index| probabilities(&self.state(index))).collect()
    }

    /// Value, completion and length of a policy's sessions: chances are carried forward from where sessions begin.
    #[must_use]
    pub fn truth(&self, policy: &[f64]) -> SessionTruth {
        let actions = self.actions();
        let mut reached = vec![0.0; self.states()];
        for (chance, state) in self.starts() {
            reached[self.index(&state)] += chance;
        }
        let mut value = 0.0;
        let mut completed_after = vec![0.0; self.config().turns_max];
        for index in 0..self.states() {
            if reached[index] == 0.0 {
                continue;
            }
            let state = self.state(index);
            for action in 0..actions {
                let chance = reached[index] * policy[index * actions + action];
                if chance == 0.0 {
                    continue;
                }
                for end in self.ends(&state, action) {
                    value += chance * end.chance * end.reward;
                    match end.next {
                        Next::Turn(next) => reached[self.index(&next)] += chance * end.chance,
                        Next::Completed => completed_after[state.turn] += chance * end.chance,
                        Next::Undone => {}
                    }
                }
            }
        }
        let median_completed_turns = median_turns(&completed_after);
        SessionTruth { value, completion_rate: completed_after.iter().sum(), median_completed_turns, completed_after }
    }
}

/// The least number of turns within which half of what is completed at all is; 0 where nothing is.
pub(super) fn median_turns(completed_after: &[f64]) -> usize {
    let half = completed_after.iter().sum::<f64>() / 2.0;
    let mut sum = 0.0;
    let found = completed_after.iter().position(|share| {
        sum += share;
        half > 0.0 && sum >= half
    });
    found.map_or(0, |turn| turn + 1)
}

/// The allowed action of the highest score, the first of equals.
pub(super) fn best_allowed(scores: &[f64], allowed: &[bool]) -> usize {
    let better = |best: Option<usize>, action: usize| match best {
        Some(best) if scores[best] >= scores[action] => Some(best),
        _ => Some(action),
    };
    (0..scores.len()).filter(|&action| allowed[action]).fold(None, better).unwrap_or(0)
}
