//! Agent sessions with known dynamics, so that the worth of every policy is known exactly.
//!
//! A session is a task of a few steps. Each turn one model works on the next step: the step succeeds or not; a turn that did not succeed
//! may have failed (a tool error), which makes the next turn harder and the user readier to leave; the context grows, which costs more and
//! slows small models most; another model than the turn before's finds a cold cache and a context that it did not write. All of that is in
//! the state: turn, domain, steps left, context, warm model, last failure, and whether the caller may use the last (largest) model.
//!
//! Choosing turn by turn is wrong here for two reasons, both real: a small model's turns are cheap and many, and what the large one would
//! have saved in later turns shows in no turn's own reward; and to change over late pays for the whole context again.

use serde::{Deserialize, Serialize};

use super::cut_back::CutBack;
use crate::error::{LearnError, Result};

/// One model of the simulator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedModel {
    /// Name.
    pub name: String,
    /// Chance that a turn takes its step, for each domain, on an empty context.
    pub succeeds: Vec<f64>,
    /// Share of that chance lost with each bucket of context.
    pub lost_per_context: f64,
    /// Chance that a turn which took no step has failed.
    pub fails: f64,
    /// Utility that a turn costs on an empty cold context; each bucket of context adds the same again.
    pub price: f64,
    /// Utility that waiting for a turn costs.
    pub wait: f64,
}

/// The dynamics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulatorConfig {
    /// Models, small to large.
    pub models: Vec<SimulatedModel>,
    /// Domains, easy to hard; each as frequent.
    pub domains: usize,
    /// Steps of a task, least and most; each number as frequent.
    pub steps: (usize, usize),
    /// Buckets of context length.
    pub contexts: usize,
    /// Turns after which a session ends undone.
    pub turns_max: usize,
    /// Chance that the context grows by a bucket in a turn, and what a failure adds to it.
    pub grows: (f64, f64),
    /// Share of the chance to take a step that a failure the turn before leaves.
    pub after_failure: f64,
    /// Share of it that a change of models leaves.
    pub after_switch: f64,
    /// Share of the price that a warm cache leaves.
    pub warm_price: f64,
    /// Chance that the user leaves after a turn, and after a failed one.
    pub leaves: (f64, f64),
    /// Utility of a step.
    pub step_worth: f64,
    /// Utility of a task that is done.
    pub completion_worth: f64,
    /// Share of sessions whose caller may not use the last model.
    pub restricted: f64,
    /// May the session be cut back to before a failed turn, and what does that cost? Not at all where it is left out.
    pub cut_back: Option<CutBack>,
    /// Does a learner see how many steps are left? A router does not; then the best policy is out of a learner's reach.
    pub steps_are_seen: bool,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        let model = |name: &str, succeeds: [f64; 2], lost_per_context, fails, price, wait| SimulatedModel {
            name: name.to_owned(),
            succeeds: succeeds.to_vec(),
            lost_per_context,
            fails,
            price,
            wait,
        };
        Self {
            models: vec![
                model("small", [0.80, 0.20], 0.10, 0.4, 0.010, 0.030),
                model("medium", [0.82, 0.40], 0.08, 0.4, 0.050, 0.030),
                model("large", [0.85, 0.85], 0.05, 0.25, 0.140, 0.030),
            ],
            domains: 2,
            steps: (3, 4),
            contexts: 3,
            turns_max: 12,
            grows: (0.3, 0.3),
            after_failure: 0.8,
            after_switch: 0.8,
            warm_price: 0.4,
            leaves: (0.01, 0.10),
            step_worth: 0.05,
            completion_worth: 1.0,
            restricted: 0.2,
            cut_back: None,
            steps_are_seen: true,
        }
    }
}

/// What is known before a turn's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SimulatedState {
    /// Turns before this one.
    pub turn: usize,
    /// Index of the domain.
    pub domain: usize,
    /// Steps that are left, at least 1.
    pub steps_left: usize,
    /// Bucket of context length.
    pub context: usize,
    /// The model of the turn before.
    pub warm: Option<usize>,
    /// Did the turn before fail?
    pub failed: bool,
    /// Is the last model forbidden?
    pub restricted: bool,
}

/// How a turn can end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TurnEnd {
    /// With which chance.
    pub chance: f64,
    /// What the turn brings then.
    pub reward: f64,
    /// What follows.
    pub next: Next,
}

