//! Doubly robust rewards of every action for every logged decision, from reward models that have not seen it.
//!
//! ```text
//! Γ(i, a) = f̂(x_i, a) + 1[a = a_i] · min(1 / p_i, cap) · (r_i - f̂(x_i, a_i))
//! ```
//!
//! with `f̂` fitted on the other folds (Dudík et al. 2011, arXiv 1103.4601; cross-fitting as Chernozhukov et al. 2018, arXiv 1608.00060).
//! Quality and cost are kept apart: any trade-off of the two is a sum.

use weir_policy_runtime::{FeatureSpec, MlpScratch};

use crate::checkpoint::Training;
use crate::error::{LearnError, Result};
use crate::evaluate::dense_clusters;
use crate::ope::fold_of;
use crate::reward_model::{self, RewardModelConfig};
use crate::training_set::Sample;

/// Folds of the reward models: each sees four fifths of the decisions, so that what it lacks is about what the model of all of them lacks.
const FOLDS: usize = 5;
/// Largest weight of a residual: one decision must not outvote a hundred.
const WEIGHT_MAX: f64 = 50.0;

/// See the module. Rows are in the order that they were asked for.
pub(crate) struct DrRewards {
    pub actions: usize,
    /// Guessed quality, shape `[rows, actions]`.
    pub quality: Vec<f32>,
    /// Guessed cost in USD, shape `[rows, actions]`.
    pub cost_usd: Vec<f32>,
    /// The action that each decision took.
    pub taken: Vec<usize>,
    /// What the observed quality adds to the guess of the taken action, weighted; 0 where nothing was observed.
    pub quality_residual: Vec<f32>,
    /// The same of cost, USD.
    pub cost_residual: Vec<f32>,
}

impl DrRewards {
    /// # Errors
    /// When no decision at `rows` carries a propensity with a reward, or a reward model cannot be fitted.
    pub(crate) fn cross_fitted(
        samples: &[Sample],
        rows: &[usize],
        features: &FeatureSpec,
        actions: usize,
        config: &RewardModelConfig,
        training: Training<'_>,
    ) -> Result<Self> {
        let weight = |sample: &Sample| {
            let is_usable = sample.executed_as_intended && sample.draw_is_consistent();
            sample.propensity.filter(|_| is_usable).map(|propensity| (1.0 / propensity).min(WEIGHT_MAX))
        };
        if !rows.iter().any(|&row| weight(&samples[row]).is_some() && samples[row].quality.is_some()) {
            return Err(LearnError::NotEnoughData(
                "no decision has a quality and the probability with which it was drawn, which policy learning corrects by: log \
                 propensities (`weir decide`), or learn with the inverse-gap strategy"
                    .to_owned(),
            ));
        }
        let clusters = dense_clusters(samples, rows.iter().copied());
        let cells = rows.len() * actions;
        let mut found = Self {
            actions,
            quality: vec![0.0; cells],
            cost_usd: vec![0.0; cells],
            taken: rows.iter().map(|&row| samples[row].action).collect(),
            quality_residual: vec![0.0; rows.len()],
            cost_residual: vec![0.0; rows.len()],
        };
        let mut input = vec![0.0; features.width()];
        let mut scratch = MlpScratch::default();
        for fold in 0..FOLDS {
            let is_here = |place: &usize| fold_of(clusters[*place], FOLDS) == fold;
            let others: Vec<usize> = (0..rows.len()).filter(|place| !is_here(place)).map(|place| rows[place]).collect();
            let model = reward_model::train(
                samples,
                &others,
                features,
                actions,
                config,
                training.with_seed(training.seed.wrapping_add(fold as u64)),
            )?;
            for place in (0..rows.len()).filter(is_here) {
                let sample = &samples[rows[place]];
                features.encode(&sample.context.as_context(), &mut input);
                let outputs = model.forward(&input, &mut scratch);
                for action in 0..actions {
                    found.quality[place * actions + action] = 1.0 / (1.0 + (-outputs[action]).exp());
                    found.cost_usd[place * actions + action] = outputs[actions + action].exp();
                }
                let Some(weight) = weight(sample) else { continue };
                let guess = |plane: &[f32]| f64::from(plane[place * actions + sample.action]);
                let residual = |observed: Option<f64>, guess: f64| {
                    observed.map_or(0.0, |observed| weight * (observed - guess)) as f32
                };
                found.quality_residual[place] = residual(sample.quality, guess(&found.quality));
                found.cost_residual[place] = residual(sample.cost_usd, guess(&found.cost_usd));
            }
        }
        Ok(found)
    }

    /// Writes Γ of one row in normalised utility, `(1 - share) quality - share cost / usd_scale`.
    pub(crate) fn gamma(&self, row: usize, share: f32, usd_scale: f32, out: &mut [f32]) {
        self.guess(row, share, usd_scale, out);
        out[self.taken[row]] +=
            (1.0 - share) * self.quality_residual[row] - share * self.cost_residual[row] / usd_scale;
    }

    /// Writes the guessed normalised utility of one row.
    pub(crate) fn guess(&self, row: usize, share: f32, usd_scale: f32, out: &mut [f32]) {
        let cells = row * self.actions..(row + 1) * self.actions;
        for ((out, quality), cost) in out.iter_mut().zip(&self.quality[cells.clone()]).zip(&self.cost_usd[cells]) {
            *out = (1.0 - share) * quality - share * cost / usd_scale;
        }
    }
}
