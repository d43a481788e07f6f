//! A loaded policy: context in, propensities and a choice out.

use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, POLICY_FILE, ROUTING_POLICY_KIND, WEIGHTS_FILE, canonical_json};
use crate::context::Context;
use crate::error::PolicyError;
use crate::exploration::{Exploration, inverse_cdf, inverse_gap_weights};
use crate::features::FeatureSpec;
use crate::mlp::{Mlp, MlpScratch};

/// One thing that the policy can choose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Name of the model, as the router knows it.
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

    fn problem(&self) -> Option<&'static str> {
        let sound = |x: f64| x.is_finite() && x >= 0.0;
        (!sound(self.quality) || !sound(self.usd)).then_some("objective weights must be finite, zero or above")
    }
}

/// What the K actions' 2K outputs mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heads {
    /// First K logits of the quality (sigmoid gives q̂), then K natural logarithms of the cost in USD (exp gives ĉ).
    QualityLogitsThenLnCostUsd,
}

impl Heads {
    /// Number of outputs for `actions` actions.
    #[must_use]
    pub fn outputs(self, actions: usize) -> usize {
        match self {
            Self::QualityLogitsThenLnCostUsd => 2 * actions,
        }
    }
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
}

impl PolicySpec {
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

    fn check(&self) -> Result<(), PolicyError> {
        let mut names: Vec<&str> = self.actions.iter().map(|a| a.model.as_str()).collect();
        names.sort_unstable();
        let problem = if names.is_empty() {
            Some("there are no actions".to_owned())
        } else if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(format!("model {:?} is listed twice", twice[0]))
        } else {
            let numbers = self.exploration.problem().or_else(|| self.objective.problem());
            self.features.problem().or_else(|| numbers.map(str::to_owned))
        };
        problem.map_or(Ok(()), |why| Err(PolicyError::Spec { why }))
    }
}

/// Reusable room for one decision at a time. After the first use with a policy nothing is allocated.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    input: Vec<f32>,
    mlp: MlpScratch,
    quality: Vec<f64>,
    cost_usd: Vec<f64>,
    utility: Vec<f64>,
    propensity: Vec<f64>,
}

impl Scratch {
    /// Probability of every action, in order, of the last decision made with this scratch.
    #[must_use]
    pub fn propensities(&self) -> &[f64] {
        &self.propensity
    }

    /// What the last decision is expected to cost beside always taking the best allowed action, in units of utility:
    /// `Σ p(a) (u* - u(a))`. What exploration pays for evidence.
    #[must_use]
    pub fn expected_loss(&self) -> f64 {
        let possible =
            || self.utility.iter().zip(&self.propensity).filter(|(utility, p)| **p > 0.0 && utility.is_finite());
        let best = possible().map(|(utility, _)| *utility).fold(f64::NEG_INFINITY, f64::max);
        possible().map(|(utility, p)| p * (best - utility)).sum()
    }

    fn fit(&mut self, policy: &Policy) {
        if self.input.len() != policy.width {
            self.input.resize(policy.width, 0.0);
        }
        let actions = policy.spec.actions.len();
        for buffer in [&mut self.quality, &mut self.cost_usd, &mut self.utility, &mut self.propensity] {
            if buffer.len() != actions {
                buffer.resize(actions, 0.0);
            }
        }
    }
}

/// What the network expects of every action, in the policy's order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predictions<'s> {
    /// q̂ in \[0, 1\].
    pub quality: &'s [f64],
    /// ĉ, USD per request.
    pub cost_usd: &'s [f64],
    /// The objective of the two.
    pub utility: &'s [f64],
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Index into [`PolicySpec::actions`].
    pub action: usize,
    /// Exact probability with which this action was drawn, in (0, 1].
    pub propensity: f64,
}

/// A policy, ready to decide. Immutable and shared between threads; each thread has its own [`Scratch`].
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    spec: PolicySpec,
    network: Mlp,
    width: usize,
}

impl Policy {
    /// Loads the policy of a bundle. The bundle's hashes are already checked; whether to trust who signed it is
    /// [`crate::Trust`]'s business.
    ///
    /// # Errors
    /// When the bundle is of another kind, a file is missing, or `policy.json` and the weights are illegal or do not
    /// fit each other.
    pub fn load(bundle: &Bundle) -> Result<Self, PolicyError> {
        if bundle.manifest.kind != ROUTING_POLICY_KIND {
            return Err(PolicyError::Kind { expected: ROUTING_POLICY_KIND, found: bundle.manifest.kind.clone() });
        }
        let file = |path: &'static str| bundle.files.get(path).ok_or(PolicyError::Missing { path });
        let spec = PolicySpec::from_json(file(POLICY_FILE)?)?;
        let network = Mlp::from_safetensors(file(WEIGHTS_FILE)?)?;
        Self::new(spec, network)
    }

