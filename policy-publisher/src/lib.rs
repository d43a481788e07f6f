//! The registry of policies: who proposed, approved or withdrew what, and how routers get the one in force.
//!
//! **In:** a bundle and its signature ([`Registry::propose`]), and people's decisions ([`Registry::approve`],
//! [`Registry::reject`], [`Registry::rollback`]). **Out:** the active policy over HTTP ([`delivery::router`]) and on a
//! compacted Kafka topic ([`kafka`]), and what people read: lists, details, differences ([`views`]).
//!
//! ```text
//! policies/<id>/<file>    content, create-only, the manifest last: a bundle is there whole or not at all
//! tables/policy_events    one row per decision; the registry's state is a fold over them
//! ```
//!
//! A decision is one Delta commit that also moves the position `policy/registry` from n to n + 1, so of two people who
//! decide at once one wins and the other's decision is taken again from the new state.
//!
//! **Refuses to know:** how a policy was trained, what its numbers mean (it reads one word, the report's verdict), and
//! how a router enforces it.

pub mod delivery;
mod error;
mod events;
pub mod kafka;
pub mod keys;
mod registry;
pub mod tokens;
pub mod views;

pub use error::PublisherError;
pub use registry::{
    ActivePolicy, Decision, EventKind, Loaded, POLICY_EVENTS_TABLE, PolicyState, Registry, RegistryEvent,
    RegistryState, Seen, Status, Verdict, policy_events_spec, read_path, verify_path,
};

/// What this crate's functions return.
pub type Result<T, E = PublisherError> = std::result::Result<T, E>;
