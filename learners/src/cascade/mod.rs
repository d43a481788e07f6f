//! Cascades: when will the cheap model's answer do, and from which score on is it safe to say so?
//!
//! **In:** cheap answers with what is known of them and how good they were; and, for the threshold, what each would have lost against
//! the strong model's. **Out:** an [`AcceptModel`](weir_policy_runtime::AcceptModel) with its calibration measured on clusters that it
//! has not seen ([`fit_accept`]), and the least threshold that is shown to be safe, or none ([`choose_threshold`]); both from logs of one
//! answer each ([`learn_cascade`]).
//!
//! The score need not be right for the promise to hold: a poor one only escalates more. What has to hold is that the rows that a
//! threshold is tested on are independent from cluster to cluster, alike the traffic to come, and were used neither to fit the score nor
//! to lay the levels.

mod accept;
mod from_logs;
mod isotonic;
mod logistic;
mod p_values;
mod threshold;

pub use accept::{AcceptConfig, AcceptFit, AcceptMetrics, AcceptRow, fit_accept};
pub use from_logs::{CascadeLearning, LearnedCascade, learn_cascade};
pub use isotonic::{calibration_corners, isotonic};
pub use p_values::{betting, hoeffding_bentkus};
pub use threshold::{CascadeLoss, JudgedAnswer, RiskBound, RiskConfig, ThresholdChoice, choose_threshold, levels};