/// What follows a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another turn.
    Turn(SimulatedState),
    /// The task is done.
    Completed,
    /// The user left, or the session was as long as it may be.
    Undone,
}

/// The simulator.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulator {
    config: SimulatorConfig,
}

impl Simulator {
    /// A simulator of these dynamics.
    ///
    /// # Errors
    /// [`LearnError::Config`] where a chance is none, a size is zero, or a model does not say how it does in each domain.
    pub fn new(config: SimulatorConfig) -> Result<Self> {
        let wrong = |why: &str| Err(LearnError::Config(format!("session simulator: {why}")));
        let sizes = [config.domains, config.contexts, config.turns_max, config.steps.0];
        if config.models.len() < 2 || sizes.contains(&0) || config.steps.1 < config.steps.0 {
            return wrong(
                "two models, a domain, a bucket of context, a turn and a step are the least, and steps go from least to most",
            );
        }
        if config.models.iter().any(|model| model.succeeds.len() != config.domains) {
            return wrong("each model needs one chance of success per domain");
        }
        let of_models =
            config.models.iter().flat_map(|model| model.succeeds.iter().chain([&model.lost_per_context, &model.fails]));
        let (grows, leaves) = (config.grows, config.leaves);
        let own = [
            grows.0,
            grows.0 + grows.1,
            leaves.0,
            leaves.1,
            config.after_failure,
            config.after_switch,
            config.restricted,
        ];
        if !of_models.chain(&own).all(|chance| (0.0..=1.0).contains(chance)) {
            return wrong("chances and shares lie in [0, 1], and growth with a failure too");
        }
        let cut_price = config.cut_back.map_or(0.0, |cut| cut.price);
        let worths = [config.step_worth, config.completion_worth, config.warm_price, cut_price];
        let prices = config.models.iter().flat_map(|model| [model.price, model.wait]);
        if !worths.into_iter().chain(prices).all(f64::is_finite) {
            return wrong("worths and prices are finite numbers");
        }
        Ok(Self { config })
    }

    /// The dynamics.
    #[must_use]
    pub fn config(&self) -> &SimulatorConfig {
        &self.config
    }

    /// What there is to choose from: each model, and, where sessions may be cut back, each model after a cut.
    #[must_use]
    pub fn actions(&self) -> usize {
        self.models() * if self.config.cut_back.is_some() { 2 } else { 1 }
    }

    pub(super) fn models(&self) -> usize {
        self.config.models.len()
    }

    /// Every state has an index below this.
    #[must_use]
    pub fn states(&self) -> usize {
        let config = &self.config;
        config.turns_max * config.domains * config.steps.1 * config.contexts * (self.models() + 1) * 4
    }

    /// The state's index; states of later turns have larger ones.
    #[must_use]
    pub fn index(&self, state: &SimulatedState) -> usize {
        let warm = state.warm.map_or(0, |model| model + 1);
        let digits = [
            (state.domain, self.config.domains),
            (state.steps_left - 1, self.config.steps.1),
            (state.context, self.config.contexts),
            (warm, self.models() + 1),
            (usize::from(state.failed), 2),
            (usize::from(state.restricted), 2),
        ];
        digits.iter().fold(state.turn, |index, (digit, base)| index * base + digit)
    }

    /// The state of an index.
    #[must_use]
    pub fn state(&self, index: usize) -> SimulatedState {
        let mut left = index;
        let mut digit = |base: usize| {
            let digit = left % base;
            left /= base;
            digit
        };
        let (restricted, failed, warm) = (digit(2) == 1, digit(2) == 1, digit(self.models() + 1));
        let (context, steps, domain) =
            (digit(self.config.contexts), digit(self.config.steps.1), digit(self.config.domains));
        SimulatedState {
            turn: left,
            domain,
            steps_left: steps + 1,
            context,
            warm: warm.checked_sub(1),
            failed,
            restricted,
        }
    }

    /// Where sessions begin, with which chance.
    #[must_use]
    pub fn starts(&self) -> Vec<(f64, SimulatedState)> {
        let config = &self.config;
        let (least, most) = config.steps;
        let each = 1.0 / (config.domains * (most - least + 1)) as f64;
        let mut starts = Vec::new();
        for domain in 0..config.domains {
            for steps_left in least..=most {
                for (restricted, share) in [(false, 1.0 - config.restricted), (true, config.restricted)] {
                    let state = SimulatedState {
                        turn: 0,
                        domain,
                        steps_left,
                        context: 0,
                        warm: None,
                        failed: false,
                        restricted,
                    };
                    starts.push((each * share, state));
                }
            }
        }
        starts.retain(|(chance, _)| *chance > 0.0);
        starts
    }

