//! What the listener tells the world: each event is one log line and its counters, together. Neither the text of a query
//! nor a row is in them: both may hold personal data.

use std::time::{Duration, Instant};

/// Counters of what should not happen are there, at nothing, before it does.
pub(super) fn started() {
    metrics::gauge!("weir_postgres_connections").set(0.0);
    for reason in ["password", "protocol", "too_many"] {
        metrics::counter!("weir_postgres_refused_logins_total", "reason" => reason).increment(0);
    }
    for outcome in ["ok", "refused", "bad_query", "failed", "timeout", "too_many_rows", "cancelled"] {
        metrics::counter!("weir_postgres_queries_total", "outcome" => outcome).increment(0);
    }
}

/// A connection, counted while it is open.
pub(super) struct Connection;

impl Connection {
    pub(super) fn opened() -> Self {
        metrics::gauge!("weir_postgres_connections").increment(1.0);
        Self
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        metrics::gauge!("weir_postgres_connections").decrement(1.0);
    }
}

/// Somebody was not let in.
pub(super) fn login_refused(reason: &'static str, from: &dyn std::fmt::Display) {
    metrics::counter!("weir_postgres_refused_logins_total", "reason" => reason).increment(1);
    tracing::warn!(reason, %from, "a PostgreSQL login was refused");
}

/// A connection broke: its client went away.
pub(super) fn connection_broke(error: &dyn std::fmt::Display) {
    tracing::debug!(%error, "a PostgreSQL connection broke");
}

/// The system gave no connection; the next may come.
pub(super) fn not_accepted(error: &dyn std::fmt::Display) {
    tracing::warn!(%error, "a PostgreSQL connection could not be accepted");
}

/// A statement that runs. What is dropped before it ended was cancelled.
pub(super) struct Statement {
    began: Instant,
    outcome: &'static str,
    rows: usize,
}

impl Statement {
    pub(super) fn began() -> Self {
        Self { began: Instant::now(), outcome: "cancelled", rows: 0 }
    }

    pub(super) fn ended(mut self, outcome: &'static str, rows: usize) {
        (self.outcome, self.rows) = (outcome, rows);
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        let took: Duration = self.began.elapsed();
        metrics::counter!("weir_postgres_queries_total", "outcome" => self.outcome).increment(1);
        metrics::histogram!("weir_postgres_query_seconds").record(took.as_secs_f64());
        tracing::debug!(
            outcome = self.outcome,
            rows = self.rows,
            took_ms = took.as_secs_f64() * 1e3,
            "a PostgreSQL statement ended"
        );
    }
}
