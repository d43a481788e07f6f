//! Bytes to record batches: many messages at once, each bad one set apart with a reason, its neighbours untouched.
//!
//! **In:** rows, each the bytes of one record, and a schema or an event contract. **Out:** record batches of the good rows
//! in their order, and a [`Reason`] for each other one. Which of the two depends on a row's bytes and its Kafka timestamp
//! only, never on the clock or on its neighbours: read again, it is judged the same, except where the registry did not have
//! its schema then and has it now.
//!
//! [`Wire`] makes rows of JSON of what messages are on the wire (JSON, lines of it, Avro, Protobuf), a [`RowDecoder`] makes
//! columns of rows, and [`check`] holds what was decoded against the contract.
//!
//! **Refuses to know:** Kafka, tables, keys, files, the network. No byte of a message reaches a reason.

mod blanks;
mod candidates;
#[cfg(any(test, feature = "oracle"))]
pub mod fuzzing;
mod headers;
mod json;
mod reason;
mod row;
mod validate;
mod wire;

pub use headers::Headers;
#[cfg(any(test, feature = "oracle"))]
pub use json::oracle;
pub use json::{JSON_TEXT, JsonDecoder, OnConflict, UnsupportedSchema};
pub use reason::Reason;
pub use row::{Incoming, Piece, Row, RowDecoder, RowsDecoded};
pub use validate::check;
pub use wire::{
    Encoding, RegisteredSchema, SchemaAnswer, SchemaId, SchemaLanguage, SchemaSource, SchemaTrouble, Wire,
    begins_with_schema, message_fields,
};
