//! What a policy's choices are worth in the long run, learned from another policy's sessions: fitted Q evaluation on a table.
//!
//! `q(s, a) ← mean(r + γ Σ_a' π(a'|s') q(s', a'))` over the turns in which `a` was taken in `s`, again and again: each pass sees one turn
//! further. Le, Voloshin and Yue 2019, arXiv 1903.08738. As good as the table's states: shown, and used as the guess of doubly robust
//! estimates, never decisive by itself.

use std::collections::BTreeMap;

use super::cross_fit::fold_of;

/// A turn in a table's terms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition {
    /// Index of the state, from 0.
    pub state: usize,
    /// Index of the choice, from 0.
    pub action: usize,
    /// What it brought.
    pub reward: f64,
    /// The state of the next turn; `None` at the end of the session.
    pub next: Option<usize>,
    /// Session: a dense index from 0.
    pub session: usize,
}

/// How to fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FittedQConfig {
    /// γ, 0 to 1.
    pub discount: f64,
    /// Passes at most: turns that are looked ahead.
    pub passes: usize,
    /// Folds by session: a fold's table has not seen its sessions. One is no folds.
    pub folds: usize,
}

impl Default for FittedQConfig {
    fn default() -> Self {
        Self { discount: 1.0, passes: 200, folds: 5 }
    }
}

/// A table for each fold: `tables[fold][state * actions + action]`, where `fold` is [`fold_of`] a session. `target` is the policy's
/// probabilities, in the same order. Cells that nobody tried are worth what the state is worth under the others, or 0 where nobody was
/// there.
///
/// Costs `passes` times the table, after one pass over the turns.
#[must_use]
pub fn fitted_q(transitions: &[Transition], actions: usize, target: &[f64], config: &FittedQConfig) -> Vec<Vec<f64>> {
    (0..config.folds.max(1))
        .map(|fold| {
            let is_others = |turn: &&Transition| config.folds <= 1 || fold_of(turn.session, config.folds) != fold;
            fitted(transitions.iter().filter(is_others), actions, target, config)
        })
        .collect()
}

fn fitted<'a>(
    transitions: impl Iterator<Item = &'a Transition>,
    actions: usize,
    target: &[f64],
    config: &FittedQConfig,
) -> Vec<f64> {
    let cells = target.len();
    let states = cells / actions;
    let (mut rewards, mut counts) = (vec![0.0; cells], vec![0.0; cells]);
    // How often each next state follows; the end of a session is worth 0.
    let mut follows: Vec<BTreeMap<usize, f64>> = vec![BTreeMap::new(); cells];
    for turn in transitions {
        let cell = turn.state * actions + turn.action;
        rewards[cell] += turn.reward;
        counts[cell] += 1.0;
        if let Some(next) = turn.next {
            *follows[cell].entry(next).or_default() += 1.0;
        }
    }
    let mut values = vec![0.0; states];
    let mut table = vec![0.0; cells];
    for _ in 0..config.passes {
        for cell in 0..cells {
            if counts[cell] > 0.0 {
                let later: f64 = follows[cell].iter().map(|(next, times)| times * values[*next]).sum();
                table[cell] = (rewards[cell] + config.discount * later) / counts[cell];
            }
        }
        fill_untried(&mut table, &counts, actions, target);
        let before = values.clone();
        for (state, value) in values.iter_mut().enumerate() {
            let cells = state * actions..(state + 1) * actions;
            *value = table[cells.clone()].iter().zip(&target[cells]).map(|(q, p)| p * q).sum();
        }
        let moved = values.iter().zip(&before).map(|(now, then)| (now - then).abs()).fold(0.0, f64::max);
        if moved < 1e-12 {
            break;
        }
    }
    table
}

/// What nobody tried in a state is worth the mean of what was tried there.
fn fill_untried(table: &mut [f64], counts: &[f64], actions: usize, target: &[f64]) {
    for (state, (row, counts)) in table.chunks_exact_mut(actions).zip(counts.chunks_exact(actions)).enumerate() {
        let weights = &target[state * actions..(state + 1) * actions];
        let tried = || (0..actions).filter(|action| counts[*action] > 0.0);
        let mass: f64 = tried().map(|action| weights[action]).sum();
        let mean = match (mass > 0.0, tried().count()) {
            (true, _) => tried().map(|action| weights[action] * row[action]).sum::<f64>() / mass,
            (false, 0) => 0.0,
            (false, tried_count) => tried().map(|action| row[action]).sum::<f64>() / tried_count as f64,
        };
        (0..actions).filter(|action| counts[*action] == 0.0).for_each(|action| row[action] = mean);
    }
}
