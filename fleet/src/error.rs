//! What can be wrong. Every variant is about the caller's input, so a retry with the same input never helps.

use thiserror::Error;

/// Why there is no recommendation.
#[derive(Debug, Error)]
pub enum FleetError {
    /// The workload can't be sized: it is empty or holds an impossible number.
    #[error("the workload can't be sized: {0}")]
    Workload(String),
    /// A GPU profile that is not TOML, or lacks or misspells a field.
    #[error("the GPU profile can't be read: {0}")]
    ProfileSyntax(#[from] toml::de::Error),
    /// A GPU profile with an impossible number.
    #[error("GPU profile `{name}`: {why}")]
    Profile {
        /// The profile's own name.
        name: String,
        /// Which number, and what it must be.
        why: String,
    },
    /// No built-in profile has this name.
    #[error("no built-in GPU profile is called `{name}`; there are {known}")]
    UnknownProfile {
        /// What was asked for.
        name: String,
        /// The names that exist, comma-separated.
        known: String,
    },
    /// An objective or option with an impossible number.
    #[error("{0}")]
    Options(String),
    /// No fleet of this profile keeps the objectives, however large.
    #[error("infeasible: {0}")]
    Infeasible(String),
}
