//! Sessions of a store as trajectories.

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};

use super::known::{LoggedTurn, known};
use super::left_out::LeftOut;
use super::state::{StateLayout, TurnFacts};
use super::trajectory::{SessionLog, SessionTurn, Trajectory};
use crate::draws::drawn_at;
use crate::error::{LearnError, Result};
use crate::named_rows::NamedLog;
use crate::training_set::{Sample, column, count_at, flag_at, number_at, text_at, texts};

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

/// What a store holds.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSessions {
    /// The sessions, which know how large a share was left out.
    pub log: SessionLog,
    /// What their states mean.
    pub layout: StateLayout,
    /// The id of each session of the log, in order: who they are held apart by.
    pub ids: Vec<String>,
    /// What was known at each turn of each session of the log.
    pub facts: Vec<Vec<TurnFacts>>,
    /// How many more there were.
    pub left_out: LeftOut,
    /// Turns of `log` that keep a model which was drawn at an earlier turn of their session. No choice was made there, so nothing but that
    /// model is allowed: what is learned and judged is a policy that keeps its draw as the router does.
    pub kept_turns: usize,
}

/// Reads every session that is over, through the views `session_turns`, `sessions`, `requests` and `rewards` of `session`. Where a request
/// names no candidates, every model could have been chosen. A fallback is part of what a choice brings: the action is the model that was
/// chosen, the reward what came of it.
///
/// # Errors
/// When the views lack a column that the query names; [`LearnError::NotEnoughData`] where nothing usable is left; as [`SessionLog::new`].
pub async fn session_trajectories(session: &SessionContext, reward: &SessionReward) -> Result<StoredSessions> {
    let batches = session.sql(SESSION_TRAJECTORIES_SQL).await?.collect().await?;
    // Sessions choose among models, whatever parts a draw named.
    let named = NamedLog::of(&batches, &BTreeSet::new())?;
    let mut turns = Vec::new();
    for (at, batch) in batches.iter().enumerate() {
        read_batch(batch, (&named, at), reward, &mut turns)?;
    }
    let samples: Vec<Sample> = turns.iter().map(StoredTurn::draw).collect();
    for (row, first) in drawn_at(&samples).into_iter().enumerate() {
        turns[row].keeps_draw = first != row;
    }
    let names: Vec<String> = named.index.into_keys().collect();
    let counts_prompts = turns.iter().any(|turn| turn.logged.prompt_tokens.is_some());
    let mut left_out = LeftOut::default();
    let mut kept: Vec<(&[StoredTurn], Vec<TurnFacts>)> = Vec::new();
    for session in turns.chunk_by(|before, after| before.session == after.session) {
        let facts = known(&session.iter().map(|turn| &turn.logged).collect::<Vec<_>>());
        let uncounted = || facts.iter().position(|facts| counts_prompts && facts.prompt_tokens.is_none());
        let (reason, at) = if session.iter().any(|turn| turn.completed.is_none()) {
            left_out.unjudged += 1;
            continue;
        } else if let Some(at) = session.iter().position(|turn| !turn.is_choice) {
            (&mut left_out.not_as_chosen, at)
        } else if let Some(at) = session.iter().position(|turn| turn.reward.is_none()) {
            (&mut left_out.reward_unknown, at)
        } else if let Some(at) = uncounted() {
            (&mut left_out.prompt_unknown, at)
        } else {
            kept.push((session, facts));
            continue;
        };
        *reason += 1;
        if let Some(model) = session[at].action.and_then(|action| names.get(action)) {
            *left_out.by_model.entry(model.clone()).or_default() += 1;
        }
    }
    if kept.is_empty() {
        let LeftOut { unjudged, not_as_chosen, reward_unknown, prompt_unknown, .. } = left_out;
        return Err(LearnError::NotEnoughData(format!(
            "no session that is over can be used: of {unjudged} nobody said whether the task was done (feedback of the kind task_success, or on \
             each turn), {not_as_chosen} had a turn whose choice is not known, {reward_unknown} a turn without something that has a price, and \
             {prompt_unknown} a turn whose prompt nobody counted"
        )));
    }
    let kept_turns = kept.iter().flat_map(|(turns, _)| turns.iter()).filter(|turn| turn.keeps_draw).count();
    let ids = kept.iter().map(|(turns, _)| turns[0].session.1.clone().unwrap_or_default()).collect();
    let layout = StateLayout::new(kept.iter().flat_map(|(_, facts)| facts), names.clone());
    let share = left_out.share(kept.len());
    let trajectories = kept.iter().map(|(turns, facts)| trajectory(turns, facts, &layout, reward)).collect();
    let log = SessionLog::new(names, trajectories)?.with_left_out_share(share)?;
    let facts = kept.into_iter().map(|(_, facts)| facts).collect();
    Ok(StoredSessions { log, layout, ids, facts, left_out, kept_turns })
}

