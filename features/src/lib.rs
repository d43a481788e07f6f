//! Raw versions into mergeable partial rows, and the views that merge them.
//!
//! **In:** the versions of the raw table `requests` ([`catch_up()`]), each exactly once. **Out:** three tables of partial
//! rows, and a SQL session over everything in a store ([`session()`]).
//!
//! | table | key | holds |
//! |---|---|---|
//! | `workload_minute` | minute x tenant x domain x model x pool | counts and whole sums |
//! | `workload_sketch` | 10 minutes x tenant x model x pool | quantile sketches, joint token histogram, arrivals per second |
//! | `token_sketch` | hour x tenant x domain x model | quantile sketches of token counts |
//!
//! A fourth, `outcome_memory`, takes what became of requests before their rows are removed for their age ([`remember()`]).
//!
//! Windows are of event time, the moment of arrival. A late event yields one more partial row of its own window, and
//! the views merge it: nothing late is dropped. What a row means is written in SQL, in `sql/`, and runs unchanged over
//! a raw version's batches and over whole tables; what merges is a [`summary::Summary`].
//!
//! **What is counted:** each request id once, in the first commit that holds it finished, at the highest revision of that
//! commit (see [`SummariserConfig`] for how long ids are remembered). A correction that comes later shows in the view
//! `requests`, and in the partial tables after [`rebuild()`], which computes them from all raw rows.
//!
//! **Refuses to know:** Kafka, models, and burn. It reads tables, never topics.

mod catalog;
mod catch_up;
mod declarations;
mod dedupe;
pub mod drift;
mod error;
mod fleet_workload;
mod functions;
mod memory;
mod oldest;
mod outcome_memory;
mod partials;
pub mod pooling;
mod prefix_cache;
mod raw;
mod robust_line;
mod session;
#[cfg(test)]
mod testing;

pub mod summary;

pub use catch_up::{CaughtUp, Rebuilt, Summariser, SummariserConfig, catch_up, rebuild};
pub use error::FeaturesError;
pub use fleet_workload::{FleetWorkload, WorkloadFilter, fleet_workload, fleet_workload_of};
pub use functions::register as register_functions;
pub use oldest::oldest_version;
pub use outcome_memory::{Remembered, remember};
pub use raw::raw_schema;
pub use session::{keep_views, session, session_with_versions, session_with_views};
