//! The ways to learn a policy on top of the reward model, and what each makes: a network, perhaps a posterior, and a strategy to draw by.

use serde::{Deserialize, Serialize};
use weir_policy_runtime::{Action, FeatureSpec, Heads, Mlp, Objective, Posterior, Preference, Probation, Strategy};

use crate::checkpoint::Training;
use crate::error::{LearnError, Result};
use crate::network::{PlainLayer, runtime_network};
use crate::policy_gradient::{self, LearnedCorrections, PolicyGradientConfig, usd_weight_for_quality};
use crate::posterior::precisions;
use crate::reward_model::{Discount, encode};
use crate::side_by_side::side_by_side;
use crate::train::TrainConfig;
use crate::training_set::TrainingSet;

/// How a policy is learned from the reward model, and how it draws.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Learning {
    /// The reward model's guesses, drawn from by inverse-gap weighting.
    #[default]
    InverseGap,
    /// Corrections of the guesses by a doubly robust policy gradient, drawn from by softmax.
    PolicyGradient {
        /// How to train.
        #[serde(default)]
        config: PolicyGradientConfig,
        /// Least cost at such a quality, instead of the outcome's weight of cost.
        #[serde(default)]
        quality_at_least: Option<f64>,
    },
    /// The reward model with its posterior, drawn from by the probability of being the best.
    Thompson,
    /// The reward model with its posterior: the highest upper bound, `width` standard deviations above the guess.
    UpperBound {
        /// Standard deviations.
        width: f64,
    },
}

/// A model that comes without logs. It gets a fixed share of the decisions, and what is guessed of it until there is evidence is what is
/// guessed of one that it resembles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewModel {
    /// Its name, as the router knows it.
    pub model: String,
    /// A model of the logs that it resembles.
    pub like: String,
    /// Its share of the decisions.
    pub share: f64,
}

/// What corrections of the reward model were worth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CorrectionsSummary {
    /// They were shown to help, and are part of the policy.
    pub kept: bool,
    /// What they add on decisions that they were not learned from, as a share of the scale of utility; none where too few were left.
    pub gain: Option<f64>,
    /// Its standard error, over clusters.
    pub standard_error: Option<f64>,
}

/// How a candidate came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearningSummary {
    /// The way of learning, with its settings.
    pub learning: Learning,
    /// What the gradient found.
    #[serde(default)]
    pub corrections: Option<CorrectionsSummary>,
    /// Models that the candidate tries without evidence; what it is worth is judged without them.
    #[serde(default)]
    pub new_models: Vec<NewModel>,
    /// Decisions that a policy in force has learned on from, where that is how it came about.
    #[serde(default)]
    pub learned_on_from: Option<usize>,
}

impl LearningSummary {
    /// For people.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut words = match &self.learning {
            Learning::InverseGap => {
                "Learned as guesses of quality and cost, drawn from by inverse-gap weighting.".to_owned()
            }
            Learning::Thompson => {
                "Learned as guesses with their uncertainty, drawn from by the probability of being the best.".to_owned()
            }
            Learning::UpperBound { width } => {
                format!("Learned as guesses with their uncertainty; the highest bound {width} deviations up is taken.")
            }
            Learning::PolicyGradient { config, quality_at_least } => {
                let aim = quality_at_least.map(|quality| format!(" for the least cost at a quality of {quality}"));
                format!(
                    "Learned as guesses corrected by a doubly robust policy gradient{}, drawn from by softmax at {}.",
                    aim.unwrap_or_default(),
                    config.temperature
                )
            }
        };
        if let Some(CorrectionsSummary { kept, gain: Some(gain), standard_error: Some(error) }) = self.corrections {
            let kept = if kept { "kept" } else { "dropped, since that is not shown to help" };
            words.push_str(&format!(
                " Corrections add {gain:.4} (standard error {error:.4}) of the scale of utility on decisions that they were not learned from: {kept}."
            ));
        }
        if let Some(decisions) = self.learned_on_from {
            words.push_str(&format!(" Its last layer learned on from {decisions} new decisions."));
        }
        for NewModel { model, like, share } in &self.new_models {
            words.push_str(&format!(
                " {model} is new: it gets {:.1} % of decisions, guessed to be like {like}, and the verdict is about the others.",
                100.0 * share
            ));
        }
        words
    }
}

/// The parts of a policy that a way of learning decides.
pub(crate) struct Learned {
    pub network: Mlp,
    pub posterior: Option<Posterior>,
    pub heads: Heads,
    pub strategy: Strategy,
    pub preference: Option<Preference>,
    /// Weight of a dollar that a wanted quality leaves, where one is wanted.
    pub usd: Option<f64>,
    /// Models of the logs, then new ones.
    pub actions: Vec<Action>,
    pub probation: Vec<Probation>,
    pub summary: LearningSummary,
}

