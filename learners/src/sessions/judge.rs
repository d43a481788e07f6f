//! What logged sessions of one policy say of another one: value, completion, length, and whether they can say it.

use serde::{Deserialize, Serialize};

use super::trajectory::SessionLog;
use crate::error::{LearnError, Result};
use crate::ope::{
    EndedSession, Estimate, EvaluationConfig, FittedQConfig, SessionEstimates, SessionLengths, SessionSupport,
    SupportLimits, Transition, Turn, estimate_lengths, estimate_sessions, fitted_q, fold_of, session_difference,
};

/// How to judge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionJudgeConfig {
    /// Intervals, and what the logs must offer.
    pub evaluation: EvaluationConfig,
    /// γ, above 0 and at most 1.
    pub discount: f64,
    /// Folds of fitted Q evaluation.
    pub folds: usize,
    /// Loss of completion that still counts as none: a share of sessions. Where more sessions than that were left out, what they would
    /// have said could turn the answer, and none is given.
    pub completion_margin: f64,
}

impl Default for SessionJudgeConfig {
    fn default() -> Self {
        Self {
            evaluation: EvaluationConfig { bootstraps: 200, ..EvaluationConfig::default() },
            discount: 1.0,
            folds: 5,
            completion_margin: 0.02,
        }
    }
}

/// The answer to "are its sessions shorter, and done as often?".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum SessionVerdict {
    /// The median of completed sessions less the logged one lies below 0 with its whole interval, completion is not lost by more than the
    /// margin, and a session is worth more; all at the stated confidence.
    Shorter,
    /// Not all of that is shown.
    NotShown,
    /// The logs cannot carry an answer.
    InsufficientSupport {
        /// Why, one sentence each.
        reasons: Vec<String>,
    },
}

impl SessionVerdict {
    /// The verdict in words.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Self::Shorter => "shorter",
            Self::NotShown => "not shown",
            Self::InsufficientSupport { .. } => "insufficient support",
        }
    }
}

/// What the logs say of one target policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionJudgement {
    /// The verdict.
    #[serde(flatten)]
    pub verdict: SessionVerdict,
    /// How much the logs say.
    pub support: SessionSupport,
    /// The worth of a session. The weighted doubly robust estimate decides; `direct` is that of fitted Q evaluation, which never does.
    pub value: SessionEstimates,
    /// Share of sessions that end with the task done.
    pub completion: SessionEstimates,
    /// Turns of those; none where no session was completed.
    pub lengths: Option<SessionLengths>,
}

/// Judges a target policy on logged sessions that it was not learned from. `probabilities` are the target's, of every action at every turn,
/// session by session (as [`super::SessionPolicy::on`] gives them).
///
/// # Errors
/// [`LearnError::Config`] with a discount outside (0, 1] or a margin below 0; [`LearnError::BadSessions`] where a propensity is missing, or
/// the probabilities have another shape than the log, do not sum to 1 at a turn, or are not 0 on what was forbidden there.
pub fn judge_sessions(
    log: &SessionLog,
    probabilities: &[Vec<f64>],
    config: &SessionJudgeConfig,
) -> Result<SessionJudgement> {
    check(config)?;
    judged(log, &weighed(log, probabilities, config)?, config)
}

/// The same of a log that is weighed already.
pub(super) fn judged(log: &SessionLog, weighed: &Weighed, config: &SessionJudgeConfig) -> Result<SessionJudgement> {
    let (value, support) = estimate_sessions(&weighed.value, config.discount, &config.evaluation)?;
    let (completion, _) = estimate_sessions(&weighed.completion, 1.0, &config.evaluation)?;
    let ended: Vec<EndedSession> = weighed
        .ratios
        .iter()
        .zip(log.trajectories())
        .map(|(ratios, session)| EndedSession { ratios: ratios.clone(), completed: session.completed })
        .collect();
    let lengths = estimate_lengths(&ended, &config.evaluation).ok();
    let mut reasons = reasons(&support, &config.evaluation.limits);
    let left_out = log.left_out_share();
    if left_out > config.completion_margin {
        reasons.push(format!(
            "{:.1} % of sessions were left out for what their turns log, and the margin of completion is {:.1} %: log what is missing, or \
             allow a larger margin",
            100.0 * left_out,
            100.0 * config.completion_margin
        ));
    }
    let is_shorter = lengths.is_some_and(|lengths| lengths.difference.high < 0.0);
    let verdict = if !reasons.is_empty() {
        SessionVerdict::InsufficientSupport { reasons }
    } else if is_shorter
        && completion.difference.low > -config.completion_margin
        && value.difference.low > config.evaluation.margin
    {
        SessionVerdict::Shorter
    } else {
        SessionVerdict::NotShown
    };
    Ok(SessionJudgement { verdict, support, value, completion, lengths })
}

