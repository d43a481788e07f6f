//! What the bridge tells the world: each event is one log line and its counters, together. Nothing that a sender sent
//! is in them.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use crate::buffer::Found;
use crate::message::Signal;

/// A request was answered.
pub(crate) fn answered(receiver: &'static str, status: u16, body_bytes: usize) {
    metrics::counter!("weir_bridge_requests_total", "receiver" => receiver, "status" => status.to_string())
        .increment(1);
    metrics::counter!("weir_bridge_received_bytes_total", "receiver" => receiver).increment(body_bytes as u64);
    tracing::trace!(receiver, status, body_bytes, "request answered");
}

/// Messages became durable, and their sender is told so.
pub(crate) fn accepted(signal: Signal, messages: u64) {
    metrics::counter!("weir_bridge_accepted_messages_total", "signal" => signal.name()).increment(messages);
}

/// Samples that the contract has no column for, or whose value it rules out.
pub(crate) fn ignored(reason: &'static str, samples: u64) {
    metrics::counter!("weir_bridge_ignored_samples_total", "reason" => reason).increment(samples);
    tracing::trace!(reason, samples, "samples ignored");
}

/// Attributes, bodies and messages that can hold text were dropped.
pub(crate) fn text_dropped(signal: Signal, values: u64) {
    if values > 0 {
        metrics::counter!("weir_bridge_text_dropped_total", "signal" => signal.name()).increment(values);
    }
}

/// Messages that Kafka would not take were refused at the door; their sender is told how many.
pub(crate) fn too_large(signal: Signal, messages: u64) {
    metrics::counter!("weir_bridge_too_large_total", "signal" => signal.name()).increment(messages);
    tracing::warn!(signal = signal.name(), messages, "messages above the size limit of Kafka were refused");
}

/// Counters of what should not happen are there, at nothing, before it does: an increase from a counter that is not there
/// yet is none, and an alert on the first time would miss it.
pub(crate) fn started<'a>(topics: impl IntoIterator<Item = (Signal, &'a str)>) {
    metrics::counter!("weir_bridge_buffer_full_total").increment(0);
    metrics::counter!("weir_bridge_disk_failures_total").increment(0);
    metrics::counter!("weir_bridge_lost_messages_total").increment(0);
    metrics::counter!("weir_bridge_producer_restarts_total").increment(0);
    for (signal, topic) in topics {
        metrics::counter!("weir_bridge_too_large_total", "signal" => signal.name()).increment(0);
        metrics::counter!("weir_bridge_delivered_messages_total", "signal" => signal.name()).increment(0);
        metrics::counter!("weir_bridge_delivery_failures_total", "topic" => topic.to_owned()).increment(0);
        metrics::counter!("weir_bridge_refused_messages_total", "topic" => topic.to_owned()).increment(0);
    }
}

/// There was no room for a request.
pub(crate) fn full() {
    metrics::counter!("weir_bridge_buffer_full_total").increment(1);
    tracing::debug!("the buffer is full: senders are told to come again");
}

pub(crate) fn buffer_opened(found: Found, max_bytes: u64) {
    metrics::counter!("weir_bridge_replayed_messages_total").increment(found.messages);
    metrics::counter!("weir_bridge_torn_bytes_total").increment(found.torn_bytes);
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("weir_bridge_buffer_max_bytes").set(max_bytes as f64);
    if found != Found::default() {
        tracing::info!(messages = found.messages, torn_bytes = found.torn_bytes, "an earlier run left messages");
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
pub(crate) fn buffer_bytes(bytes: u64) {
    metrics::gauge!("weir_bridge_buffer_bytes").set(bytes as f64);
}

/// A group of requests became durable.
pub(crate) fn synced(bytes: usize, took: Duration) {
    metrics::histogram!("weir_bridge_sync_seconds").record(took.as_secs_f64());
    tracing::trace!(bytes, took_ms = took.as_secs_f64() * 1e3, "synced");
}

pub(crate) fn not_written(error: &io::Error) {
    metrics::counter!("weir_bridge_disk_failures_total").increment(1);
    tracing::error!(%error, "the buffer could not be written: senders are told to come again");
}

pub(crate) fn not_removed(segment: u64, error: &io::Error) {
    metrics::counter!("weir_bridge_disk_failures_total").increment(1);
    tracing::warn!(segment, %error, "a delivered segment could not be removed and will be delivered again by the next run");
}

pub(crate) fn not_saved(error: &io::Error) {
    metrics::counter!("weir_bridge_disk_failures_total").increment(1);
    tracing::warn!(%error, "how far Kafka has come could not be written down: the next run may deliver more twice");
}

/// The disk did not give back what it had made durable.
pub(crate) fn lost(segment: u64, index: u64, messages: u64, error: &io::Error) {
    metrics::counter!("weir_bridge_lost_messages_total").increment(messages);
    tracing::error!(segment, index, messages, %error, "the buffer is damaged: messages are lost");
}

/// Kafka has a message.
pub(crate) fn delivered(signal: Signal) {
    metrics::counter!("weir_bridge_delivered_messages_total", "signal" => signal.name()).increment(1);
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
pub(crate) fn unacknowledged(messages: u64) {
    metrics::gauge!("weir_bridge_unacknowledged_messages").set(messages as f64);
}

/// Kafka did not take a message and may take it later.
pub(crate) fn not_delivered(topic: &str, error: &dyn Display) {
    metrics::counter!("weir_bridge_delivery_failures_total", "topic" => topic.to_owned()).increment(1);
    tracing::warn!(topic, %error, "Kafka did not take a message; it is tried again");
}

/// Kafka will never take a message.
pub(crate) fn refused(topic: &str, segment: u64, index: u64, error: &dyn Display) {
    metrics::counter!("weir_bridge_refused_messages_total", "topic" => topic.to_owned()).increment(1);
    tracing::error!(topic, segment, index, %error, "Kafka refused a message for good; it is dropped");
}

/// The producer lost its sequence and was made anew.
pub(crate) fn producer_restarted(why: &dyn Display) {
    metrics::counter!("weir_bridge_producer_restarts_total").increment(1);
    tracing::warn!(%why, "a new producer delivers again what is not acknowledged");
}

/// The first statistics of the client say whether a broker is there.
pub(crate) fn kafka_not_asked_yet() {
    metrics::gauge!("weir_bridge_kafka_up").set(0.0);
}

pub(crate) fn kafka_is(up: bool) {
    metrics::gauge!("weir_bridge_kafka_up").set(f64::from(u8::from(up)));
    if up {
        tracing::info!("a Kafka broker is connected");
    } else {
        tracing::warn!("no Kafka broker is connected: messages wait on disk");
    }
}

pub(crate) fn client_trouble(error: &dyn Display) {
    tracing::debug!(%error, "the Kafka client reports trouble and goes on");
}
