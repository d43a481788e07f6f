//! Adapters: what another system writes, projected onto Weir's contracts. An adapter is data, not code.
//!
//! **In:** a [`Definition`], read from TOML and SQL: the fields to read of each message and, per table, a projection.
//! **Out:** an [`Adapter`] that turns record batches of those fields into batches of contracts' columns, and says for
//! each row which message it came from.
//!
//! The adapters that come with Weir ([`Definition::built_in`]) are files in `definitions/`, compiled by the same code
//! as those that an operator writes into the configuration. Each has a golden input and output in `golden/`.
//!
//! Two rules hold for all of them and are checked when an adapter is compiled:
//! - **A message is judged the same whenever it is read.** Nothing in a projection depends on the clock, on chance or on
//!   other messages: no aggregates, joins, subqueries, sorting, `now()` or `random()`.
//! - **Text stays in text columns.** What a definition marks as personal reaches the contract's text columns only, or
//!   passes a function that lets no text through, see [`functions`].
//!
//! **Refuses to know:** Kafka, tables, bytes of JSON. Whoever decodes messages gives batches of
//! [`Adapter::input_schema`]; of Prometheus pages, which are no JSON, [`prometheus`] makes them.

mod adapter;
mod built_in;
mod columns;
mod definition;
mod error;
pub mod functions;
mod output;
pub mod prometheus;
mod reference;
mod shape;

pub use adapter::{Adapter, Failed, Projected, Projection};
pub use columns::{JSON_TEXT, is_json_text};
pub use definition::{Column, Definition, DefinitionText, Input, Output, OutputText};
pub use error::AdapterError;
pub use reference::{describe, reference_page};
