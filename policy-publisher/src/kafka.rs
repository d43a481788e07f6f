//! The active policy on a compacted Kafka topic, for routers that would rather listen than ask.
//!
//! One record matters: key `active`, value the bundle's tar, headers `policy-id`, and `signature` and `key-id` if it
//! is signed. A record without value says that no policy is in force. Compaction keeps the latest record, so a router
//! that starts reads the topic from its beginning and acts on the last one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;
use weir_policy_runtime::{Bundle, MAX_BUNDLE_BYTES, PolicyId, Signature, Standing, Trust};

use crate::delivery::InForce;
use crate::registry::ActivePolicy;
use crate::{PublisherError, Result, events};

const KEY: &str = "active";
const POLICY_ID: &str = "policy-id";
const SIGNATURE: &str = "signature";
const KEY_ID: &str = "key-id";

/// Room for a record's headers and framing above the bundle itself, bytes.
const RECORD_OVERHEAD_BYTES: u64 = 1 << 20;

/// Where and how.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// Bootstrap servers.
    pub brokers: String,
    /// Topic of the active policy, e.g. `weir.policies`.
    pub topic: String,
    /// Further librdkafka settings (security, for example).
    pub options: BTreeMap<String, String>,
    /// How long to wait for the brokers.
    pub timeout: Duration,
}

impl KafkaConfig {
    /// The usual topic at these brokers, without further settings.
    #[must_use]
    pub fn new(brokers: &str) -> Self {
        let (brokers, topic) = (brokers.to_owned(), "weir.policies".to_owned());
        Self { brokers, topic, options: BTreeMap::new(), timeout: Duration::from_secs(10) }
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("client.id", "weir-policy");
        for (name, value) in &self.options {
            client.set(name, value);
        }
        client
    }

    fn failed(&self, source: KafkaError) -> PublisherError {
        if let KafkaError::ClientConfig(_, _, name, _) = source {
            return PublisherError::KafkaSetting { name };
        }
        let (brokers, topic) = (self.brokers.clone(), self.topic.clone());
        match source.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::MessageTimedOut
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => PublisherError::KafkaSilent { brokers, topic },
            _ => PublisherError::Kafka { brokers, topic, source: Box::new(source) },
        }
    }

    fn bad_record(&self, why: impl std::fmt::Display) -> PublisherError {
        PublisherError::KafkaRecord { topic: self.topic.clone(), why: why.to_string() }
    }
}

