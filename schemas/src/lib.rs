//! Event contracts: what comes into Weir, field by field.
//!
//! **In:** one JSON object per Kafka message on one of three topics. **Out:** Arrow schemas that the rest of the
//! workspace decodes into, a JSON Schema per topic, Rust structs for producers, and adapters that turn other
//! systems' records into these contracts.
//!
//! Each contract is written down once, by the macro `contract!`: the Rust struct, the Arrow schema,
//! the JSON Schema and the reference page all come from that one table, so they cannot drift apart.
//!
//! **Refuses to know:** Kafka, Delta, SQL, files. Everything here is a pure function of values.

mod bounds;
mod contract;
mod feedback;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod gpu_telemetry;
mod json_schema;
mod privacy;
mod reference;
mod requests;
mod router_events;
mod units;

pub mod adapters;

pub use bounds::Bounds;
pub use contract::{Contract, Field, FieldKind, Requirement};
pub use feedback::Feedback;
pub use gpu_telemetry::GpuTelemetry;
pub use json_schema::json_schema;
pub use privacy::{Pseudonym, Pseudonyms, TenantKey};
pub use reference::reference_page;
pub use requests::{Candidate, Request, ToolCall};
pub use router_events::RouterEvent;
pub use units::{EventTimeMs, Propensity, PropensityError, Tokens, Usd};

/// What Weir stores raw, in the order in which documents list it. Producers send the first three as they are; rows of the
/// others come from adapters only.
#[must_use]
pub fn contracts() -> [&'static Contract; 4] {
    [Request::contract(), Feedback::contract(), GpuTelemetry::contract(), RouterEvent::contract()]
}