    /// Puts a spec and a network together.
    ///
    /// # Errors
    /// When the spec is illegal, or its features and actions do not fit the network's inputs and outputs.
    pub fn new(spec: PolicySpec, network: Mlp) -> Result<Self, PolicyError> {
        spec.check()?;
        let width = spec.features.width();
        let outputs = spec.heads.outputs(spec.actions.len());
        if network.inputs() != width || network.outputs() != outputs {
            let (inputs, gives) = (network.inputs(), network.outputs());
            let why = format!("they map {inputs} to {gives} numbers, policy.json needs {width} to {outputs}");
            return Err(PolicyError::Weights { why });
        }
        Ok(Self { spec, network, width })
    }

    /// What the policy is made of.
    #[must_use]
    pub fn spec(&self) -> &PolicySpec {
        &self.spec
    }

    /// What can be chosen, in order.
    #[must_use]
    pub fn actions(&self) -> &[Action] {
        &self.spec.actions
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Mlp {
        &self.network
    }

    /// Room for decisions of this policy.
    #[must_use]
    pub fn scratch(&self) -> Scratch {
        let mut scratch = Scratch::default();
        scratch.fit(self);
        // One pass sizes the network's buffers too.
        self.network.forward(&scratch.input, &mut scratch.mlp);
        scratch
    }

    /// Predicted quality, cost and utility of every action.
    pub fn predict<'s>(&self, context: &Context<'_>, scratch: &'s mut Scratch) -> Predictions<'s> {
        self.score(&self.spec.objective, context, scratch);
        Predictions { quality: &scratch.quality, cost_usd: &scratch.cost_usd, utility: &scratch.utility }
    }

    /// Probability of every action, in order; disallowed ones have exactly 0, the rest sum to 1.
    ///
    /// # Errors
    /// When `allowed` has not one flag per action, or allows nothing.
    pub fn propensities<'s>(
        &self,
        context: &Context<'_>,
        allowed: &[bool],
        scratch: &'s mut Scratch,
    ) -> Result<&'s [f64], PolicyError> {
        self.propensities_under(self.spec.exploration, &self.spec.objective, context, allowed, scratch)
    }

    /// The same, under another exploration than the policy's own ([`Exploration::NONE`] takes what looks best) and for another objective:
    /// quality and cost are predicted apart, so a request may say what its dollars are worth.
    ///
    /// # Errors
    /// As [`Policy::propensities`].
    pub fn propensities_under<'s>(
        &self,
        Exploration { gamma, floor }: Exploration,
        objective: &Objective,
        context: &Context<'_>,
        allowed: &[bool],
        scratch: &'s mut Scratch,
    ) -> Result<&'s [f64], PolicyError> {
        let expected = self.spec.actions.len();
        if allowed.len() != expected {
            return Err(PolicyError::AllowedLength { expected, found: allowed.len() });
        }
        if !allowed.contains(&true) {
            return Err(PolicyError::NothingAllowed);
        }
        if let Some(why) = objective.problem() {
            return Err(PolicyError::Spec { why: why.to_owned() });
        }
        self.score(objective, context, scratch);
        inverse_gap_weights(&scratch.utility, allowed, gamma, floor, &mut scratch.propensity);
        Ok(&scratch.propensity)
    }

    /// Chooses: the inverse of the cumulative distribution over the actions in order, at the uniform draw `u`.
    ///
    /// # Errors
    /// As [`Policy::propensities`], and when `u` is not in \[0, 1).
    pub fn decide(
        &self,
        context: &Context<'_>,
        allowed: &[bool],
        u: f64,
        scratch: &mut Scratch,
    ) -> Result<Decision, PolicyError> {
        self.decide_under(self.spec.exploration, &self.spec.objective, context, allowed, u, scratch)
    }

    /// The same, under another exploration than the policy's own, and for another objective.
    ///
    /// # Errors
    /// As [`Policy::decide`], and when the objective makes no sense.
    pub fn decide_under(
        &self,
        exploration: Exploration,
        objective: &Objective,
        context: &Context<'_>,
        allowed: &[bool],
        u: f64,
        scratch: &mut Scratch,
    ) -> Result<Decision, PolicyError> {
        if !(0.0..1.0).contains(&u) {
            return Err(PolicyError::Draw(u));
        }
        let propensities = self.propensities_under(exploration, objective, context, allowed, scratch)?;
        let action = inverse_cdf(propensities, u).ok_or(PolicyError::NothingAllowed)?;
        Ok(Decision { action, propensity: propensities[action] })
    }

    fn score(&self, objective: &Objective, context: &Context<'_>, scratch: &mut Scratch) {
        scratch.fit(self);
        self.spec.features.encode(context, &mut scratch.input);
        let output = self.network.forward(&scratch.input, &mut scratch.mlp);
        let (logits, ln_costs) = output.split_at(self.spec.actions.len());
        for action in 0..self.spec.actions.len() {
            let quality = sigmoid(f64::from(logits[action]));
            let cost_usd = f64::from(ln_costs[action]).exp();
            scratch.quality[action] = quality;
            scratch.cost_usd[action] = cost_usd;
            scratch.utility[action] = objective.utility(quality, cost_usd);
        }
    }
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}