/// A log as estimators take it, for one target policy.
pub(super) struct Weighed {
    /// The target's probability over the logged one, of every turn's choice, session by session.
    ratios: Vec<Vec<f64>>,
    value: Vec<Vec<Turn>>,
    completion: Vec<Vec<Turn>>,
}

pub(super) fn weighed(log: &SessionLog, probabilities: &[Vec<f64>], config: &SessionJudgeConfig) -> Result<Weighed> {
    let actions = log.actions().len();
    let propensities = log.propensities()?;
    let fits = probabilities.len() == log.trajectories().len()
        && probabilities.iter().zip(log.trajectories()).all(|(p, session)| p.len() == actions * session.turns.len());
    if !fits {
        let why = "the target policy has not one probability for every action of every turn".to_owned();
        return Err(LearnError::BadSessions(why));
    }
    check_target(log, probabilities)?;
    let mut ratios = Vec::with_capacity(propensities.len());
    for ((session, target), logged) in log.trajectories().iter().zip(probabilities).zip(&propensities) {
        let of = |(turn, logged): (usize, &f64)| target[turn * actions + session.turns[turn].action] / logged;
        ratios.push(logged.iter().enumerate().map(of).collect::<Vec<f64>>());
    }
    let table = Table::new(log, probabilities, &ratios);
    let by_reward = |session: usize, turn: usize| log.trajectories()[session].turns[turn].reward;
    let by_completion = |session: usize, turn: usize| {
        let session = &log.trajectories()[session];
        f64::from(u8::from(session.completed && turn + 1 == session.turns.len()))
    };
    let value = table.turns(by_reward, config.discount, config.folds);
    let completion = table.turns(by_completion, 1.0, config.folds);
    Ok(Weighed { ratios, value, completion })
}

/// What a session is worth, and how often it ends with the task done, under one target policy less the same under another.
///
/// # Errors
/// As [`judge_sessions`].
pub(super) fn differences(one: &Weighed, other: &Weighed, config: &SessionJudgeConfig) -> Result<(Estimate, Estimate)> {
    let value = session_difference(&one.value, &other.value, config.discount, &config.evaluation)?;
    Ok((value, session_difference(&one.completion, &other.completion, 1.0, &config.evaluation)?))
}

pub(super) fn check(config: &SessionJudgeConfig) -> Result<()> {
    if !(config.discount > 0.0 && config.discount <= 1.0) {
        let why = format!("the discount is {}, and must be above 0 and at most 1", config.discount);
        return Err(LearnError::Config(why));
    }
    if !(config.completion_margin >= 0.0 && config.completion_margin.is_finite()) {
        let why =
            format!("the margin of completion is {}, and must be a number of 0 or more", config.completion_margin);
        return Err(LearnError::Config(why));
    }
    Ok(())
}

/// What rounding may add to a sum of probabilities.
const ROUNDED: f64 = 1e-6;

/// Are the target's probabilities ones, at every turn?
fn check_target(log: &SessionLog, probabilities: &[Vec<f64>]) -> Result<()> {
    for (session, (trajectory, target)) in log.trajectories().iter().zip(probabilities).enumerate() {
        for (turn, (found, target)) in trajectory.turns.iter().zip(target.chunks_exact(log.actions().len())).enumerate()
        {
            let at = || format!("turn {} of session {}", turn + 1, session + 1);
            let sum: f64 = target.iter().sum();
            // A sum that is no number fails too.
            if !(target.iter().all(|p| *p >= 0.0) && (sum - 1.0).abs() <= ROUNDED) {
                let why = format!(
                    "{}: the target policy's probabilities sum to {sum}, and must be 0 or more and sum to 1",
                    at()
                );
                return Err(LearnError::BadSessions(why));
            }
            if target.iter().zip(&found.allowed).any(|(p, allowed)| !allowed && *p > 0.0) {
                let why = format!("{}: the target policy may choose what was not allowed there: give that 0", at());
                return Err(LearnError::BadSessions(why));
            }
        }
    }
    Ok(())
}

