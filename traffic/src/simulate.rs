//! A simulated fleet of routers and engines: seeded, with sessions, load and hidden quality.
//!
//! `world` says what the models are good at, `profile` what people do, `arrivals` when they come, `session`
//! what one conversation looks like, `safety` which ones ask for what they should not, `serving` how long engines take, `opinion` what comes back as feedback, and
//! `engine` puts them on one clock.
//!
//! The world is a contextual bandit on purpose: what a session asks for, and when it starts, is drawn before any model
//! is chosen and from a random stream of its own. So two routers with the same seed face the same requests, and the
//! true value of a policy is the mean over requests of what it would choose, exactly.

mod arrivals;
mod config;
mod engine;
mod opinion;
mod profile;
mod safety;
mod serving;
mod session;
mod text;
mod truth;
mod world;

pub use config::{Bursts, FeedbackConfig, Profile, SimConfig, WorldKind};
pub use engine::{SimCounts, Simulator};
pub use safety::SafetyConfig;
pub use truth::{Truth, ValueLedger, ValueSummary};
pub use world::{Gain, Hidden, NoGain, SimModel, World};
