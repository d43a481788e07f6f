//! Score matrices: every model's quality and cost on every query, so that what a policy would earn is known exactly.
//!
//! **In:** a folder with a public score matrix. **Out:** [`MatrixReport`]: a policy learned from simulated bandit logs
//! (one model's score per decision, drawn uniformly, with the exact propensity) on some of the queries, judged on the
//! others against policies that saw all scores; and how often off-policy intervals hold the truth there.
//!
//! The logs only ever show what a router would have logged; the full matrix is used for judging, and for the baselines,
//! which are thereby stronger than anything that could be learned from the same logs.

mod area;
mod cascade;
mod cascade_arms;
mod cascade_report;
mod classic;
mod coverage;
mod data;
mod encoder;
mod experiment;
mod measures;
mod nested;
mod nested_report;
mod pairs;
mod policies;
mod published;
mod report;
mod similar;
mod study;

pub use area::AreaScore;
pub use cascade::{CascadeConfig, cascade_experiment};
pub use cascade_report::{CascadeReport, CascadeScore, Guarantee};
pub use coverage::{CoverageCell, CoverageConfig, CoverageReport};
pub use data::{
    Matrix, MatrixQuery, load_llmdrift, load_llmrouter, load_llmrouter_nq, load_routerarena, load_swebench_agents,
};
pub use encoder::Encoded;
pub use experiment::{MatrixConfig, judge_policy, matrix_experiment};
pub use measures::Measure;
pub use nested::{NestedConfig, nested_experiment};
pub use nested_report::{NestedReport, NestedScore, matrices_to_markdown};
pub use pairs::{PAIRS_FILE, PairScore, PairsReport, load_pairs, pairs_experiment};
pub use published::{Costs, MatrixSet, load_matrix_sets, matrix_folders};
pub use report::{MatrixReport, PolicyScore};