fn reasons(support: &SessionSupport, limits: &SupportLimits) -> Vec<String> {
    let mut reasons = Vec::new();
    let least = limits.effective_clusters_min.max(limits.effective_share_min * support.sessions as f64);
    if support.effective_sessions < least {
        reasons.push(format!(
            "{:.0} of {} sessions count after weighting, and {least:.0} are needed: log more sessions, or judge a policy nearer to the \
             logged one",
            support.effective_sessions, support.sessions
        ));
    }
    let Estimate { value, low, high } = support.mean_weight;
    if !support.mean_weight.covers(1.0) {
        reasons.push(format!(
            "the mean weight is {value:.3} ({low:.3} to {high:.3}), which must come near 1: the logged probabilities are not those that \
             chose, or the target policy leaves what was logged"
        ));
    }
    reasons
}

/// A log as a table's: a cell for each state, with the target's probabilities there.
struct Table<'a> {
    log: &'a SessionLog,
    probabilities: &'a [Vec<f64>],
    ratios: &'a [Vec<f64>],
    cells: Vec<Vec<usize>>,
    /// The mean over the turns of a cell, since a target may know more than the log's states tell; shape `[cells, actions]`.
    target: Vec<f64>,
}

impl<'a> Table<'a> {
    fn new(log: &'a SessionLog, probabilities: &'a [Vec<f64>], ratios: &'a [Vec<f64>]) -> Self {
        let actions = log.actions().len();
        let (cells, count) = log.cells();
        let (mut target, mut turns) = (vec![0.0; count * actions], vec![0.0; count]);
        for (cells, probabilities) in cells.iter().zip(probabilities) {
            for (&cell, probabilities) in cells.iter().zip(probabilities.chunks_exact(actions)) {
                let sums = &mut target[cell * actions..(cell + 1) * actions];
                sums.iter_mut().zip(probabilities).for_each(|(sum, p)| *sum += p);
                turns[cell] += 1.0;
            }
        }
        for (sums, turns) in target.chunks_exact_mut(actions).zip(turns) {
            sums.iter_mut().for_each(|sum| *sum /= turns);
        }
        Self { log, probabilities, ratios, cells, target }
    }

    /// Turns as estimators take them, with guesses of fitted Q evaluation that have not seen the session.
    fn turns(&self, reward: impl Fn(usize, usize) -> f64, discount: f64, folds: usize) -> Vec<Vec<Turn>> {
        let (actions, sessions) = (self.log.actions().len(), self.log.trajectories());
        let mut transitions = Vec::with_capacity(self.log.turns());
        for (session, cells) in self.cells.iter().enumerate() {
            for (turn, &state) in cells.iter().enumerate() {
                let (action, next) = (sessions[session].turns[turn].action, cells.get(turn + 1).copied());
                transitions.push(Transition { state, action, reward: reward(session, turn), next, session });
            }
        }
        let config = FittedQConfig { discount, folds, ..FittedQConfig::default() };
        let tables = fitted_q(&transitions, actions, &self.target, &config);
        let of = |(session, cells): (usize, &Vec<usize>)| {
            let table = &tables[if folds <= 1 { 0 } else { fold_of(session, folds) }];
            let probabilities = self.probabilities[session].chunks_exact(actions);
            let of_turn = |((turn, cell), probabilities): ((usize, &usize), &[f64])| {
                let guesses = &table[cell * actions..(cell + 1) * actions];
                Turn {
                    ratio: self.ratios[session][turn],
                    reward: reward(session, turn),
                    q_logged: guesses[sessions[session].turns[turn].action],
                    v_policy: guesses.iter().zip(probabilities).map(|(q, p)| q * p).sum(),
                }
            };
            cells.iter().enumerate().zip(probabilities).map(of_turn).collect()
        };
        self.cells.iter().enumerate().map(of).collect()
    }
}
