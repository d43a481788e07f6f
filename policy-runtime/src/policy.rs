//! A loaded policy: context in, propensities and a choice out.

use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, POLICY_FILE, POSTERIOR_FILE, ROUTING_POLICY_KIND, WEIGHTS_FILE};
use crate::context::Context;
use crate::error::PolicyError;
use crate::exploration::{Exploration, inverse_cdf, inverse_gap_weights};
use crate::mlp::{Layer, Mlp, MlpScratch};
use crate::posterior::Posterior;
use crate::spec::{Action, Objective, PolicySpec};
use crate::strategy::{Strategy, best_probabilities, softmax_weights};

/// The terms of one decision, where they are not the policy's own.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// How far to stray from the best guess; [`Exploration::NONE`] takes what looks best.
    pub exploration: Exploration,
    /// What to maximise: quality and cost are predicted apart, so a request may say what its dollars are worth.
    pub objective: Objective,
    /// Seconds that each action's pool would let the request wait beyond what it usually does, at [`PolicySpec::utility_per_s`] each;
    /// empty where nobody knows.
    pub wait_s: &'a [f64],
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
    /// Standard deviations of the utilities, where a posterior knows them.
    sd: Vec<f64>,
    /// Those that are no longer, or never, on probation.
    settled: Vec<bool>,
    room: Vec<f64>,
    /// Logits of what the logs chose, where the heads have them.
    logged: Vec<f32>,
}

impl Scratch {
    /// Probability of every action, in order, of the last decision made with this scratch.
    #[must_use]
    pub fn propensities(&self) -> &[f64] {
        &self.propensity
    }

    /// What the last decision is expected to cost beside always taking the best allowed action that is not on probation, in units of
    /// utility: `Σ p(a) (u* - u(a))`. What exploration pays for evidence; an action on probation that is guessed to be better pays nothing.
    #[must_use]
    pub fn expected_loss(&self) -> f64 {
        let best = self.best_settled();
        let possible =
            self.utility.iter().zip(&self.propensity).filter(|(utility, p)| **p > 0.0 && utility.is_finite());
        possible.map(|(utility, p)| p * (best - utility).max(0.0)).sum()
    }

    /// Was this action of the last decision drawn to learn something: is it on probation, or not what looks best?
    #[must_use]
    pub fn explores(&self, action: usize) -> bool {
        !self.settled[action] || self.utility[action] < self.best_settled()
    }

    fn best_settled(&self) -> f64 {
        let settled =
            self.utility.iter().zip(&self.settled).filter(|(utility, settled)| **settled && utility.is_finite());
        settled.map(|(utility, _)| *utility).fold(f64::NEG_INFINITY, f64::max)
    }

    fn fit(&mut self, policy: &Policy) {
        if self.input.len() != policy.width {
            self.input.resize(policy.width, 0.0);
        }
        let actions = policy.spec.actions.len();
        let buffers = [&mut self.quality, &mut self.cost_usd, &mut self.utility, &mut self.propensity, &mut self.sd];
        for buffer in buffers {
            if buffer.len() != actions {
                buffer.resize(actions, 0.0);
            }
        }
        self.settled.resize(actions, true);
    }
}

