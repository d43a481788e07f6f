//! Sessions of a store as trajectories.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};

use super::state::{StateLayout, TurnFacts};
use super::trajectory::{SessionLog, SessionTurn, Trajectory};
use crate::draws::drawn_at;
use crate::error::{LearnError, Result};
use crate::training_set::{
    Sample, candidate_set, candidates, column, count_at, flag_at, model_names, number_at, text_at, texts,
};

const SESSION_TRAJECTORIES_SQL: &str = include_str!("../sql/session_trajectories.sql");

/// What a session is worth, in units of utility. A weight of 0 asks for nothing: what it would weigh may be missing in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionReward {
    /// Worth of a session that ends with its task done, paid at its last turn.
    pub completion: f64,
    /// Worth of a turn's quality of 1 over 0.
    pub quality: f64,
    /// Price of a US dollar.
    pub usd: f64,
    /// Price of a second of waiting for an answer.
    pub second: f64,
    /// Price of a turn.
    pub turn: f64,
    /// Price of a million prompt tokens that no cache held, where the model is another than the turn before's: what a switch costs in
    /// reading again.
    pub switch_mtok: f64,
    /// More turns that a session takes after a switch (the view `handoff_penalties`), each at the price of a turn, charged at the switch.
    /// Sessions hold these turns already, so this is for policies that look at one turn only.
    pub handoffs: Vec<Handoff>,
}

impl Default for SessionReward {
    fn default() -> Self {
        Self {
            completion: 1.0,
            quality: 0.0,
            usd: 0.0,
            second: 0.0,
            turn: 0.02,
            switch_mtok: 0.0,
            handoffs: Vec::new(),
        }
    }
}

/// What a switch of models does to the length of sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handoff {
    /// The model before.
    pub from: String,
    /// The model after.
    pub to: String,
    /// How many more turns a session then takes, on average.
    pub extra_turns: f64,
}

/// Sessions that were read but cannot be used, by reason; each is counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeftOut {
    /// Nobody said whether the task was done.
    pub unjudged: usize,
    /// A turn was not answered by the model that was chosen, or by one that could not have been chosen: what followed is no evidence.
    pub not_as_chosen: usize,
    /// A turn lacks something that the reward weighs: nothing is imputed.
    pub reward_unknown: usize,
}

/// What a store holds.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSessions {
    /// The sessions.
    pub log: SessionLog,
    /// What their states mean.
    pub layout: StateLayout,
    /// The id of each session of the log, in order: who they are held apart by.
    pub ids: Vec<String>,
    /// How many more there were.
    pub left_out: LeftOut,
    /// Turns whose model their router had drawn at an earlier turn of the session and kept: nothing was drawn at them, so their choice had
    /// the probability 1.
    pub kept_turns: usize,
}

/// Reads every session that is over, through the views `session_turns`, `sessions`, `requests` and `rewards` of `session`. Where a request
/// names no candidates, every model could have been chosen.
///
/// # Errors
/// When the views lack a column that the query names; [`LearnError::NotEnoughData`] where nothing usable is left; as [`SessionLog::new`].
pub async fn session_trajectories(session: &SessionContext, reward: &SessionReward) -> Result<StoredSessions> {
    let batches = session.sql(SESSION_TRAJECTORIES_SQL).await?.collect().await?;
    let models = model_names(&batches)?;
    let mut turns = Vec::new();
    for batch in &batches {
        read_batch(batch, &models, reward, &mut turns)?;
    }
    let kept_turns = tell_kept_draws(&mut turns);
    let mut left_out = LeftOut::default();
    let mut kept: Vec<&[StoredTurn]> = Vec::new();
    for session in turns.chunk_by(|before, after| before.session == after.session) {
        let reason = if session.iter().any(|turn| turn.completed.is_none()) {
            &mut left_out.unjudged
        } else if !session.iter().all(|turn| turn.is_as_chosen) {
            &mut left_out.not_as_chosen
        } else if session.iter().any(|turn| turn.reward.is_none()) {
            &mut left_out.reward_unknown
        } else {
            kept.push(session);
            continue;
        };
        *reason += 1;
    }
    if kept.is_empty() {
        let LeftOut { unjudged, not_as_chosen, reward_unknown } = left_out;
        return Err(LearnError::NotEnoughData(format!(
            "no session that is over can be used: of {unjudged} nobody said whether the task was done (feedback of the kind task_success, or on \
             each turn), {not_as_chosen} had a turn that another model answered, and {reward_unknown} a turn without something that has a price"
        )));
    }
    let ids = kept.iter().map(|turns| turns[0].session.1.clone().unwrap_or_default()).collect();
    let names: Vec<String> = models.into_keys().collect();
    let layout = StateLayout::new(kept.iter().copied().flatten().map(|turn| &turn.facts), names.clone());
    let trajectories = kept.into_iter().map(|turns| trajectory(turns, &layout, reward)).collect();
    Ok(StoredSessions { log: SessionLog::new(names, trajectories)?, layout, ids, left_out, kept_turns })
}

/// Gives turns that keep an earlier draw the probability 1, and counts them: a router that draws once for a session logs that draw's
/// probability with every turn, and the product of a session's must be the probability of all its choices.
fn tell_kept_draws(turns: &mut [StoredTurn]) -> usize {
    let as_decision = |turn: &StoredTurn| Sample {
        action: turn.action,
        intended: Some(turn.action),
        propensity: turn.propensity,
        policy: turn.policy.clone(),
        cluster: format!("{:?}", turn.session),
        ..Sample::default()
    };
    let drawn_at = drawn_at(&turns.iter().map(as_decision).collect::<Vec<_>>());
    let mut kept = 0;
    for (row, (turn, drawn_at)) in turns.iter_mut().zip(drawn_at).enumerate() {
        if drawn_at != row {
            turn.propensity = Some(1.0);
            kept += 1;
        }
    }
    kept
}

