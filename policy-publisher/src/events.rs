//! What operators see: one function per event, its log line and its counter together.

use weir_policy_runtime::PolicyId;

use crate::PublisherError;
use crate::registry::RegistryEvent;

pub(crate) fn decided(event: &RegistryEvent) {
    let kind = event.event.name();
    tracing::info!(policy = %event.policy_id, event = kind, actor = %event.actor, forced = event.forced, "policy decision recorded");
    metrics::counter!("weir_policy_decisions_total", "event" => kind).increment(1);
}

pub(crate) fn decision_retried(attempt: usize) {
    tracing::debug!(attempt, "another decision came first, deciding again");
    metrics::counter!("weir_policy_decision_retries_total").increment(1);
}

pub(crate) fn active_changed(active: Option<&PolicyId>) {
    match active {
        Some(id) => tracing::info!(policy = %id, "policy in force changed"),
        None => tracing::info!("no policy is in force"),
    }
    metrics::counter!("weir_policy_active_changes_total").increment(1);
    metrics::gauge!("weir_policy_active").set(if active.is_some() { 1.0 } else { 0.0 });
}

pub(crate) fn refresh_failed(error: &PublisherError) {
    tracing::warn!(%error, "registry not refreshed, delivering what was read before");
    metrics::counter!("weir_policy_refresh_failures_total").increment(1);
}

pub(crate) fn fetched(status: u16) {
    tracing::debug!(status, "active policy fetched");
    metrics::counter!("weir_policy_fetches_total", "status" => status.to_string()).increment(1);
}

pub(crate) fn change_refused(status: u16) {
    tracing::warn!(status, "change over http refused");
    metrics::counter!("weir_policy_changes_refused_total", "status" => status.to_string()).increment(1);
}

pub(crate) fn kafka_published(active: Option<&PolicyId>, bytes: usize) {
    tracing::info!(policy = active.map(PolicyId::as_str), bytes, "active policy published to kafka");
    metrics::counter!("weir_policy_kafka_published_total").increment(1);
}

pub(crate) fn kafka_failed(error: &PublisherError) {
    tracing::warn!(%error, "active policy not published to kafka, trying again");
    metrics::counter!("weir_policy_kafka_failures_total").increment(1);
}
