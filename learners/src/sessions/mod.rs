//! Policies for whole sessions: which model answers this turn, given what its choice does to the turns that follow.
//!
//! **In:** a [`SessionLog`]: sessions of turns with what was known, what could be chosen, what was chosen with which probability, and
//! what it brought. **Out:** a [`SessionPolicy`] ([`learn_sessions()`]), a [`SessionJudgement`] from other logged sessions
//! ([`judge_sessions()`]), and, where the truth is known, a [`SessionReport`] ([`session_experiment()`]).
//!
//! ```text
//! store --session_trajectories.sql--> SessionLog --Replay--> one of the algorithms --> SessionPolicy
//! other sessions + the policy's probabilities --weighted doubly robust, fitted Q--> SessionJudgement
//! SessionPolicy --published with its layout--> policy.json and weights that `weir decide` serves ([`train_sessions()`])
//! Simulator --backward induction--> optimal policy;  --chances carried forward--> SessionTruth of any policy
//! ```
//!
//! A policy is never judged on the sessions that it was learned from, and fitted Q evaluation is shown but decides nothing.

mod batch_constrained_q;
mod candidate;
mod config;
mod conservative_q;
mod constrained;
mod cut_back;
mod double_q;
mod exact;
mod experiment;
mod implicit_q;
mod in_force;
mod judge;
mod known;
mod left_out;
mod policy;
mod published;
mod replay;
mod report;
mod simulated_log;
mod simulator;
mod state;
mod stored_report;
mod tables;
mod trajectory;
mod turn_bandit;

pub use candidate::{SessionCandidate, SessionTrainConfig, train_sessions};
pub use config::{Algorithm, SessionLearnerConfig, learn_sessions};
pub use constrained::{ConstrainedPolicy, learn_constrained};
pub use cut_back::CutBack;
pub use exact::SessionTruth;
pub use experiment::{SessionExperimentConfig, learned_table, session_experiment, table_on};
pub use in_force::{SessionsInForce, StoredHeld};
pub use judge::{SessionJudgeConfig, SessionJudgement, SessionVerdict, judge_sessions};
pub use left_out::LeftOut;
pub use policy::SessionPolicy;
pub use report::{SessionArm, SessionReport};
pub use simulated_log::SimulatedLog;
pub use simulator::{Next, SimulatedModel, SimulatedState, Simulator, SimulatorConfig, TurnEnd};
pub use state::{StateLayout, TurnFacts};
pub use stored_report::{StoredArm, StoredReport};
pub use tables::{Handoff, SessionReward, StoredSessions, session_trajectories};
pub use trajectory::{SessionLog, SessionTurn, Trajectory};
