//! Learn from a simulated router's sessions, say from other sessions what that is worth, then look up the truth.

use serde::{Deserialize, Serialize};
use weir_policy_runtime::{Exploration, MlpScratch};

use super::config::{Algorithm, SessionLearnerConfig, learn_sessions};
use super::exact::SessionTruth;
use super::judge::{SessionJudgeConfig, SessionJudgement, judge_sessions};
use super::policy::SessionPolicy;
use super::report::{SessionArm, SessionReport, WITHOUT_CUTS};
use super::simulated_log::SimulatedLog;
use super::simulator::{Simulator, SimulatorConfig};
use crate::error::{LearnError, Result};

/// How to run the experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionExperimentConfig {
    /// Seed of the logs and of training.
    pub seed: u64,
    /// The dynamics.
    pub simulator: SimulatorConfig,
    /// How the logging router explores around the scores of greedy selection turn by turn.
    pub logging: Exploration,
    /// Share of turns in which it stays with the warm model without asking.
    pub stays: f64,
    /// Logged sessions to learn from.
    pub train_sessions: usize,
    /// Logged sessions to judge on.
    pub held_out_sessions: usize,
    /// What to learn with.
    pub algorithms: Vec<Algorithm>,
    /// How.
    pub learner: SessionLearnerConfig,
    /// How learned policies draw when they are judged and published.
    pub published: Exploration,
    /// How to judge.
    pub judge: SessionJudgeConfig,
}

impl Default for SessionExperimentConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            simulator: SimulatorConfig::default(),
            logging: Exploration { gamma: 5.0, floor: 0.3 },
            stays: 0.6,
            train_sessions: 8000,
            held_out_sessions: 12_000,
            algorithms: vec![
                Algorithm::ImplicitQ,
                Algorithm::ConservativeQ,
                Algorithm::BatchConstrainedQ,
                Algorithm::TurnBandit,
            ],
            learner: SessionLearnerConfig::default(),
            published: Exploration { gamma: 1000.0, floor: 0.0 },
            judge: SessionJudgeConfig::default(),
        }
    }
}

/// Runs the experiment: draws two logs of one router, learns from the first, judges on the second, and adds what is true.
///
/// # Errors
/// Where the configuration makes no sense, or as [`learn_sessions`] and [`judge_sessions`].
pub fn session_experiment(config: &SessionExperimentConfig) -> Result<SessionReport> {
    let simulator = Simulator::new(config.simulator.clone())?;
    if !(0.0..=1.0).contains(&config.stays) {
        return Err(LearnError::Config("session experiment: stays is a share in [0, 1]".to_owned()));
    }
    let logging = simulator.exploring(config.logging, config.stays);
    let train = simulator.draw(&logging, config.train_sessions, config.seed)?;
    let held_out = simulator.draw(&logging, config.held_out_sessions, config.seed.wrapping_add(1 << 32))?;
    let learner = SessionLearnerConfig { seed: config.seed, ..config.learner.clone() };

    let mut arms = vec![known("logging router", true, &simulator, &logging, &held_out, config)?];
    let greedy = simulator.greedy_per_turn();
    arms.push(known("greedy per turn, exact", true, &simulator, &greedy, &held_out, config)?);
    for (model, name) in simulator.config().models.iter().enumerate() {
        let always = simulator.always(model);
        arms.push(known(&format!("always {}", name.name), true, &simulator, &always, &held_out, config)?);
    }
    for &algorithm in &config.algorithms {
        let policy = learn_sessions(&train.log, algorithm, &learner)?;
        let judgement = judge_sessions(&held_out.log, &policy.on(&held_out.log, config.published)?, &config.judge)?;
        let truth = simulator.truth(&learned_table(&simulator, &policy, config.published)?);
        let is_baseline = algorithm == Algorithm::TurnBandit;
        arms.push(SessionArm { policy: algorithm.words().to_owned(), is_baseline, judgement, truth });
    }
    if simulator.config().cut_back.is_some() {
        let plain = simulator.optimal_without_cuts()?;
        arms.push(known(WITHOUT_CUTS, false, &simulator, &plain, &held_out, config)?);
    }
    arms.push(known("optimal", false, &simulator, &simulator.optimal(), &held_out, config)?);
    Ok(SessionReport {
        models: simulator.config().models.len(),
        train_sessions: config.train_sessions,
        held_out_sessions: config.held_out_sessions,
        seed: config.seed,
        confidence: config.judge.evaluation.confidence,
        arms,
    })
}

/// A policy that the simulator knows, judged on the same logs as the learned ones.
fn known(
    name: &str,
    is_baseline: bool,
    simulator: &Simulator,
    table: &[f64],
    held_out: &SimulatedLog,
    config: &SessionExperimentConfig,
) -> Result<SessionArm> {
    let probabilities = table_on(simulator, table, held_out);
    let judgement: SessionJudgement = judge_sessions(&held_out.log, &probabilities, &config.judge)?;
    let truth: SessionTruth = simulator.truth(table);
    Ok(SessionArm { policy: name.to_owned(), is_baseline, judgement, truth })
}

/// The probabilities that a table of shape `[states, actions]` gives at every logged turn, session by session.
#[must_use]
pub fn table_on(simulator: &Simulator, table: &[f64], log: &SimulatedLog) -> Vec<Vec<f64>> {
    let actions = simulator.actions();
    let of = |states: &Vec<usize>| {
        states.iter().flat_map(|state| &table[state * actions..(state + 1) * actions]).copied().collect()
    };
    log.states.iter().map(of).collect()
}

/// A learned policy's probabilities in every state of the simulator, shape `[states, actions]`.
///
/// # Errors
/// As [`SessionPolicy::probabilities`].
pub fn learned_table(simulator: &Simulator, policy: &SessionPolicy, exploration: Exploration) -> Result<Vec<f64>> {
    let mut table = Vec::with_capacity(simulator.states() * simulator.actions());
    let mut scratch = MlpScratch::default();
    for index in 0..simulator.states() {
        let state = simulator.state(index);
        let (features, allowed) = (simulator.features(&state), simulator.allowed(&state));
        table.extend(policy.probabilities_with(&features, &allowed, exploration, &mut scratch)?);
    }
    Ok(table)
}
