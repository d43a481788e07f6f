//! What ingest tells the world: each event is one log line and its counters, together. No payload bytes.
//!
//! The job's label is `ingest_job`: Prometheus gives every series a label `job` of its own, the scrape's.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::config::RDKafkaLogLevel;
use weir_decode::SchemaId;
use weir_store::StoreError;

use crate::IngestError;
use crate::gaps::{Move, RETIRED};
use crate::identity::kafka_topic;
use crate::replay::ReplayReport;

/// Messages were decoded.
pub(crate) struct Decoded<'a> {
    pub(crate) job: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) tombstones: u64,
    /// By `table.column`.
    pub(crate) nulled: &'a BTreeMap<String, u64>,
    pub(crate) headers_left_out: u64,
}

impl Decoded<'_> {
    pub(crate) fn emit(&self) {
        let labels = [("ingest_job", self.job.to_owned()), ("topic", self.topic.to_owned())];
        metrics::counter!("weir_ingest_messages_total", &labels).increment(self.messages);
        metrics::counter!("weir_ingest_bytes_total", &labels).increment(self.bytes);
        metrics::counter!("weir_ingest_tombstones_total", &labels).increment(self.tombstones);
        for (column, values) in self.nulled {
            let labels =
                [("ingest_job", self.job.to_owned()), ("topic", self.topic.to_owned()), ("column", column.clone())];
            metrics::counter!("weir_ingest_nulled_values_total", &labels).increment(*values);
        }
        // Topics without a list of headers have no such series.
        if self.headers_left_out > 0 {
            metrics::counter!("weir_ingest_headers_left_out_total", &labels).increment(self.headers_left_out);
        }
        tracing::trace!(self.job, self.topic, self.messages, self.bytes, self.tombstones, "messages decoded");
    }
}

/// Fields of good rows were dropped: their contract lacks them, and nobody keeps them.
pub(crate) struct UnknownFields<'a> {
    pub(crate) job: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) count: u64,
    /// Those that were not said of the topic before; a few, and no label: whoever sends chooses them.
    pub(crate) names: &'a [String],
}

impl UnknownFields<'_> {
    pub(crate) fn emit(&self) {
        let labels = [("ingest_job", self.job.to_owned()), ("topic", self.topic.to_owned())];
        metrics::counter!("weir_ingest_unknown_fields_total", &labels).increment(self.count);
        if !self.names.is_empty() {
            tracing::debug!(self.job, self.topic, names = ?self.names, "fields that the contract lacks are dropped");
        }
    }
}

/// Rows and positions became durable.
pub(crate) struct Committed<'a> {
    pub(crate) job: &'a str,
    pub(crate) table: &'a str,
    pub(crate) version: i64,
    pub(crate) rows: u64,
    pub(crate) took: Duration,
}

impl Committed<'_> {
    pub(crate) fn emit(&self) {
        let labels = [("ingest_job", self.job.to_owned()), ("table", self.table.to_owned())];
        metrics::counter!("weir_ingest_commits_total", &labels).increment(1);
        metrics::counter!("weir_ingest_rows_total", &labels).increment(self.rows);
        metrics::histogram!("weir_ingest_commit_seconds", &labels).record(self.took.as_secs_f64());
        let took_ms = self.took.as_secs_f64() * 1e3;
        tracing::debug!(self.job, self.table, self.version, self.rows, took_ms, "committed");
    }
}

/// Messages of a topic became dead letters for one reason, and that is durable. The first of them stands for all.
pub(crate) struct DeadLettered<'a> {
    pub(crate) job: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) class: &'static str,
    pub(crate) count: u64,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl DeadLettered<'_> {
    pub(crate) fn emit(&self) {
        let labels =
            [("ingest_job", self.job.to_owned()), ("topic", self.topic.to_owned()), ("reason", self.class.to_owned())];
        metrics::counter!("weir_ingest_dead_letters_total", &labels).increment(self.count);
        let Self { job, topic, class, count, partition, offset } = self;
        tracing::warn!(job, topic, reason = class, count, partition, offset, "dead letters, from this offset on");
    }
}

