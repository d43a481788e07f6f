//! From a store's sessions to a policy that can be served, and what other sessions say of it.

use serde::{Deserialize, Serialize};
use weir_policy_runtime::{Exploration, Policy, PolicySpec};

use super::config::{Algorithm, SessionLearnerConfig, learn_sessions};
use super::in_force::SessionsInForce;
use super::judge::{SessionJudgeConfig, Weighed, check, judged as judgement_of, weighed};
use super::policy::SessionPolicy;
use super::stored_report::{StoredArm, StoredReport};
use super::tables::{SessionReward, StoredSessions};
use super::trajectory::SessionLog;
use crate::error::{LearnError, Result};
use crate::train::is_holdout;

/// How to learn a policy from stored sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionTrainConfig {
    /// With what.
    pub algorithm: Algorithm,
    /// How.
    pub learner: SessionLearnerConfig,
    /// How the policy draws.
    pub published: Exploration,
    /// Share of the sessions kept for judging; the same ones whatever the seed ([`is_holdout`] by their ids).
    pub holdout_share: f64,
    /// How to judge.
    pub judge: SessionJudgeConfig,
}

impl Default for SessionTrainConfig {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::ImplicitQ,
            learner: SessionLearnerConfig::default(),
            published: Exploration { gamma: 1000.0, floor: 0.02 },
            holdout_share: 0.3,
            judge: SessionJudgeConfig::default(),
        }
    }
}

/// A policy of sessions, ready to be packed.
#[derive(Debug, Clone)]
pub struct SessionCandidate {
    /// `policy.json`.
    pub spec: PolicySpec,
    /// `weights.safetensors`.
    pub weights: Vec<u8>,
    /// The two, ready to score.
    pub policy: Policy,
    /// What it is worth, on sessions that it was not learned from.
    pub report: StoredReport,
}

/// Learns from a part of the sessions and judges on the others, beside the bandit that looks at one turn only. `short_sighted` are the same
/// sessions with what a switch does to later turns charged at the switch ([`SessionReward::handoffs`]): what the bandit learns from, where
/// it is known. All are judged by the sessions as they were, and the candidate is held against the policy of sessions that is in force.
///
/// # Errors
/// As [`learn_sessions`] and [`super::judge_sessions`]; [`LearnError::Config`] where the share makes no sense; [`LearnError::NotEnoughData`] where
/// one of the two parts is empty.
pub fn train_sessions(
    stored: &StoredSessions,
    short_sighted: Option<&SessionLog>,
    in_force: Option<SessionsInForce<'_>>,
    reward: &SessionReward,
    config: &SessionTrainConfig,
) -> Result<SessionCandidate> {
    if !(config.holdout_share > 0.0 && config.holdout_share < 1.0) {
        return Err(LearnError::Config("holdout_share must lie between 0 and 1".to_owned()));
    }
    check(&config.judge)?;
    let (held_out, train): (Vec<usize>, Vec<usize>) =
        (0..stored.ids.len()).partition(|place| is_holdout(&stored.ids[*place], config.holdout_share));
    let has_propensities = |place: &&usize| {
        let session = stored.log.trajectories().get(**place);
        session.is_some_and(|session| session.turns.iter().all(|turn| turn.propensity.is_some()))
    };
    let judged: Vec<usize> = held_out.iter().filter(has_propensities).copied().collect();
    if train.is_empty() || judged.is_empty() {
        return Err(LearnError::NotEnoughData(format!(
            "{} sessions are to learn from and {} of the {} others can be judged by, having a probability for every choice; at least one of \
             each is needed",
            train.len(),
            judged.len(),
            held_out.len()
        )));
    }
    let learned_from = |algorithm: Algorithm| match (algorithm, short_sighted) {
        (Algorithm::TurnBandit, of) => {
            let weighed: Vec<usize> = train.iter().filter(has_propensities).copied().collect();
            of.unwrap_or(&stored.log).only(&weighed)
        }
        _ => stored.log.only(&train),
    };
    let judged_log = stored.log.only(&judged)?.with_left_out_share(stored.log.left_out_share())?;
    let learn = |algorithm| learn_sessions(&learned_from(algorithm)?, algorithm, &config.learner);
    let arm = |policy: &SessionPolicy, is_candidate| -> Result<(StoredArm, Weighed)> {
        let weighed = weighed(&judged_log, &policy.on(&judged_log, config.published)?, &config.judge)?;
        let judgement = judgement_of(&judged_log, &weighed, &config.judge)?;
        Ok((StoredArm { policy: policy.algorithm().words().to_owned(), is_candidate, judgement }, weighed))
    };
    let learned = learn(config.algorithm)?;
    let (own, weighed) = arm(&learned, true)?;
    let held = in_force.map(|in_force| {
        let facts: Vec<_> = judged.iter().map(|place| stored.facts[*place].clone()).collect();
        in_force.held(&judged_log, &facts, (&weighed, &own.judgement), &config.judge)
    });
    let held = held.transpose()?;
    let mut arms = vec![own];
    if config.algorithm != Algorithm::TurnBandit {
        arms.push(arm(&learn(Algorithm::TurnBandit)?, false)?.0);
    }
    let (spec, network) = learned.published(&stored.layout, reward, config.published)?;
    let unusable = |error: weir_policy_runtime::PolicyError| LearnError::Artefact(error.to_string());
    let weights = network.to_safetensors().map_err(unusable)?;
    let policy = Policy::new(spec.clone(), network).map_err(unusable)?;
    let alone = StoredReport::verdict_of(&arms[0].judgement, &config.judge);
    let verdict = match &held {
        Some(held) => held.verdict(alone, &config.judge),
        None => alone,
    };
    let report = StoredReport {
        verdict: verdict.words().to_owned(),
        algorithm: config.algorithm,
        seed: config.learner.seed,
        reward: reward.clone(),
        exploration: config.published,
        confidence: config.judge.evaluation.confidence,
        completion_margin: config.judge.completion_margin,
        train_sessions: train.len(),
        held_out_sessions: judged.len(),
        without_propensity: held_out.len() - judged.len(),
        kept_turns: stored.kept_turns,
        left_out: stored.left_out.clone(),
        not_priced: Vec::new(),
        arms,
        in_force: held,
    };
    Ok(SessionCandidate { spec, weights, policy, report })
}
