//! Sessions as walks through a Markov decision process.

use std::collections::HashMap;

use crate::error::{LearnError, Result};

/// One decision of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionTurn {
    /// What was known before the choice; as many numbers in every turn, each finite.
    pub state: Vec<f32>,
    /// Which actions could have been chosen.
    pub allowed: Vec<bool>,
    /// The choice, an index into the log's actions.
    pub action: usize,
    /// Logged probability of the choice; none where the router logged none.
    pub propensity: Option<f64>,
    /// What the turn brought, in units of utility.
    pub reward: f64,
}

/// One session, first turn to last.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trajectory {
    /// Its turns; at least one.
    pub turns: Vec<SessionTurn>,
    /// Was the task done when it ended?
    pub completed: bool,
}

/// Sessions that have passed every check: one width of state, legal choices, finite numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionLog {
    actions: Vec<String>,
    width: usize,
    trajectories: Vec<Trajectory>,
    left_out_share: f64,
}

impl SessionLog {
    /// Checks sessions that chose among `actions`.
    ///
    /// # Errors
    /// [`LearnError::NotEnoughData`] without a session or with fewer than two actions; [`LearnError::BadSessions`] where a session has no
    /// turn, states have no number, a turn's state has another width than the first one's, a number is not finite, the choice was not
    /// allowed, or a propensity lies outside (0, 1].
    pub fn new(actions: Vec<String>, trajectories: Vec<Trajectory>) -> Result<Self> {
        if actions.len() < 2 {
            let found = actions.len();
            let why =
                format!("{found} model to choose from leaves nothing to learn: sessions of at least two are needed");
            return Err(LearnError::NotEnoughData(why));
        }
        let Some(first) = trajectories.iter().find_map(|session| session.turns.first()) else {
            return Err(LearnError::NotEnoughData("there is no session with a turn".to_owned()));
        };
        let width = first.state.len();
        if width == 0 {
            let why = "states of no numbers tell turns from one another by nothing: give each turn at least one number";
            return Err(LearnError::BadSessions(why.to_owned()));
        }
        for (session, trajectory) in trajectories.iter().enumerate() {
            if trajectory.turns.is_empty() {
                return Err(LearnError::BadSessions(format!("session {} has no turn: leave it out", session + 1)));
            }
            for (turn, found) in trajectory.turns.iter().enumerate() {
                if let Some(why) = problem(found, width, actions.len()) {
                    let at = format!("turn {} of session {}", turn + 1, session + 1);
                    return Err(LearnError::BadSessions(format!("{at}: {why}")));
                }
            }
        }
        Ok(Self { actions, width, trajectories, left_out_share: 0.0 })
    }

    /// The same sessions, where a share in [0, 1] of all was left out for what their turns did or did not log. What was left out may
    /// have gone worse, so it bounds what can be said of completion: see [`super::judge_sessions`].
    ///
    /// # Errors
    /// [`LearnError::BadSessions`] where that is no share.
    pub fn with_left_out_share(self, share: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&share) {
            return Err(LearnError::BadSessions(format!("{share} is no share of sessions: give one in [0, 1]")));
        }
        Ok(Self { left_out_share: share, ..self })
    }

    /// Which share of all sessions was left out for what their turns did or did not log.
    #[must_use]
    pub fn left_out_share(&self) -> f64 {
        self.left_out_share
    }

    /// Names of what can be chosen, in order.
    #[must_use]
    pub fn actions(&self) -> &[String] {
        &self.actions
    }

    /// Numbers of a state.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The sessions.
    #[must_use]
    pub fn trajectories(&self) -> &[Trajectory] {
        &self.trajectories
    }

    /// The sessions of those places, in this order.
    ///
    /// # Errors
    /// [`LearnError::NotEnoughData`] without one.
    pub fn only(&self, places: &[usize]) -> Result<Self> {
        let trajectories = places.iter().filter_map(|place| self.trajectories.get(*place).cloned()).collect();
        Self::new(self.actions.clone(), trajectories)
    }

    /// Turns of all sessions.
    #[must_use]
    pub fn turns(&self) -> usize {
        self.trajectories.iter().map(|session| session.turns.len()).sum()
    }

    /// The logged probability of every choice, session by session.
    ///
    /// # Errors
    /// [`LearnError::BadSessions`] where one is missing: nothing that weighs by probabilities can be said of such a log.
    pub fn propensities(&self) -> Result<Vec<Vec<f64>>> {
        let of = |(session, trajectory): (usize, &Trajectory)| {
            let known: Option<Vec<f64>> = trajectory.turns.iter().map(|turn| turn.propensity).collect();
            known.ok_or_else(|| {
                LearnError::BadSessions(format!(
                    "session {} has a turn without a propensity: log the probability of every choice, or leave the session out",
                    session + 1
                ))
            })
        };
        self.trajectories.iter().enumerate().map(of).collect()
    }

    /// A dense index of every turn's state, session by session, and how many there are: turns with the same numbers and the same allowed
    /// actions are in one state of a table.
    #[must_use]
    pub fn cells(&self) -> (Vec<Vec<usize>>, usize) {
        let mut known: HashMap<(Vec<u32>, &[bool]), usize> = HashMap::new();
        let mut cells = Vec::with_capacity(self.trajectories.len());
        for trajectory in &self.trajectories {
            let mut row = Vec::with_capacity(trajectory.turns.len());
            for turn in &trajectory.turns {
                let bits = turn.state.iter().map(|number| number.to_bits()).collect();
                let next = known.len();
                row.push(*known.entry((bits, &turn.allowed)).or_insert(next));
            }
            cells.push(row);
        }
        (cells, known.len())
    }
}

fn problem(turn: &SessionTurn, width: usize, actions: usize) -> Option<String> {
    if turn.state.len() != width {
        return Some(format!("its state has {} numbers, the first one's {width}", turn.state.len()));
    }
    if !turn.state.iter().all(|number| number.is_finite()) {
        return Some("its state holds a number that is not finite".to_owned());
    }
    if !turn.reward.is_finite() {
        return Some("its reward is not finite: leave sessions out whose reward is unknown".to_owned());
    }
    if turn.allowed.len() != actions {
        return Some(format!("it says of {} actions whether they were allowed, of {actions}", turn.allowed.len()));
    }
    if !turn.allowed.get(turn.action).is_some_and(|allowed| *allowed) {
        return Some(format!("action {} was chosen, which was not allowed", turn.action));
    }
    let propensity = turn.propensity.filter(|p| !(*p > 0.0 && *p <= 1.0));
    propensity.map(|p| format!("its propensity {p} is not in (0, 1]"))
}
