//! Ingest on librdkafka's mock cluster: a real client, a real Delta log, and a broker in the same process.

mod aside;
mod bench;
mod encodings;
mod exactly_once;
#[path = "../../../store/tests/faulty/mod.rs"]
mod faulty;
mod gaps;
mod gate;
mod headers;
mod refusals;
mod replays;
mod troubles;
