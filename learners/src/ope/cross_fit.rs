//! A reward model for evaluation, fitted on other clusters than those that it is used on.
//!
//! The doubly robust estimate is unbiased only if `q` has not seen the rewards that correct it; with folds by cluster,
//! each row's `q` comes from the other folds. Chernozhukov et al. 2018, arXiv 1608.00060.

/// What the table model needs of one decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TableRow {
    /// Which cell of contexts, a dense index from 0 (domains, for instance).
    pub cell: usize,
    /// The choice.
    pub action: usize,
    /// The reward, where there is one.
    pub reward: Option<f64>,
    /// Session or query.
    pub cluster: usize,
    /// How many observations it counts for: 1, or less where the past is forgotten.
    pub weight: f64,
}

/// How many observations the prior mean of a cell counts for.
const PRIOR_OBSERVATIONS: f64 = 10.0;

/// The fold of a cluster: a hash, so that neighbours in time fall into different folds.
#[must_use]
pub fn fold_of(cluster: usize, folds: usize) -> usize {
    // Fibonacci hashing (Knuth, volume 3, section 6.4).
    let mixed = (cluster as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed >> 32) % folds.max(1) as u64) as usize
}

/// Fits, for each fold, mean rewards by (cell, action) on the other folds, and returns a table per fold:
/// `tables[fold][cell * actions + action]`.
///
/// Cell means are shrunk towards the action's mean, and that towards the overall mean, each prior counting for ten
/// observations: a cell nobody tried is worth what its action is worth elsewhere.
#[must_use]
pub fn cross_fitted_table(rows: &[TableRow], cells: usize, actions: usize, folds: usize) -> Vec<Vec<f64>> {
    (0..folds)
        .map(|fold| {
            let others = rows.iter().filter(|row| folds == 1 || fold_of(row.cluster, folds) != fold);
            shrunken_means(others, cells, actions)
        })
        .collect()
}

/// Mean reward by (cell, action), shrunk twice: see [`cross_fitted_table`].
pub(crate) fn shrunken_means<'a>(rows: impl Iterator<Item = &'a TableRow>, cells: usize, actions: usize) -> Vec<f64> {
    let mut by_cell = vec![(0.0, 0.0); cells * actions];
    let mut by_action = vec![(0.0, 0.0); actions];
    let mut overall = (0.0, 0.0);
    for row in rows {
        let Some(reward) = row.reward else { continue };
        for sums in [&mut by_cell[row.cell * actions + row.action], &mut by_action[row.action], &mut overall] {
            sums.0 += row.weight * reward;
            sums.1 += row.weight;
        }
    }
    let mean = if overall.1 > 0.0 { overall.0 / overall.1 } else { 0.0 };
    let action_means: Vec<f64> = by_action.iter().map(|&sums| shrunken(sums, mean)).collect();
    by_cell.iter().enumerate().map(|(index, &sums)| shrunken(sums, action_means[index % actions])).collect()
}

/// The same table, learned as decisions come: what it guesses has seen nothing but the past, as confidence sequences need it.
#[derive(Debug, Clone)]
pub struct ProgressiveTable {
    actions: usize,
    by_cell: Vec<(f64, f64)>,
    by_action: Vec<(f64, f64)>,
    overall: (f64, f64),
    prior: f64,
}

impl ProgressiveTable {
    /// A table that knows nothing and guesses `prior`.
    #[must_use]
    pub fn new(cells: usize, actions: usize, prior: f64) -> Self {
        let none = (0.0, 0.0);
        Self { actions, by_cell: vec![none; cells * actions], by_action: vec![none; actions], overall: none, prior }
    }

    /// Guesses for each action in a cell, into `guesses`.
    pub fn guess(&self, cell: usize, guesses: &mut Vec<f64>) {
        let mean = shrunken(self.overall, self.prior);
        let of = |action: usize| {
            shrunken(self.by_cell[cell * self.actions + action], shrunken(self.by_action[action], mean))
        };
        guesses.clear();
        guesses.extend((0..self.actions).map(of));
    }

    /// Learns a reward. To be called once a cluster is over, since its decisions depend on each other.
    pub fn learn(&mut self, cell: usize, action: usize, reward: f64) {
        let cell = &mut self.by_cell[cell * self.actions + action];
        for sums in [cell, &mut self.by_action[action], &mut self.overall] {
            sums.0 += reward;
            sums.1 += 1.0;
        }
    }
}

fn shrunken((sum, count): (f64, f64), prior: f64) -> f64 {
    (sum + PRIOR_OBSERVATIONS * prior) / (count + PRIOR_OBSERVATIONS)
}