fn trajectory(turns: &[StoredTurn], facts: &[TurnFacts], layout: &StateLayout, reward: &SessionReward) -> Trajectory {
    let completed = turns.last().and_then(|turn| turn.completed) == Some(true);
    let of = |(place, (turn, facts)): (usize, (&StoredTurn, &TurnFacts))| {
        let action = turn.action.unwrap_or_default();
        let only = || (0..turn.allowed.len()).map(|other| other == action).collect();
        SessionTurn {
            state: layout.encode(facts),
            allowed: if turn.keeps_draw { only() } else { turn.allowed.clone() },
            action,
            propensity: if turn.keeps_draw { Some(1.0) } else { turn.propensity },
            reward: turn.reward.unwrap_or_default()
                + if completed && place + 1 == turns.len() { reward.completion } else { 0.0 },
        }
    };
    Trajectory { turns: turns.iter().zip(facts).enumerate().map(of).collect(), completed }
}

/// A row of the query.
struct StoredTurn {
    session: (Option<String>, Option<String>, Option<i64>),
    logged: LoggedTurn,
    allowed: Vec<bool>,
    /// The model that was chosen, whatever answered.
    action: Option<usize>,
    /// Is it known what was chosen among what, and with which probability where something else answered?
    is_choice: bool,
    /// Was its model drawn at an earlier turn, and kept?
    keeps_draw: bool,
    propensity: Option<f64>,
    policy: Option<String>,
    /// What the turn brought, without completion; none where something that it weighs is missing.
    reward: Option<f64>,
    completed: Option<bool>,
}

impl StoredTurn {
    /// The turn as one draw of a router.
    fn draw(&self) -> Sample {
        let (tenant, id, _) = &self.session;
        Sample {
            intended: self.action,
            propensity: self.propensity,
            policy: self.policy.clone(),
            cluster: format!("{tenant:?} {id:?}"),
            time_ms: self.logged.arrival_ms,
            ..Sample::default()
        }
    }
}

