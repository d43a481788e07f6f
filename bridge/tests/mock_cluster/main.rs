//! The bridge before librdkafka's mock cluster.

mod answers;
mod bench;
mod delivery;
mod send;