/// Creates the topic as it should be: one partition, compacted, records as large as a bundle. A topic that is there is
/// left as it is, if it is compacted.
///
/// # Errors
/// When no broker answers, they do not let us create topics, or a topic of that name deletes old records.
pub async fn ensure_topic(config: &KafkaConfig, replication: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config.client().create().map_err(|e| config.failed(e))?;
    let largest = (MAX_BUNDLE_BYTES + RECORD_OVERHEAD_BYTES).to_string();
    let topic = NewTopic::new(&config.topic, 1, TopicReplication::Fixed(replication))
        .set("cleanup.policy", "compact")
        .set("max.message.bytes", &largest);
    let options = AdminOptions::new().operation_timeout(Some(config.timeout)).request_timeout(Some(config.timeout));
    for outcome in admin.create_topics([&topic], &options).await.map_err(|e| config.failed(e))? {
        match outcome {
            Ok(_) => {}
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => refuse_uncompacted(config, &admin, &options).await?,
            Err((_, code)) => return Err(config.failed(KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

/// A topic that deletes old records forgets the policy in force after a while, and a router that starts then finds none.
async fn refuse_uncompacted(
    config: &KafkaConfig,
    admin: &AdminClient<DefaultClientContext>,
    options: &AdminOptions,
) -> Result<()> {
    let topic = [ResourceSpecifier::Topic(&config.topic)];
    for described in admin.describe_configs(&topic, options).await.map_err(|e| config.failed(e))? {
        let described = described.map_err(|code| config.failed(KafkaError::AdminOp(code)))?;
        let cleanup = described.get("cleanup.policy").and_then(|entry| entry.value.as_deref()).unwrap_or_default();
        if !cleanup.split(',').any(|policy| policy.trim() == "compact") || cleanup.contains("delete") {
            let (topic, cleanup) = (config.topic.clone(), cleanup.to_owned());
            return Err(PublisherError::KafkaNotCompacted { topic, cleanup });
        }
    }
    Ok(())
}

/// Publishes the policy in force, or that there is none, and waits until all replicas have it.
///
/// # Errors
/// When no broker answers in time, or the topic does not take a record of that size.
pub async fn publish_active(config: &KafkaConfig, active: Option<&ActivePolicy>) -> Result<()> {
    let producer: FutureProducer = config
        .client()
        .set("enable.idempotence", "true") // implies acks=all
        .set("message.timeout.ms", config.timeout.as_millis().to_string())
        .set("message.max.bytes", (MAX_BUNDLE_BYTES + RECORD_OVERHEAD_BYTES).to_string())
        .create()
        .map_err(|e| config.failed(e))?;
    let mut headers = OwnedHeaders::new();
    let mut record: FutureRecord<'_, str, [u8]> = FutureRecord::to(&config.topic).key(KEY);
    if let Some(active) = active {
        let add = |headers: OwnedHeaders, key, value: &str| headers.insert(Header { key, value: Some(value) });
        headers = add(headers, POLICY_ID, active.id.as_str());
        if let Some(signature) = &active.signature {
            headers = add(headers, SIGNATURE, &signature.signature);
            headers = add(headers, KEY_ID, &signature.key_id);
        }
        record = record.payload(&active.tar);
    }
    let bytes = active.map_or(0, |active| active.tar.len());
    match producer.send(record.headers(headers), config.timeout).await {
        Ok(_) => {
            events::kafka_published(active.map(|active| &active.id), bytes);
            Ok(())
        }
        Err((error, _)) => match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                Err(PublisherError::KafkaTooLarge { topic: config.topic.clone(), bytes })
            }
            _ => Err(config.failed(error)),
        },
    }
}

/// Publishes what is in force now and whatever is later, until `stop` turns true. What fails is logged, counted and tried
/// again: the latest policy wins. Before the first publication the topic is created with `replication` copies, or is
/// expected to be there if that is `None`. While nothing is known of the policy in force nothing is published.
pub async fn publish_changes(
    config: KafkaConfig,
    replication: Option<i32>,
    mut in_force: watch::Receiver<InForce>,
    mut stop: watch::Receiver<bool>,
) {
    let mut again = false;
    let mut to_create = replication;
    in_force.mark_changed();
    loop {
        let change = async {
            if again {
                tokio::time::sleep(config.timeout).await;
                return true;
            }
            in_force.changed().await.is_ok()
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            more = change => if !more { return },
        }
        let current = in_force.borrow_and_update().clone();
        if current == InForce::Unknown {
            again = false;
            continue;
        }
        let outcome = async {
            if let Some(replication) = to_create {
                match ensure_topic(&config, replication).await {
                    Ok(()) => to_create = None,
                    // Not there yet, and publishing would make it with the broker's defaults.
                    Err(silent @ PublisherError::KafkaSilent { .. }) => return Err(silent),
                    // Routers that listen already must hear of changes, whatever the topic is like.
                    Err(error) => events::kafka_failed(&error),
                }
            }
            publish_active(&config, current.policy().map(Arc::as_ref)).await
        };
        let outcome = outcome.await;
        again = outcome.is_err();
        if let Err(error) = outcome {
            events::kafka_failed(&error);
        }
    }
}

/// A policy that came over Kafka, whole and trusted.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered {
    /// Its content.
    pub bundle: Bundle,
    /// Who signed it.
    pub standing: Standing,
}

/// What reading the topic found.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// Nothing since the last time.
    Unchanged,
    /// This policy is in force now.
    Policy(Box<Delivered>),
    /// No policy is in force.
    None,
}

/// Reads the topic as a router does. Blocking: keep it on a thread of its own.
pub struct ActiveReader {
    config: KafkaConfig,
    trust: Trust,
    consumer: BaseConsumer,
    /// Partitions whose end was not reached yet; empty after the first complete reading.
    unread: Vec<i32>,
    /// The last word on the active policy, from the moment it was read until a caller got it.
    news: Option<Result<Update>>,
}

impl ActiveReader {
    /// Connects, and stands at the beginning of the topic.
    ///
    /// # Errors
    /// When no broker answers, or there is no such topic.
    pub fn open(config: KafkaConfig, trust: Trust) -> Result<Self> {
        let failed = |error| config.failed(error);
        let consumer: BaseConsumer = config
            .client()
            .set("group.id", "weir-policy-reader") // assigned by hand: the group is never joined, nothing is committed
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.message.max.bytes", (MAX_BUNDLE_BYTES + RECORD_OVERHEAD_BYTES).to_string())
            .set("fetch.max.bytes", (MAX_BUNDLE_BYTES + RECORD_OVERHEAD_BYTES).to_string())
            .set("receive.message.max.bytes", (2 * (MAX_BUNDLE_BYTES + RECORD_OVERHEAD_BYTES)).to_string())
            .create()
            .map_err(failed)?;
        let metadata = consumer.fetch_metadata(Some(&config.topic), config.timeout).map_err(failed)?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == config.topic);
        let unread: Vec<i32> =
            topic.iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
        if unread.is_empty() {
            return Err(failed(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)));
        }
        let mut assignment = TopicPartitionList::new();
        for partition in &unread {
            assignment.add_partition_offset(&config.topic, *partition, Offset::Beginning).map_err(failed)?;
        }
        consumer.assign(&assignment).map_err(failed)?;
        Ok(Self { config, trust, consumer, unread, news: None })
    }

    /// Reads to the end of the topic and returns the last word on the active policy. The first call waits for the end
    /// up to the configured timeout; later ones wait up to `patience` for news. News that were read before the brokers
    /// fell silent are returned by a later call.
    ///
    /// # Errors
    /// When the brokers fall silent, or the last word is no policy that we trust; the caller keeps what it has.
    pub fn poll(&mut self, patience: Duration) -> Result<Update> {
        let deadline = Instant::now() + if self.unread.is_empty() { patience } else { self.config.timeout };
        loop {
            // News in hand and nothing right behind it: act on it.
            let wait = if self.news.is_some() && self.unread.is_empty() {
                Duration::ZERO
            } else {
                deadline.saturating_duration_since(Instant::now())
            };
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    if message.key() == Some(KEY.as_bytes()) {
                        self.news = Some(self.read(&message));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    let was_first_reading = !self.unread.is_empty();
                    self.unread.retain(|unread| *unread != partition);
                    if was_first_reading && self.unread.is_empty() {
                        return self.news.take().unwrap_or(Ok(Update::None));
                    }
                }
                Some(Err(_)) if self.news.is_some() && self.unread.is_empty() => {
                    return self.news.take().unwrap_or(Ok(Update::Unchanged));
                }
                Some(Err(error)) if Instant::now() >= deadline => return Err(self.config.failed(error)),
                // librdkafka reconnects by itself; what it reports meanwhile matters only if time runs out.
                Some(Err(_)) => {}
                None if self.unread.is_empty() => return self.news.take().unwrap_or(Ok(Update::Unchanged)),
                None => {
                    let (brokers, topic) = (self.config.brokers.clone(), self.config.topic.clone());
                    return Err(PublisherError::KafkaSilent { brokers, topic });
                }
            }
        }
    }

    fn read(&self, message: &BorrowedMessage<'_>) -> Result<Update> {
        let Some(tar) = message.payload() else { return Ok(Update::None) };
        let header = |name: &str| {
            let headers = message.headers()?;
            let found = headers.iter().find(|header| header.key == name)?;
            std::str::from_utf8(found.value?).ok().map(str::to_owned)
        };
        let id: PolicyId = header(POLICY_ID)
            .ok_or_else(|| self.config.bad_record("the header policy-id is missing"))?
            .parse()
            .map_err(|error| self.config.bad_record(error))?;
        let bundle = Bundle::from_tar(tar)?.expect_id(&id)?;
        let signature = match (header(SIGNATURE), header(KEY_ID)) {
            (Some(signature), Some(key_id)) => {
                Some(Signature { algorithm: "ed25519".to_owned(), key_id, policy_id: id.clone(), signature })
            }
            _ => None,
        };
        let standing = self.trust.check(&id, signature.as_ref())?;
        Ok(Update::Policy(Box::new(Delivered { bundle, standing })))
    }
}

/// Reads the topic once: the policy in force, if there is one.
///
/// # Errors
/// As [`ActiveReader`].
pub async fn read_active(config: KafkaConfig, trust: Trust) -> Result<Option<Delivered>> {
    let read = move || match ActiveReader::open(config, trust)?.poll(Duration::ZERO)? {
        Update::Policy(delivered) => Ok(Some(*delivered)),
        Update::None | Update::Unchanged => Ok(None),
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_refused_is_named_without_its_value() {
        let mut config = KafkaConfig::new("127.0.0.1:1");
        config.options.insert("sasl.pasword".to_owned(), "hunter2".to_owned());
        let refused = config.client().create::<BaseConsumer>().map(|_| ()).map_err(|error| config.failed(error));
        let error = refused.unwrap_err();
        assert!(error.to_string().contains("sasl.pasword"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}
