//! Kafka to Arrow to Delta: every message becomes rows of a raw table or one dead letter, exactly once.
//!
//! **In:** Kafka topics whose messages follow an event contract, or another system's records that an adapter knows.
//! **Out:** the raw tables `requests`, `feedback`, `gpu_telemetry` (contract columns, event date, and where each row
//! came from), and `dead_letters` for what could not be read. Kafka offsets land in the same Delta commit as the rows
//! that they stand for; group offsets in Kafka are information for people, never read back. How that makes every row
//! land once, also over several tables, is told and argued in `sink`.
//!
//! ```text
//! poll thread (source) --bounded channel--> decode on every core, in order --> encode --> commit (sink)
//!     pauses partitions while the channel is full    dead letters, then raw tables: rows, interval, stop, drained, revoked
//! ```
//!
//! What Kafka lost before it was read ends a run, or is passed over and recorded: by an operator ([`skip`], [`forget`]) or
//! by policy ([`OnDataLoss`]); how nothing is passed over without a record is told in `gaps`.
//!
//! After a fix, [`replay()`] reads dead letters again, and stores what can be read now; how that happens once is told in
//! `replay`.
//!
//! At the door, before anything is stored: sessions and callers become keyed pseudonyms, text columns are dropped
//! unless the operator keeps them, unknown fields are dropped unless the operator named them.
//!
//! **Refuses to know:** what rows mean, SQL, summaries. No payload byte reaches logs, metrics or errors.

mod aside;
mod broker;
mod config;
mod dead_letters;
mod decode;
mod ends;
mod error;
mod events;
mod gaps;
mod identity;
mod lookout;
mod positions;
mod registry;
mod replay;
mod run;
mod sink;
mod source;
mod tables;
mod token;
mod topic_id;
mod topics;

pub use broker::{Probed, probe};
pub use config::{Format, IngestConfig, OnDataLoss, Start, TopicConfig, TypeConflicts};
pub use decode::{Decoded, Decoder, Rejected};
pub use error::IngestError;
pub use gaps::{Cause, Decided};
pub use positions::{
    Forgotten, PartitionId, PartitionPosition, PositionState, Positions, SkipTo, Skipped, forget, positions, skip,
};
pub use registry::{LatestSchema, Registry, RegistryAccess, RegistryConfig, TopicSchema, probe_schemas};
pub use replay::{
    DeadLetters, FoundLetter, LetterFilter, LetterGroup, LetterId, LetterPayload, LetterReplay, RejectedLetters,
    ReplayMode, ReplayReport, replay,
};
pub use run::{IngestSummary, run, run_and_tell};
pub use tables::{dead_letter_replays_spec, dead_letters_spec, ingest_gaps_spec, raw_table_spec};
pub use topics::{Pattern, TopicPattern};
pub use weir_decode::{Encoding, Incoming, OnConflict, Reason};

/// What this crate's functions return.
pub type Result<T, E = IngestError> = std::result::Result<T, E>;