/// What the network expects of every action, in the policy's order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predictions<'s> {
    /// q̂ in \[0, 1\]; NaN where the heads are utilities.
    pub quality: &'s [f64],
    /// ĉ, USD per request; NaN where the heads are utilities.
    pub cost_usd: &'s [f64],
    /// The objective of the two, corrected where the policy has corrections.
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
    posterior: Option<Posterior>,
    /// The network's inputs.
    width: usize,
    /// The share that each action gets on probation, 0 for all others.
    probation: Vec<f64>,
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
        if !spec.strategy.needs_posterior() {
            return Self::new(spec, network);
        }
        let posterior = Posterior::from_safetensors(file(POSTERIOR_FILE)?)?;
        Self::with_posterior(spec, network, posterior)
    }

    /// Puts a spec and a network together.
    ///
    /// # Errors
    /// When the spec is illegal, or its features and actions do not fit the network's inputs and outputs.
    pub fn new(spec: PolicySpec, network: Mlp) -> Result<Self, PolicyError> {
        if spec.strategy.needs_posterior() {
            return Err(PolicyError::Missing { path: POSTERIOR_FILE });
        }
        Self::put_together(spec, network, None)
    }

    /// The same, for a strategy that asks how sure the network is.
    ///
    /// # Errors
    /// As [`Policy::new`], and when the posterior fits neither actions nor network.
    pub fn with_posterior(spec: PolicySpec, network: Mlp, posterior: Posterior) -> Result<Self, PolicyError> {
        let last = network.layers().last().map_or(0, Layer::inputs);
        if posterior.actions() != spec.actions.len() || posterior.inputs() > last {
            let (actions, inputs) = (posterior.actions(), posterior.inputs());
            let why = format!("it is about {actions} actions and {inputs} inputs of a last layer, which has {last}");
            return Err(PolicyError::Posterior { why });
        }
        Self::put_together(spec, network, Some(posterior))
    }

    fn put_together(spec: PolicySpec, network: Mlp, posterior: Option<Posterior>) -> Result<Self, PolicyError> {
        spec.check()?;
        let width = spec.features.width() + spec.heads.extra_inputs();
        let outputs = spec.heads.outputs(spec.actions.len());
        if network.inputs() != width || network.outputs() != outputs {
            let (inputs, gives) = (network.inputs(), network.outputs());
            let why = format!("they map {inputs} to {gives} numbers, policy.json needs {width} to {outputs}");
            return Err(PolicyError::Weights { why });
        }
        let share = |action: &Action| spec.probation.iter().find(|entry| entry.model == action.model);
        let probation = spec.actions.iter().map(|action| share(action).map_or(0.0, |entry| entry.share)).collect();
        Ok(Self { spec, network, posterior, width, probation })
    }

    /// The same, straying otherwise from its best guess.
    ///
    /// # Errors
    /// When the exploration is illegal.
    pub fn exploring(self, exploration: Exploration) -> Result<Self, PolicyError> {
        let spec = PolicySpec { exploration, ..self.spec };
        Self::put_together(spec, self.network, self.posterior)
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

    /// How sure the network is, where the strategy asks.
    #[must_use]
    pub fn posterior(&self) -> Option<&Posterior> {
        self.posterior.as_ref()
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
        scratch.logged.reserve(self.spec.heads.outputs(self.spec.actions.len()));
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
        self.propensities_under(&self.terms(), context, allowed, scratch)
    }

    /// The policy's own terms.
    #[must_use]
    pub fn terms(&self) -> Terms<'static> {
        Terms { exploration: self.spec.exploration, objective: self.spec.objective, wait_s: &[] }
    }

    /// The same, under other terms than the policy's own.
    ///
    /// # Errors
    /// As [`Policy::propensities`], when the objective makes no sense, and when waits are given for some actions only.
    pub fn propensities_under<'s>(
        &self,
        terms: &Terms<'_>,
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
        let Terms { exploration, objective, wait_s } = terms;
        if let Some(why) = objective.problem() {
            return Err(PolicyError::Spec { why: why.to_owned() });
        }
        if self.spec.heads.are_utilities() && *objective != self.spec.objective {
            return Err(PolicyError::FixedObjective);
        }
        if !wait_s.is_empty() && wait_s.len() != expected {
            return Err(PolicyError::AllowedLength { expected, found: wait_s.len() });
        }
        self.score(objective, context, scratch);
        if let Some(per_s) = self.spec.utility_per_s {
            // Seconds are part of the price: a request whose price weighs more or less weighs its waiting as much more or less.
            let own = self.spec.objective.usd;
            let per_s = if own > 0.0 { per_s * objective.usd / own } else { per_s };
            scratch.utility.iter_mut().zip(*wait_s).for_each(|(utility, wait_s)| *utility -= per_s * wait_s);
        }
        // Models on probation get their share, and the others what is left; where nothing is explored they get none.
        let on_probation = |action: usize| allowed[action] && self.probation[action] > 0.0;
        let others = (0..expected).any(|action| allowed[action] && !on_probation(action));
        let explores = exploration.gamma.is_finite();
        for (action, settled) in scratch.settled.iter_mut().enumerate() {
            *settled = allowed[action] && !(others && on_probation(action));
        }
        if let Some(share_min) = self.spec.logged_share_min {
            keep_logged(&scratch.logged, share_min, &mut scratch.settled);
        }
        self.weigh(*exploration, objective, scratch);
        if others && explores {
            let shares: f64 = (0..expected).filter(|&action| on_probation(action)).map(|a| self.probation[a]).sum();
            for action in 0..expected {
                let kept = &mut scratch.propensity[action];
                *kept = if on_probation(action) { self.probation[action] } else { *kept * (1.0 - shares) };
            }
        }
        Ok(&scratch.propensity)
    }

    /// Probabilities of the settled actions, by the strategy; an endless γ is greedy under each.
    fn weigh(&self, Exploration { gamma, floor }: Exploration, objective: &Objective, scratch: &mut Scratch) {
        let Scratch { utility, propensity, sd, settled, room, .. } = scratch;
        match self.spec.strategy {
            Strategy::Softmax { temperature } if gamma.is_finite() => {
                let scale = self.spec.preference.map_or(1.0, |preference| preference.scale(objective));
                // A scale of 0 is an objective under which nothing differs.
                let temperature = (temperature * scale).max(f64::MIN_POSITIVE);
                softmax_weights(utility, settled, temperature, floor, propensity);
            }
            Strategy::Thompson if gamma.is_finite() => {
                best_probabilities((utility, sd), settled, floor, room, propensity);
            }
            Strategy::UpperBound { width } if gamma.is_finite() => {
                room.clear();
                room.extend(utility.iter().zip(sd.iter()).map(|(utility, sd)| utility + width * sd));
                inverse_gap_weights(room, settled, f64::INFINITY, floor, propensity);
            }
            _ => inverse_gap_weights(utility, settled, gamma, floor, propensity),
        }
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
        self.decide_under(&self.terms(), context, allowed, u, scratch)
    }

    /// The same, under other terms than the policy's own.
    ///
    /// # Errors
    /// As [`Policy::decide`] and [`Policy::propensities_under`].
    pub fn decide_under(
        &self,
        terms: &Terms<'_>,
        context: &Context<'_>,
        allowed: &[bool],
        u: f64,
        scratch: &mut Scratch,
    ) -> Result<Decision, PolicyError> {
        if !(0.0..1.0).contains(&u) {
            return Err(PolicyError::Draw(u));
        }
        let propensities = self.propensities_under(terms, context, allowed, scratch)?;
        let action = inverse_cdf(propensities, u).ok_or(PolicyError::NothingAllowed)?;
        Ok(Decision { action, propensity: propensities[action] })
    }

    fn score(&self, objective: &Objective, context: &Context<'_>, scratch: &mut Scratch) {
        scratch.fit(self);
        let (features, extra) = scratch.input.split_at_mut(self.spec.features.width());
        self.spec.features.encode(context, features);
        let preference = self.spec.preference.filter(|_| self.spec.heads.has_corrections());
        if let Some(preference) = preference {
            extra.fill(preference.input(objective) as f32);
        }
        let actions = self.spec.actions.len();
        let output = self.network.forward(&scratch.input, &mut scratch.mlp);
        if self.spec.heads.are_utilities() {
            let (utilities, logged) = output.split_at(actions);
            scratch.utility.iter_mut().zip(utilities).for_each(|(utility, score)| *utility = f64::from(*score));
            scratch.quality.fill(f64::NAN);
            scratch.cost_usd.fill(f64::NAN);
            scratch.logged.clear();
            scratch.logged.extend_from_slice(logged);
            return;
        }
        let (logits, rest) = output.split_at(actions);
        let (ln_costs, corrections) = rest.split_at(actions);
        let scale = preference.map_or(0.0, |preference| preference.scale(objective));
        for action in 0..actions {
            let quality = sigmoid(f64::from(logits[action]));
            let cost_usd = f64::from(ln_costs[action]).exp();
            scratch.quality[action] = quality;
            scratch.cost_usd[action] = cost_usd;
            let correction = corrections.get(action).map_or(0.0, |correction| scale * f64::from(*correction));
            scratch.utility[action] = objective.utility(quality, cost_usd) + correction;
        }
        if let Some(posterior) = &self.posterior {
            posterior.logit_sds(self.network.last_inputs(&scratch.input, &scratch.mlp), &mut scratch.sd);
            // The logistic function's slope carries a spread of logits over to one of quality (delta method).
            for (sd, quality) in scratch.sd.iter_mut().zip(&scratch.quality) {
                *sd *= objective.quality * quality * (1.0 - quality);
            }
        }
    }
}

/// Takes the flags off what the logs make too seldom beside the likeliest choice that has one; that one keeps it. Fujimoto et al. 2019,
/// arXiv 1910.01708, algorithm 1.
fn keep_logged(logits: &[f32], share_min: f64, flags: &mut [bool]) {
    let most = logits.iter().zip(&*flags).filter(|(_, flag)| **flag).map(|(logit, _)| *logit);
    let most = most.fold(f32::NEG_INFINITY, f32::max);
    if !most.is_finite() {
        return; // a network that overflows says nothing of the logs, and something must stay possible
    }
    for (flag, logit) in flags.iter_mut().zip(logits) {
        *flag = *flag && (f64::from(logit - most).exp() > share_min || *logit == most);
    }
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}