fn trajectory(turns: &[StoredTurn], layout: &StateLayout, reward: &SessionReward) -> Trajectory {
    let completed = turns.last().and_then(|turn| turn.completed) == Some(true);
    let of = |(place, turn): (usize, &StoredTurn)| SessionTurn {
        state: layout.encode(&turn.facts),
        allowed: turn.allowed.clone(),
        action: turn.action,
        propensity: turn.propensity,
        reward: turn.reward.unwrap_or_default()
            + if completed && place + 1 == turns.len() { reward.completion } else { 0.0 },
    };
    Trajectory { turns: turns.iter().enumerate().map(of).collect(), completed }
}

/// A row of the query.
struct StoredTurn {
    session: (Option<String>, Option<String>, Option<i64>),
    facts: TurnFacts,
    allowed: Vec<bool>,
    action: usize,
    is_as_chosen: bool,
    propensity: Option<f64>,
    policy: Option<String>,
    /// What the turn brought, without completion; none where something that it weighs is missing.
    reward: Option<f64>,
    completed: Option<bool>,
}

fn read_batch(
    batch: &RecordBatch,
    models: &BTreeMap<String, usize>,
    reward: &SessionReward,
    turns: &mut Vec<StoredTurn>,
) -> Result<()> {
    let text = |name| texts(batch, name);
    let (tenant, id, domain, previous) =
        (text("tenant")?, text("session_id")?, text("domain")?, text("previous_model")?);
    let policy = text("policy_version")?;
    let (intended, executed) = (text("intended_model")?, text("executed_model")?);
    let whole = |name| column(batch, name, &DataType::Int64);
    let (start, place, prompt, warm) =
        (whole("session_start_ms")?, whole("place")?, whole("prompt_tokens")?, whole("warm_tokens")?);
    let (failures, tool_calls) = (whole("failures")?, whole("tool_calls")?);
    let flag = |name| column(batch, name, &DataType::Boolean);
    let (failed_last, offers_tools, as_intended, completed) =
        (flag("failed_last")?, flag("offers_tools")?, flag("executed_as_intended")?, flag("completed")?);
    let number = |name| column(batch, name, &DataType::Float64);
    let propensity = number("propensity")?;
    let measured = Measured {
        quality: number("quality")?,
        cost_usd: number("cost_usd")?,
        latency_s: number("latency_s")?,
        cold_tokens: number("cold_tokens")?,
    };
    let start = start.as_any().downcast_ref::<arrow::array::Int64Array>().cloned();
    let candidates = candidates(batch)?;
    for row in 0..batch.num_rows() {
        let chosen = text_at(&intended, row).or_else(|| text_at(&executed, row));
        let action = chosen.as_ref().and_then(|name| models.get(name).copied());
        let allowed = candidate_set(candidates, row, models)?.0.unwrap_or_else(|| vec![true; models.len()]);
        let warm_model = text_at(&previous, row);
        let could_be = action.is_some_and(|action| allowed[action]);
        turns.push(StoredTurn {
            session: (
                text_at(&tenant, row),
                text_at(&id, row),
                start.as_ref().filter(|start| start.is_valid(row)).map(|start| start.value(row)),
            ),
            reward: measured.worth(row, (warm_model.as_deref(), chosen.as_deref()), reward),
            facts: TurnFacts {
                place: count_at(&place, row).unwrap_or_default(),
                domain: text_at(&domain, row),
                prompt_tokens: count_at(&prompt, row),
                warm_model,
                warm_tokens: count_at(&warm, row),
                failures: count_at(&failures, row).unwrap_or_default(),
                failed_last: flag_at(&failed_last, row).unwrap_or_default(),
                tool_calls: count_at(&tool_calls, row).unwrap_or_default(),
                offers_tools: flag_at(&offers_tools, row),
            },
            action: action.unwrap_or_default(),
            is_as_chosen: could_be && flag_at(&as_intended, row) == Some(true),
            propensity: number_at(&propensity, row),
            policy: text_at(&policy, row),
            allowed,
            completed: flag_at(&completed, row),
        });
    }
    Ok(())
}

/// What was measured of turns.
struct Measured {
    quality: ArrayRef,
    cost_usd: ArrayRef,
    latency_s: ArrayRef,
    cold_tokens: ArrayRef,
}

impl Measured {
    /// What a turn brought, without completion; none where something that the reward weighs is missing.
    fn worth(&self, row: usize, (from, to): (Option<&str>, Option<&str>), reward: &SessionReward) -> Option<f64> {
        let weighed = |weight: f64, numbers: &ArrayRef| match weight {
            0.0 => Some(0.0),
            weight => number_at(numbers, row).map(|number| weight * number),
        };
        let is_switch = from.is_some() && from != to;
        let switched = if is_switch { weighed(reward.switch_mtok / 1e6, &self.cold_tokens)? } else { 0.0 };
        let handoff = reward
            .handoffs
            .iter()
            .find(|handoff| is_switch && Some(handoff.from.as_str()) == from && Some(handoff.to.as_str()) == to);
        let more_turns = 1.0 + handoff.map_or(0.0, |handoff| handoff.extra_turns);
        let gained = weighed(reward.quality, &self.quality)?;
        let paid = weighed(reward.usd, &self.cost_usd)? + weighed(reward.second, &self.latency_s)?;
        Some(gained - paid - switched - reward.turn * more_turns)
    }
}