    /// Which actions may be chosen: the last model where it is not forbidden, and a cut where a turn failed that can be cut off.
    #[must_use]
    pub fn allowed(&self, state: &SimulatedState) -> Vec<bool> {
        let may = |(model, cuts): (usize, bool)| {
            let forbidden = state.restricted && model + 1 == self.models();
            !forbidden && (!cuts || state.failed)
        };
        (0..self.actions()).map(|action| may(self.parts(action))).collect()
    }

    /// Every way in which a turn can end; the chances sum to 1.
    #[must_use]
    pub fn ends(&self, state: &SimulatedState, action: usize) -> Vec<TurnEnd> {
        let (action, cuts) = self.parts(action);
        let (state, cut_price) = if cuts { self.cut(state) } else { (*state, 0.0) };
        let (config, model) = (&self.config, &self.config.models[action]);
        let is_switch = state.warm.is_some_and(|warm| warm != action);
        // What is left after a cut is read anew.
        let is_warm = state.warm == Some(action) && !cuts;
        let kept = 1.0 - model.lost_per_context * state.context as f64;
        let troubled = if state.failed { config.after_failure } else { 1.0 };
        let foreign = if is_switch { config.after_switch } else { 1.0 };
        let succeeds = model.succeeds[state.domain] * kept.max(0.0) * troubled * foreign;
        let cold = model.price * (1 + state.context) as f64;
        let price = if is_warm { config.warm_price * cold } else { cold };
        let spent = -(price + model.wait + cut_price);
        let mut ends = Vec::with_capacity(9);
        let took_step = spent + config.step_worth;
        if state.steps_left == 1 {
            let reward = took_step + config.completion_worth;
            ends.push(TurnEnd { chance: succeeds, reward, next: Next::Completed });
        } else {
            let steps_left = state.steps_left - 1;
            self.go_on(
                &SimulatedState { steps_left, failed: false, ..state },
                action,
                (succeeds, took_step),
                &mut ends,
            );
        }
        for (failed, share) in [(true, model.fails), (false, 1.0 - model.fails)] {
            let chance = (1.0 - succeeds) * share;
            self.go_on(&SimulatedState { failed, ..state }, action, (chance, spent), &mut ends);
        }
        ends.retain(|end| end.chance > 0.0);
        ends
    }

    /// The user leaves or stays, and the context grows or does not. `after` is the state but for turn, context and warm model.
    fn go_on(&self, after: &SimulatedState, action: usize, (chance, reward): (f64, f64), ends: &mut Vec<TurnEnd>) {
        let config = &self.config;
        let leaves = if after.failed { config.leaves.1 } else { config.leaves.0 };
        if after.turn + 1 == config.turns_max {
            ends.push(TurnEnd { chance, reward, next: Next::Undone });
            return;
        }
        ends.push(TurnEnd { chance: chance * leaves, reward, next: Next::Undone });
        let grows = config.grows.0 + if after.failed { config.grows.1 } else { 0.0 };
        let longer = (after.context + 1).min(config.contexts - 1);
        for (context, share) in [(longer, grows), (after.context, 1.0 - grows)] {
            let next = SimulatedState { turn: after.turn + 1, context, warm: Some(action), ..*after };
            ends.push(TurnEnd { chance: chance * (1.0 - leaves) * share, reward, next: Next::Turn(next) });
        }
    }

    /// The state as a learner sees it: domain, steps left (unless they are hidden), context and warm model as indicators; last failure,
    /// restriction, share of the turns that are gone.
    #[must_use]
    pub fn features(&self, state: &SimulatedState) -> Vec<f32> {
        let config = &self.config;
        let mut features = Vec::new();
        let mut indicate = |of: usize, which: usize| features.extend((0..of).map(|i| f32::from(u8::from(i == which))));
        indicate(config.domains, state.domain);
        if config.steps_are_seen {
            indicate(config.steps.1, state.steps_left - 1);
        }
        indicate(config.contexts, state.context);
        indicate(self.models() + 1, state.warm.map_or(0, |model| model + 1));
        let flags = [f32::from(u8::from(state.failed)), f32::from(u8::from(state.restricted))];
        features.extend(flags);
        features.push(state.turn as f32 / config.turns_max as f32);
        features
    }
}
