//! The bridge: telemetry in, Kafka out, because routers and GPUs don't speak Kafka.
//!
//! **In:** Prometheus remote-write (1.0 and 2.0) and OTLP (metrics, traces and logs; HTTP with Protocol Buffers or
//! JSON, and gRPC). **Out:** messages on three topics, at least once.
//!
//! A request is answered with "yes" once its messages are on disk. From there an idempotent producer hands them to
//! Kafka; while Kafka is away the disk fills, and when it is full senders are told when to come again. After a crash
//! what was on disk is delivered; what Kafka had, and we had not noted, is delivered twice, with the same header
//! `bridge` (`<segment id>/<index>`). Downstream that changes nothing for requests (one row a request id), and a doubled
//! sample of `gpu_telemetry` is a row equal to another in identity, time and values.
//!
//! # What is produced
//!
//! *Metrics*, topic `gpu_telemetry`: the contract of that name. The samples of a request that share time, instance and
//! GPU are one message, under the exporters' own names; only samples that the contract has a column for are kept, the
//! others are counted. Key: the instance.
//!
//! *Spans*, topic `otel_spans`, one message each. Key: the trace id.
//!
//! ```json
//! {
//!   "trace_id": "5b8efff798038103d269b633813fc60c", "span_id": "eee19b7ec3c1b174", "parent_span_id": null,
//!   "name": "chat m", "kind": "client", "start_time_ms": 1700000000000.5, "end_time_ms": 1700000001250.0,
//!   "status_code": "ok", "scope": "my.instrumentation", "service_name": "router",
//!   "attributes": {"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": "12"},
//!   "resource": {"service.name": "router"},
//!   "events": [{"name": "first_token", "time_ms": 1700000000300.0, "attributes": {}}]
//! }
//! ```
//!
//! `kind` is internal, server, client, producer, consumer or unspecified; `status_code` is unset, ok or error. Values of
//! `attributes` and `resource` are strings: scalars as text, lists and maps as JSON text, bytes in base64. An id that is
//! not there is null. Times are milliseconds since the Unix epoch, with a fraction.
//!
//! *Log records*, topic `otel_logs`, one message each: `time_ms`, `observed_time_ms`, `severity` (trace, debug, info,
//! warn, error, fatal), `event_name`, `trace_id`, `span_id`, `body` (text; JSON text of anything else), `scope`,
//! `service_name`, `attributes`, `resource`. Key: the trace id, or the service's name.
//!
//! Prompts and responses are personal data. Unless the operator keeps text, the attributes that can hold them, the body
//! of a log record that is an event of GenAI, and a span's `status_message` are dropped before anything is written.
//!
//! **Refuses to know:** Delta, SQL, what becomes of a message behind Kafka.

// What reads requests and keeps messages is complete without the bridge, which is then not there to use all of it.
#![cfg_attr(not(feature = "kafka"), allow(dead_code, unused_imports))]

mod attributes;
#[cfg(feature = "kafka")]
mod bridge;
mod buffer;
mod config;
#[cfg(feature = "kafka")]
mod delivery;
mod error;
mod events;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod message;
mod receive;
mod room;
mod spans;
mod telemetry;
mod text;

pub mod proto;

#[cfg(feature = "kafka")]
pub use self::bridge::{Bridge, Standing, Summary};
pub use self::config::BridgeConfig;
#[cfg(feature = "kafka")]
pub use self::delivery::{HEADER, probe};
pub use self::error::{BridgeError, Fault, Result};
pub use self::message::Signal;
