//! `policy.json`: what a policy chooses from, what it maximises and how it draws.

use serde::{Deserialize, Serialize};

use crate::bundle::canonical_json;
use crate::error::PolicyError;
use crate::exploration::Exploration;
use crate::features::FeatureSpec;
use crate::heads::Heads;
use crate::strategy::Strategy;

/// One thing that the policy can choose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Name of the model, as the router knows it; with parts where the action is more than a model, see [`crate::ActionParts`].
    pub model: String,
    /// List price, USD per million prompt tokens; for people, the network predicts the cost itself.
    pub input_usd_per_mtok: Option<f64>,
    /// List price, USD per million completion tokens.
    pub output_usd_per_mtok: Option<f64>,
}

/// What the policy maximises: `quality` · q̂ - `usd` · ĉ, with q̂ in \[0, 1\] and ĉ in USD per request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// Utility of quality 1 over quality 0.
    pub quality: f64,
    /// Utility lost per US dollar.
    pub usd: f64,
}

impl Objective {
    /// Utility of a predicted or observed (quality, cost). With `usd` 0 the cost does not matter, even if unknown.
    #[must_use]
    pub fn utility(&self, quality: f64, cost_usd: f64) -> f64 {
        let price = if self.usd == 0.0 { 0.0 } else { self.usd * cost_usd };
        self.quality * quality - price
    }

    pub(crate) fn problem(&self) -> Option<&'static str> {
        let sound = |x: f64| x.is_finite() && x >= 0.0;
        (!sound(self.quality) || !sound(self.usd)).then_some("objective weights must be finite, zero or above")
    }
}

/// How a trade-off between quality and cost looks to the network, whatever its units.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preference {
    /// A dollar amount of the size of one request's cost: what a unit of quality is held against.
    pub usd_scale: f64,
}

impl Preference {
    /// The size of utilities under an objective: `quality + usd · usd_scale`.
    #[must_use]
    pub fn scale(&self, objective: &Objective) -> f64 {
        objective.quality + objective.usd * self.usd_scale
    }

    /// Cost's share of the scale, in \[0, 1\]: 0 where only quality counts. What the network gets.
    #[must_use]
    pub fn input(&self, objective: &Objective) -> f64 {
        let scale = self.scale(objective);
        if scale > 0.0 { objective.usd * self.usd_scale / scale } else { 0.0 }
    }

    pub(crate) fn problem(&self) -> Option<&'static str> {
        let sound = self.usd_scale.is_finite() && self.usd_scale > 0.0;
        (!sound).then_some("preference.usd_scale must be a finite number above 0")
    }
}

/// A model that has no evidence yet, and gets a fixed share of the decisions to gather some.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probation {
    /// Its name among the actions.
    pub model: String,
    /// Its probability wherever it and another model are allowed, in (0, 1); all shares together stay below 1/2.
    pub share: f64,
}

