//! The parts of Prometheus' and OpenTelemetry's messages that the bridge reads, by their public field numbers. Fields
//! that are not here are skipped, as Protocol Buffers have it.

mod json;
pub mod otlp;
pub mod remote_write;
