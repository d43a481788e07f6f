//! Traffic with known truth: simulated routers, public traces, and score matrices, as contract events.
//!
//! **In:** a seed and a profile ([`simulate`]), a public trace ([`replay`]), or a table of what each model scores on
//! each query ([`matrix`]); and a [`Router`] that chooses the models. **Out:** [`Timed`] events in the order in which
//! a router would send them, as iterators.
//!
//! What only a simulator can know (expected utility of every model, planted falsehoods) comes out beside the events as
//! [`simulate::Truth`], and never inside one: the rest of Weir must not be able to learn from it.
//!
//! Everything is a function of its input files and its seed: the same seed gives the same bytes.
//!
//! **Refuses to know:** Kafka, Delta, SQL, clocks. The caller decides when and where events go.

mod error;
mod event;
mod hash;
pub mod matrix;
mod parquet_columns;
pub mod replay;
mod router;
pub mod simulate;

pub use error::{Fault, TrafficError};
pub use event::{Event, Timed};
pub use router::{Choice, EpsilonRouter, ModelInfo, PolicyRouter, Router, UniformRouter};