/// How far behind the end of its partition the reader is.
pub(crate) struct Lag<'a> {
    pub(crate) job: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) messages: i64,
}

impl Lag<'_> {
    #[expect(clippy::cast_precision_loss, reason = "a gauge of 2^53 messages of lag may be off by one")]
    pub(crate) fn emit(&self) {
        let labels = [
            ("ingest_job", self.job.to_owned()),
            ("topic", self.topic.to_owned()),
            ("partition", self.partition.to_string()),
        ];
        metrics::gauge!("weir_ingest_lag_messages", &labels).set(self.messages as f64);
    }
}

/// Buffers were dropped and positions will be read again.
pub(crate) struct Restarted<'a> {
    pub(crate) job: &'a str,
    pub(crate) why: &'a StoreError,
    /// Before positions are read again; none when it is given up.
    pub(crate) rest: Option<Duration>,
}

impl Restarted<'_> {
    pub(crate) fn emit(&self) {
        metrics::counter!("weir_ingest_restarts_total", "ingest_job" => self.job.to_owned()).increment(1);
        let rest_ms = self.rest.map(|rest| rest.as_millis());
        tracing::warn!(self.job, why = %self.why, rest_ms, "uncommitted rows dropped; reading again from the tables' positions");
    }
}

/// Offsets were passed over unread, and that is recorded.
pub(crate) struct GapRecorded<'a> {
    pub(crate) job: &'a str,
    pub(crate) cause: &'static str,
    pub(crate) gap: &'a Move,
}

impl GapRecorded<'_> {
    pub(crate) fn emit(&self) {
        let Move { topic, partition, from, to, .. } = self.gap;
        // As Kafka names it, like all other metrics.
        let topic = kafka_topic(topic);
        let labels =
            [("ingest_job", self.job.to_owned()), ("topic", topic.to_owned()), ("cause", self.cause.to_owned())];
        metrics::counter!("weir_ingest_gaps_total", &labels).increment(1);
        // Of a topic that was made again nobody knows how much more it held.
        let offsets = if *to == RETIRED { 0 } else { to.saturating_sub(*from).unsigned_abs() };
        metrics::counter!("weir_ingest_gap_offsets_total", &labels).increment(offsets);
        let (job, cause) = (self.job, self.cause);
        tracing::warn!(job, topic, partition, from, to, cause, "offsets are passed over unread");
    }
}

/// A partition's position moved in the tables, or the partition came to us just now.
pub(crate) fn progressed(job: &str, topic: &str, partition: i32) {
    let labels = [("ingest_job", job.to_owned()), ("topic", topic.to_owned()), ("partition", partition.to_string())];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!("weir_ingest_progress_timestamp_seconds", &labels).set(now.as_secs_f64());
    tracing::trace!(job, topic, partition, "position moved");
}

pub(crate) fn assigned(job: &str, topic: &str, partition: i32, start: i64) {
    progressed(job, topic, partition);
    tracing::info!(job, topic, partition, start, "partition assigned");
}

pub(crate) fn revoked(job: &str, topic: &str, partition: i32) {
    tracing::info!(job, topic, partition, "partition revoked");
}

/// A partition is ours, and it is not known where to start.
pub(crate) fn parked(job: &str, topic: &str, partition: i32) {
    tracing::warn!(
        job,
        topic,
        partition,
        "partition assigned and not read yet: no broker says what it holds, or the tables do not answer; tried again until they do"
    );
}

/// How many partitions are ours and not read yet has changed.
pub(crate) fn parked_partitions(job: &str, partitions: usize) {
    let count = u32::try_from(partitions).unwrap_or(u32::MAX);
    metrics::gauge!("weir_ingest_parked_partitions", "ingest_job" => job.to_owned()).set(f64::from(count));
    tracing::info!(job, partitions, "partitions that are ours and not read yet");
}

pub(crate) fn topic_came(job: &str, topic: &str, partitions: i32) {
    metrics::counter!("weir_ingest_topics_found_total", "ingest_job" => job.to_owned()).increment(1);
    tracing::info!(job, topic, partitions, "a topic that matches a pattern is read from now on");
}

