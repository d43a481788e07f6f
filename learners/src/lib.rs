//! Learning which model should answer, and saying what that is worth.
//!
//! **In:** logged decisions ([`training_set()`], from the feature views), or a matrix of every model's score
//! ([`matrix`]). **Out:** a [`Candidate`] policy with weights that the policy runtime scores, a [`Report`] with
//! off-policy values, intervals and a verdict ([`ope`]), hallucination verdicts written back as feedback
//! ([`hallucination`]), completion-length quantiles ([`length`]), and when a cheap answer will do ([`cascade`]).
//!
//! ```text
//! views --training_set.sql--> samples --+--> reward model (burn) --> PolicySpec + weights
//!                                       +--> held-out clusters --> ope --> Report: better / not shown / insufficient
//! sessions --offline reinforcement learning ([`sessions`])--> SessionPolicy + SessionReport
//! raw requests with text --alignment features, small network--> raw feedback (exactly once per table version)
//! ```
//!
//! Rewards are never imputed, a fallback's reward is never credited to the model that was chosen, and where logs cannot
//! carry an answer there is a verdict but no number.
//!
//! **Refuses to know:** Kafka, HTTP, signatures and approval. Scoring needs none of this crate: a policy leaves as
//! `policy.json` and safetensors.

mod action_names;
mod backend;
mod baselines;
pub mod cascade;
mod checkpoint;
mod dr_rewards;
mod draws;
mod error;
mod estimated_propensities;
mod evaluate;
pub mod exports;
mod feature_fit;
pub mod hallucination;
mod judged_rounds;
mod learning;
pub mod length;
mod linear;
pub mod matrix;
mod named_rows;
mod network;
mod online;
pub mod ope;
mod outcome;
mod parquet_table;
mod policy_gradient;
mod posterior;
mod report;
mod reward_model;
pub mod sessions;
mod side_by_side;
mod stats;
mod train;
mod training_set;

pub use action_names::ActionPart;
pub use checkpoint::Checkpoints;
pub use error::{LearnError, Result};
pub use estimated_propensities::estimate_propensities;
pub use evaluate::{PolicyInForce, evaluate_policy};
pub use judged_rounds::{JudgeOptions, JudgedRounds, judge_rounds, read_rounds};
pub use learning::{CorrectionsSummary, Learning, LearningSummary, NewModel};
pub use network::ADAM_EPSILON;
pub use online::{LearnedUntil, UpdateConfig, update_policy};
pub use outcome::{Outcome, Part, WEIGHT_MAX};
pub use policy_gradient::PolicyGradientConfig;
pub use report::{
    Comparison, DataSummary, EstimatorSummary, Guardrail, HeldAgainst, KeptShare, Lineup, NextSupport, PartJudged,
    Report, Standing, part_interval,
};
pub use reward_model::{RewardModelConfig, RewardModelMetrics};
pub use train::{
    Candidate, TrainConfig, export_vllm_sr, fit_reward_model, is_holdout, train_policy, train_policy_from,
    training_backend,
};
pub use training_set::{Sample, TrainingSet, Wanted, read_training_set, training_set, training_set_of};
