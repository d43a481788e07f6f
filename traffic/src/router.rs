//! Who chooses the model: the seam at which a new policy is taken up in the middle of a run.

use std::collections::HashMap;

use weir_policy_runtime::{Context, Policy, Scratch, sticky_uniform};

/// A model that can be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Its name on the wire.
    pub name: String,
    /// List price, USD per million prompt tokens.
    pub input_usd_per_mtok: Option<f64>,
    /// List price, USD per million completion tokens.
    pub output_usd_per_mtok: Option<f64>,
}

/// A choice with everything that must be logged about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Index into the candidates.
    pub action: usize,
    /// Probability with which that one was drawn, in (0, 1].
    pub propensity: f64,
    /// Probability of each candidate; sums to 1.
    pub propensities: Vec<f64>,
    /// Policy that chose.
    pub policy_version: String,
}

/// Chooses models. Sticky: the random draw is a function of the session, and a session keeps its model.
pub trait Router: Send {
    /// Chooses one of `candidates`, of which there is at least one.
    fn route(&mut self, context: &Context<'_>, session: &str, candidates: &[ModelInfo]) -> Choice;
}

/// Every candidate is as likely as every other.
#[derive(Debug, Clone)]
pub struct UniformRouter {
    salt: Vec<u8>,
}

impl UniformRouter {
    /// Version that it logs.
    pub const POLICY_VERSION: &'static str = "uniform";

    /// A router that draws with this salt.
    #[must_use]
    pub fn new(salt: impl Into<Vec<u8>>) -> Self {
        Self { salt: salt.into() }
    }
}

impl Router for UniformRouter {
    fn route(&mut self, _context: &Context<'_>, session: &str, candidates: &[ModelInfo]) -> Choice {
        let count = candidates.len();
        let propensity = 1.0 / count as f64;
        let draw = sticky_uniform(&self.salt, session);
        Choice {
            action: ((draw * count as f64) as usize).min(count - 1),
            propensity,
            propensities: vec![propensity; count],
            policy_version: Self::POLICY_VERSION.to_owned(),
        }
    }
}

/// Mostly one model: with probability `epsilon` a uniform choice, else the favourite (by name; the first candidate when
/// it is not among them).
#[derive(Debug, Clone)]
pub struct EpsilonRouter {
    favourite: String,
    epsilon: f64,
    salt: Vec<u8>,
}

impl EpsilonRouter {
    /// Version that it logs.
    pub const POLICY_VERSION: &'static str = "epsilon";

    /// A router that explores a share `epsilon` of the sessions, 0 to 1; what lies outside is moved to the nearer end.
    #[must_use]
    pub fn new(favourite: impl Into<String>, epsilon: f64, salt: impl Into<Vec<u8>>) -> Self {
        let epsilon = if epsilon.is_nan() { 1.0 } else { epsilon.clamp(0.0, 1.0) };
        Self { favourite: favourite.into(), epsilon, salt: salt.into() }
    }
}

impl Router for EpsilonRouter {
    fn route(&mut self, _context: &Context<'_>, session: &str, candidates: &[ModelInfo]) -> Choice {
        let count = candidates.len();
        let favourite = candidates.iter().position(|candidate| candidate.name == self.favourite).unwrap_or(0);
        let explored = self.epsilon / count as f64;
        let mut propensities = vec![explored; count];
        propensities[favourite] += 1.0 - self.epsilon;
        let draw = sticky_uniform(&self.salt, session);
        // The exploring share of the draws comes first and is itself spread evenly.
        let explores = draw < self.epsilon;
        let action = if explores { ((draw / explored) as usize).min(count - 1) } else { favourite };
        Choice {
            action,
            propensity: propensities[action],
            propensities,
            policy_version: Self::POLICY_VERSION.to_owned(),
        }
    }
}

/// A published policy, as `weir decide` plays it: what is randomised is the session, so its first choice, with its
/// probabilities, stays for later turns, whatever their context. A turn whose candidates are others than the first one's
/// is a new draw.
///
/// Candidates that the policy does not know have probability 0; when it knows none of them the choice is uniform and
/// logged under [`UniformRouter::POLICY_VERSION`].
#[derive(Debug)]
pub struct PolicyRouter {
    policy: Policy,
    policy_version: String,
    salt: Vec<u8>,
    scratch: Scratch,
    allowed: Vec<bool>,
    /// First choices, with the names that they chose from. A simulation is finite, so they all stay.
    sessions: HashMap<String, (Vec<String>, Choice)>,
}

impl PolicyRouter {
    /// A router that plays `policy` and logs `policy_version` (its content id).
    #[must_use]
    pub fn new(policy: Policy, policy_version: impl Into<String>, salt: impl Into<Vec<u8>>) -> Self {
        let scratch = policy.scratch();
        let allowed = vec![false; policy.actions().len()];
        let (policy_version, salt) = (policy_version.into(), salt.into());
        Self { policy, policy_version, salt, scratch, allowed, sessions: HashMap::new() }
    }

    fn draw(&mut self, context: &Context<'_>, session: &str, candidates: &[ModelInfo]) -> Choice {
        let position = |model: &str| candidates.iter().position(|candidate| candidate.name == model);
        for (flag, action) in self.allowed.iter_mut().zip(self.policy.actions()) {
            *flag = position(&action.model).is_some();
        }
        let draw = sticky_uniform(&self.salt, session);
        let Ok(decision) = self.policy.decide(context, &self.allowed, draw, &mut self.scratch) else {
            return UniformRouter::new(self.salt.clone()).route(context, session, candidates);
        };
        let mut propensities = vec![0.0; candidates.len()];
        if let Ok(by_action) = self.policy.propensities(context, &self.allowed, &mut self.scratch) {
            for (action, propensity) in self.policy.actions().iter().zip(by_action) {
                if let Some(candidate) = position(&action.model) {
                    propensities[candidate] = *propensity;
                }
            }
        }
        let chosen = position(&self.policy.actions()[decision.action].model).expect("only candidates are allowed");
        Choice {
            action: chosen,
            propensity: decision.propensity,
            propensities,
            policy_version: self.policy_version.clone(),
        }
    }
}

impl Router for PolicyRouter {
    fn route(&mut self, context: &Context<'_>, session: &str, candidates: &[ModelInfo]) -> Choice {
        if let Some((names, first)) = self.sessions.get(session)
            && names.iter().eq(candidates.iter().map(|candidate| &candidate.name))
        {
            return first.clone();
        }
        let choice = self.draw(context, session, candidates);
        let names = candidates.iter().map(|candidate| candidate.name.clone()).collect();
        self.sessions.insert(session.to_owned(), (names, choice.clone()));
        choice
    }
}