/// `policy.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// The network's input.
    pub features: FeatureSpec,
    /// What can be chosen; the order is the order of the outputs.
    pub actions: Vec<Action>,
    /// How far to stray from the best guess.
    pub exploration: Exploration,
    /// What to maximise.
    pub objective: Objective,
    /// The network's output.
    pub heads: Heads,
    /// How utilities become probabilities.
    #[serde(default, skip_serializing_if = "Strategy::is_default")]
    pub strategy: Strategy,
    /// What scales corrections and softmax; only with these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<Preference>,
    /// Models without evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probation: Vec<Probation>,
    /// Utility lost per second of waiting that a request says its pool would add; none where time counts for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utility_per_s: Option<f64>,
    /// Is each turn of a session a choice of its own? Otherwise a session keeps its first one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub per_turn: bool,
    /// Of [`Heads::UtilitiesThenLoggedLogits`]: least logged probability of a choice, as a share of the likeliest allowed one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logged_share_min: Option<f64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl PolicySpec {
    /// A policy that guesses quality and cost of every action and draws by inverse-gap weighting; the rest is set beside it.
    #[must_use]
    pub fn of_guesses(
        features: FeatureSpec,
        actions: Vec<Action>,
        exploration: Exploration,
        objective: Objective,
    ) -> Self {
        Self {
            features,
            actions,
            exploration,
            objective,
            heads: Heads::QualityLogitsThenLnCostUsd,
            strategy: Strategy::InverseGap,
            preference: None,
            probation: Vec::new(),
            utility_per_s: None,
            per_turn: false,
            logged_share_min: None,
        }
    }

    /// Parses and checks `policy.json`.
    ///
    /// # Errors
    /// When it is not JSON of this shape or holds an illegal value.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PolicyError> {
        let spec: Self = serde_json::from_slice(bytes).map_err(|e| PolicyError::Spec { why: e.to_string() })?;
        spec.check()?;
        Ok(spec)
    }

    /// Canonical bytes of `policy.json`: the same spec gives the same bytes.
    ///
    /// # Errors
    /// When the spec holds an illegal value.
    pub fn to_json(&self) -> Result<Vec<u8>, PolicyError> {
        self.check()?;
        let value = serde_json::to_value(self).map_err(|e| PolicyError::Spec { why: e.to_string() })?;
        Ok(canonical_json(&value))
    }

    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        let mut names: Vec<&str> = self.actions.iter().map(|a| a.model.as_str()).collect();
        names.sort_unstable();
        let problem = if names.is_empty() {
            Some("there are no actions".to_owned())
        } else if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(format!("model {:?} is listed twice", twice[0]))
        } else {
            let numbers = self.exploration.problem().or_else(|| self.objective.problem());
            let numbers = numbers.or_else(|| self.strategy.problem());
            let numbers = numbers.or_else(|| self.preference.as_ref().and_then(Preference::problem));
            self.features.problem().or_else(|| numbers.map(str::to_owned)).or_else(|| self.other_problem())
        };
        problem.map_or(Ok(()), |why| Err(PolicyError::Spec { why }))
    }

    fn other_problem(&self) -> Option<String> {
        if self.utility_per_s.is_some_and(|x| !x.is_finite() || x < 0.0) {
            return Some("utility_per_s must be a finite number, zero or above".to_owned());
        }
        if self.heads.are_utilities() && self.strategy != Strategy::InverseGap {
            return Some("heads of utilities are drawn from by the strategy inverse_gap".to_owned());
        }
        if let Some(why) = self.logged_share_problem() {
            return Some(why.to_owned());
        }
        let scaled = self.heads.has_corrections() || matches!(self.strategy, Strategy::Softmax { .. });
        if scaled && self.preference.is_none() {
            return Some("corrections and softmax need preference.usd_scale".to_owned());
        }
        for (place, Probation { model, share }) in self.probation.iter().enumerate() {
            if !self.actions.iter().any(|action| action.model == *model) {
                return Some(format!("probation names {model:?}, which is no action"));
            }
            if self.probation[..place].iter().any(|other| other.model == *model) {
                return Some(format!("probation names {model:?} twice"));
            }
            if !(share.is_finite() && *share > 0.0) {
                return Some(format!("the probation share of {model:?} must lie above 0"));
            }
        }
        let shares: f64 = self.probation.iter().map(|model| model.share).sum();
        (shares >= 0.5).then(|| "probation shares must sum to less than 1/2".to_owned())
    }

    fn logged_share_problem(&self) -> Option<&'static str> {
        match (self.heads, self.logged_share_min) {
            (Heads::UtilitiesThenLoggedLogits, None) => Some("heads with logged logits need logged_share_min"),
            (Heads::UtilitiesThenLoggedLogits, Some(_)) if !self.probation.is_empty() => {
                Some("a model on probation has no logs: heads with logged logits take none")
            }
            (Heads::UtilitiesThenLoggedLogits, Some(share)) => {
                (!(0.0..=1.0).contains(&share)).then_some("logged_share_min must lie in [0, 1]")
            }
            (_, Some(_)) => Some("logged_share_min needs heads with logged logits"),
            (_, None) => None,
        }
    }
}