impl Learned {
    /// Learns on the samples at `rows`, on top of the reward model's `layers`.
    ///
    /// # Errors
    /// When a setting makes no sense, or the logs lack what the way of learning needs.
    pub(crate) fn on_top_of(
        layers: Vec<PlainLayer>,
        set: &TrainingSet,
        rows: &[usize],
        features: &FeatureSpec,
        config: &TrainConfig,
        training: Training<'_>,
    ) -> Result<Self> {
        let known = set.actions.len();
        let likes = likes(set, &config.new_models)?;
        let plain = |layers: &[PlainLayer]| runtime_network(&with_new_outputs(layers.to_vec(), known, &likes));
        let mut learned = Self {
            network: plain(&layers)?,
            posterior: None,
            heads: Heads::QualityLogitsThenLnCostUsd,
            strategy: Strategy::InverseGap,
            preference: None,
            usd: None,
            actions: set.actions.iter().cloned().chain(config.new_models.iter().map(NewModel::action)).collect(),
            probation: config.new_models.iter().map(NewModel::probation).collect(),
            summary: LearningSummary {
                learning: config.learning.clone(),
                corrections: None,
                new_models: config.new_models.clone(),
                learned_on_from: None,
            },
        };
        match &config.learning {
            Learning::InverseGap => {}
            Learning::PolicyGradient { config: gradient, quality_at_least } => {
                let objective = objective_to_learn(config, *quality_at_least);
                let settings = (&config.reward_model, gradient);
                let found = policy_gradient::train(
                    &set.samples,
                    rows,
                    features,
                    known,
                    settings,
                    (&objective, config.floor),
                    training,
                )?;
                if let Some(quality) = *quality_at_least {
                    learned.usd = Some(usd_weight_for_quality(&found, quality, objective.quality)?);
                }
                learned.summary.corrections = Some(found.summary);
                let LearnedCorrections { layers: corrections, preference, .. } = found;
                learned.network = side_by_side(&learned.network, &plain(&corrections)?)?;
                learned.heads = Heads::QualityLogitsThenLnCostUsdThenCorrections;
                learned.strategy = Strategy::Softmax { temperature: gradient.temperature };
                learned.preference = Some(preference);
            }
            Learning::Thompson | Learning::UpperBound { .. } => {
                learned.strategy = match config.learning {
                    Learning::UpperBound { width } => Strategy::UpperBound { width },
                    _ => Strategy::Thompson,
                };
                let discount = Discount::new(&set.samples, rows, config.reward_model.half_life_days)?;
                let inputs = encode(&set.samples, rows, features);
                // Nothing was seen of new models: theirs stay at the prior.
                let all = learned.actions.len();
                let weight = |sample: &crate::training_set::Sample| discount.weight(sample);
                let found = precisions(&runtime_network(&layers)?, &inputs, &set.samples, rows, all, weight);
                learned.posterior = Some(found.posterior()?);
            }
        }
        Ok(learned)
    }
}

impl NewModel {
    fn action(&self) -> Action {
        Action { model: self.model.clone(), input_usd_per_mtok: None, output_usd_per_mtok: None }
    }

    fn probation(&self) -> Probation {
        Probation { model: self.model.clone(), share: self.share }
    }
}

/// A quality to reach is a trade-off that is looked for: until it is found, quality alone is what is learned for.
fn objective_to_learn(config: &TrainConfig, quality_at_least: Option<f64>) -> Objective {
    let objective = config.outcome.objective();
    if quality_at_least.is_some() {
        Objective { quality: objective.quality.max(f64::MIN_POSITIVE), usd: 0.0 }
    } else {
        objective
    }
}

/// The place of the model that each new one is like.
fn likes(set: &TrainingSet, new_models: &[NewModel]) -> Result<Vec<usize>> {
    let place = |name: &str| set.actions.iter().position(|action| action.model == name);
    let like = |NewModel { model, like, .. }: &NewModel| {
        if place(model).is_some() {
            return Err(LearnError::Config(format!("model {model} is in the logs already: it needs no probation")));
        }
        place(like).ok_or_else(|| {
            LearnError::Config(format!(
                "model {like}, which {model} is said to be like, is not in the logs: name one that is"
            ))
        })
    };
    new_models.iter().map(like).collect()
}

/// The same layers with an output more, in each block of `known` outputs, for every new model: a copy of that of the one that it is like.
fn with_new_outputs(mut layers: Vec<PlainLayer>, known: usize, likes: &[usize]) -> Vec<PlainLayer> {
    let Some(last) = layers.last_mut() else { return layers };
    let blocks = last.bias.len() / known;
    let of = |block: usize| (0..known).chain(likes.iter().copied()).map(move |action| block * known + action);
    let outputs: Vec<usize> = (0..blocks).flat_map(of).collect();
    let weight =
        outputs.iter().flat_map(|&output| last.weight[output * last.inputs..(output + 1) * last.inputs].to_vec());
    last.weight = weight.collect();
    last.bias = outputs.iter().map(|&output| last.bias[output]).collect();
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_model_is_guessed_like_the_one_that_it_is_like() {
        let layer = PlainLayer { inputs: 1, weight: vec![1.0, 2.0, 3.0, 4.0], bias: vec![0.1, 0.2, 0.3, 0.4] };
        let grown = with_new_outputs(vec![layer], 2, &[1]);
        assert_eq!(grown[0].weight, [1.0, 2.0, 2.0, 3.0, 4.0, 4.0]);
        assert_eq!(grown[0].bias, [0.1, 0.2, 0.2, 0.3, 0.4, 0.4]);
    }
}