fn read_batch(
    batch: &RecordBatch,
    (named, at): (&NamedLog, usize),
    reward: &SessionReward,
    turns: &mut Vec<StoredTurn>,
) -> Result<()> {
    let text = |name| texts(batch, name);
    let (tenant, id, domain, previous) =
        (text("tenant")?, text("session_id")?, text("domain")?, text("previous_model")?);
    let policy = text("policy_version")?;
    let whole = |name| column(batch, name, &DataType::Int64);
    let (start, arrival, end) = (whole("session_start_ms")?, whole("arrival_ms")?, whole("end_ms")?);
    let (place, prompt, held, tool_calls) =
        (whole("place")?, whole("prompt_tokens")?, whole("held_tokens")?, whole("tools_called_count")?);
    let flag = |name| column(batch, name, &DataType::Boolean);
    let (is_failed, offers_tools, completed) = (flag("is_failed")?, flag("offers_tools")?, flag("completed")?);
    let is_from_cache = flag("is_from_cache")?;
    let number = |name| column(batch, name, &DataType::Float64);
    let measured = Measured {
        quality: number("quality")?,
        cost_usd: number("cost_usd")?,
        latency_s: number("latency_s")?,
        cold_tokens: number("cold_tokens")?,
        is_error: flag("is_error")?,
    };
    let place_of = |name: &str| named.index.get(name).copied();
    for row in 0..batch.num_rows() {
        // A turn of which nobody knows what answered stays a turn: its session is then left out.
        let chosen = named.chosen(at, row);
        let answered = chosen.as_ref().map(|chosen| chosen.names.executed.to_string());
        let intended = chosen.as_ref().and_then(|chosen| chosen.names.intended.clone());
        let action = intended.as_deref().or(answered.as_deref()).and_then(place_of);
        let as_intended = chosen.as_ref().is_some_and(|chosen| chosen.names.executed_as_intended);
        let propensity = chosen.as_ref().and_then(|chosen| chosen.propensity);
        let allowed = chosen.and_then(|chosen| chosen.allowed).unwrap_or_else(|| vec![true; named.index.len()]);
        let could_be = action.is_some_and(|action| allowed[action]);
        // What a fallback brings belongs to the model that was chosen, and to the probability with which it was.
        let is_answered = as_intended || (intended.is_some() && propensity.is_some());
        turns.push(StoredTurn {
            session: (text_at(&tenant, row), text_at(&id, row), moment_at(&start, row)),
            reward: measured.worth(row, (text_at(&previous, row).as_deref(), answered.as_deref()), reward),
            logged: LoggedTurn {
                place: count_at(&place, row).unwrap_or_default(),
                arrival_ms: moment_at(&arrival, row).unwrap_or_default(),
                end_ms: moment_at(&end, row).unwrap_or_default(),
                domain: text_at(&domain, row),
                offers_tools: flag_at(&offers_tools, row),
                prompt_tokens: count_at(&prompt, row),
                model: answered,
                held_tokens: count_at(&held, row),
                is_failed: flag_at(&is_failed, row).unwrap_or_default(),
                tool_calls: count_at(&tool_calls, row).unwrap_or_default(),
            },
            action,
            is_choice: could_be && is_answered && flag_at(&is_from_cache, row) != Some(true),
            keeps_draw: false,
            propensity,
            policy: text_at(&policy, row),
            allowed,
            completed: flag_at(&completed, row),
        });
    }
    Ok(())
}

fn moment_at(array: &ArrayRef, row: usize) -> Option<i64> {
    array.is_valid(row).then(|| array.as_primitive::<Int64Type>().value(row))
}

/// What was measured of turns.
struct Measured {
    quality: ArrayRef,
    cost_usd: ArrayRef,
    latency_s: ArrayRef,
    cold_tokens: ArrayRef,
    /// Did the call itself end with an error?
    is_error: ArrayRef,
}

impl Measured {
    /// What a turn brought, without completion, between the model that answered before and the one that answered; none where something that
    /// the reward weighs is missing. A call that failed without a bill was not billed: nothing was paid, and no token read again.
    fn worth(&self, row: usize, (from, to): (Option<&str>, Option<&str>), reward: &SessionReward) -> Option<f64> {
        let is_unbilled = flag_at(&self.is_error, row) == Some(true);
        let weighed = |weight: f64, numbers: &ArrayRef| match weight {
            0.0 => Some(0.0),
            weight => number_at(numbers, row).map(|number| weight * number),
        };
        let billed = |weight: f64, numbers: &ArrayRef| weighed(weight, numbers).or(is_unbilled.then_some(0.0));
        let is_switch = from.is_some() && from != to;
        let switched = if is_switch { billed(reward.switch_mtok / 1e6, &self.cold_tokens)? } else { 0.0 };
        let handoff = reward
            .handoffs
            .iter()
            .find(|handoff| is_switch && Some(handoff.from.as_str()) == from && Some(handoff.to.as_str()) == to);
        let more_turns = 1.0 + handoff.map_or(0.0, |handoff| handoff.extra_turns);
        let gained = weighed(reward.quality, &self.quality)?;
        let paid = billed(reward.usd, &self.cost_usd)? + weighed(reward.second, &self.latency_s)?;
        Some(gained - paid - switched - reward.turn * more_turns)
    }
}