pub(crate) fn topic_went(job: &str, topic: &str) {
    metrics::counter!("weir_ingest_topics_gone_total", "ingest_job" => job.to_owned()).increment(1);
    tracing::warn!(job, topic, "a topic that matched a pattern is gone and no longer read; its rows stay");
}

/// A topic that only a pattern matches is not read, so that the others are; `count` are set aside now.
pub(crate) fn topic_set_aside(job: &str, topic: &str, why: &str, count: usize) {
    topics_set_aside(job, count);
    tracing::warn!(job, topic, why, "a topic that matches a pattern is set aside and not read; the others are");
}

pub(crate) fn topic_no_longer_set_aside(job: &str, topic: &str, count: usize) {
    topics_set_aside(job, count);
    tracing::info!(job, topic, "a topic that was set aside is read, or gone");
}

#[expect(clippy::cast_precision_loss, reason = "there are not 2^53 topics")]
fn topics_set_aside(job: &str, count: usize) {
    metrics::gauge!("weir_ingest_topics_set_aside", "ingest_job" => job.to_owned()).set(count as f64);
}

pub(crate) fn topics_not_taken_on(job: &str, why: &StoreError) {
    tracing::warn!(job, %why, "topics that came are not read yet: the tables cannot be opened; tried again soon");
}

pub(crate) fn no_topic_matches(job: &str) {
    tracing::warn!(job, "no topic matches yet; those that come are read");
}

pub(crate) fn paused(job: &str) {
    metrics::counter!("weir_ingest_pauses_total", "ingest_job" => job.to_owned()).increment(1);
    tracing::debug!(job, "partitions paused: tables are slower than Kafka");
}

pub(crate) fn waiting(job: &str, topic: &str, partition: i32, end: i64) {
    tracing::debug!(job, topic, partition, end, "drained here; waiting for a partition that another member holds");
}

pub(crate) fn client_trouble(job: &str, error: &dyn std::fmt::Display) {
    metrics::counter!("weir_ingest_client_errors_total", "ingest_job" => job.to_owned()).increment(1);
    tracing::warn!(job, %error, "the Kafka client reports trouble and goes on");
}

/// What the Kafka client has to say. It names brokers, topics and mechanisms; it never has a secret in it.
pub(crate) fn client_log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(facility, message, "kafka client");
        }
        _ => tracing::debug!(facility, message, "kafka client"),
    }
}

pub(crate) fn keys_expired(days: usize) {
    tracing::info!(days, "dead-letter keys expired");
}

pub(crate) fn replayed(job: &str, report: &ReplayReport) {
    let ReplayReport { stored, already_stored, expired, foreign, unsettled, finished_rows, dry_run, .. } = report;
    let rejected: u64 = report.rejected.iter().map(|rejected| rejected.letters).sum();
    tracing::info!(
        job,
        stored,
        already_stored,
        rejected,
        expired,
        foreign,
        unsettled,
        finished_rows,
        dry_run,
        "dead letters replayed"
    );
}

pub(crate) fn ended(job: &str, error: Option<&IngestError>) {
    match error {
        Some(error) => tracing::error!(job, %error, "ingest failed"),
        None => tracing::info!(job, "ingest ended"),
    }
}

pub(crate) fn schema_read(id: SchemaId) {
    metrics::counter!("weir_ingest_schemas_read_total").increment(1);
    tracing::info!(%id, "schema read from the registry");
}

pub(crate) fn registry_trouble(id: SchemaId, why: &str) {
    metrics::counter!("weir_ingest_registry_failures_total").increment(1);
    tracing::warn!(%id, why, "a schema cannot be read; asking again");
}

/// The registry says that it has no such schema. `is_news` is false where it is one of many, or was said before: those are
/// counted all the same.
pub(crate) fn schema_unknown(id: SchemaId, is_news: bool, why: &str) {
    metrics::counter!("weir_ingest_schemas_unknown_total").increment(1);
    if is_news {
        tracing::warn!(%id, why, "messages that name this schema are dead letters until it is registered");
    } else {
        tracing::debug!(%id, why, "messages that name this schema are dead letters until it is registered");
    }
}
