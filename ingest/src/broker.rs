//! The broker before anything is read or written: is it there, does it know the topics, which cluster is it?

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;

use crate::config::{TOPICS_ASKED_EVERY, TOPICS_ASKED_EVERY_SETTING};
use crate::ends::ends;
use crate::source::Watermarks;
use crate::token::TOKEN_FILE;
use crate::topic_id::{may_read, topic_id};
use crate::topics::{KnownTopic, ReadTopic};
use crate::{IngestConfig, IngestError, Result, TopicConfig, events, token};

/// What the brokers say of themselves and of the topics, before anything is read.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The cluster's id, if it tells.
    pub(crate) cluster_id: Option<String>,
    /// Those that are named, in the order of the configuration; then those that match a pattern, by name.
    pub(crate) topics: Vec<KnownTopic>,
    /// Those that match a pattern and cannot be read, and why.
    pub(crate) aside: Vec<(String, IngestError)>,
}

/// What [`probe`] found, by name.
#[derive(Debug, Default)]
pub struct Probed {
    /// Topics that would be read now: those that are named, in the order of the configuration, then those that match a
    /// pattern.
    pub read: Vec<String>,
    /// Topics that match a pattern and would be set aside, and why.
    pub aside: Vec<(String, IngestError)>,
}

/// Checks that a broker answers and knows every topic that is named. Writes nothing anywhere, and does not look into
/// tables: that they have positions of another topic is not seen.
///
/// # Errors
/// [`IngestError::Config`], [`IngestError::Unreachable`], [`IngestError::MissingTopic`], [`IngestError::Refused`].
pub async fn probe(config: &IngestConfig) -> Result<Probed> {
    let Known { topics, aside, .. } = known(config).await?;
    Ok(Probed { read: topics.into_iter().map(|topic| topic.config.topic).collect(), aside })
}

/// As [`probe`], and says which cluster and which topics it found.
pub(crate) async fn known(config: &IngestConfig) -> Result<Known> {
    config.check()?;
    let config = config.clone();
    tokio::task::spawn_blocking(move || ask(&config)).await.map_err(|_| IngestError::PollThread)?
}

/// What Kafka holds now of each partition of each of the topics.
pub(crate) async fn watermarks(config: &IngestConfig, topics: &[KnownTopic]) -> Result<Vec<Watermarks>> {
    let (config, topics) = (config.clone(), topics.to_vec());
    tokio::task::spawn_blocking(move || ask_watermarks(&config, &topics)).await.map_err(|_| IngestError::PollThread)?
}

/// The operator's client settings under ours.
pub(crate) fn client_config(config: &IngestConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    // A process that died holds its partitions for the session timeout: the default of 45 s is long for a restart. Of the
    // new protocol (KIP-848) the timeout is the broker's to set, and the client refuses it.
    if config.kafka.get("group.protocol").is_none_or(|protocol| protocol == "classic") {
        client.set("session.timeout.ms", "10000").set("heartbeat.interval.ms", "3000");
    }
    client.set(TOPICS_ASKED_EVERY_SETTING, TOPICS_ASKED_EVERY.as_millis().to_string());
    // The one consumer queue; the channel behind it is bounded too.
    client.set("queued.max.messages.kbytes", "32768");
    for (name, value) in config.kafka.iter().filter(|(name, _)| *name != TOKEN_FILE) {
        client.set(name, value);
    }
    client
        .set("bootstrap.servers", &config.brokers)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false")
        // Where to start is decided from the tables. A position that Kafka lacks is an error, never a silent jump.
        .set("auto.offset.reset", "error");
    client
}

/// Between questions to a cluster that is not there.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long brokers may say that a topic is not there before it is believed. One that has just started says that it knows
/// none, on a busy machine for seconds.
pub(crate) const BELIEVED_AFTER: Duration = Duration::from_secs(10);
/// The longest wait for one answer.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// A client that only asks. It keeps what the brokers or OpenSSL have against us.
pub(crate) struct Asking {
    config: IngestConfig,
    refused: Mutex<Option<IngestError>>,
}

impl Asking {
    /// Connects, within the time that brokers have to answer.
    pub(crate) fn connect(config: &IngestConfig) -> Result<BaseConsumer<Self>> {
        let context = Self { config: config.clone(), refused: Mutex::default() };
        let client: BaseConsumer<Self> = client_config(config).create_with_context(context)?;
        let wait = config.answer_within();
        let give_up = Instant::now() + wait;
        let mut patience = Duration::from_millis(200);
        loop {
            // Tokens are asked for, and refusals told, inside `poll` only.
            while client.poll(Duration::ZERO).is_some() {}
            let refused = client.context().refused.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(refused) = refused {
                return Err(refused);
            }
            let left = give_up.saturating_duration_since(Instant::now());
            let first = config.topics.first().map(|topic| topic.topic.as_str());
            match client.fetch_metadata(first, patience.min(left)) {
                Ok(_) => return Ok(client),
                Err(error) => match classify(config, "the cluster", wait, error) {
                    IngestError::Unreachable { .. } if Instant::now() < give_up => {
                        // Brokers that refuse a connection answer at once: neither spin nor double for ever.
                        std::thread::sleep(ASK_AGAIN.min(left));
                        patience = (patience * 2).min(PATIENCE_MAX);
                    }
                    error => return Err(error),
                },
            }
        }
    }
}

impl ClientContext for Asking {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        token::read(&self.config)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        events::client_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let (brokers, why) = (self.config.brokers.clone(), gist(reason));
        let refused = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                IngestError::Credentials { brokers, why }
            }
            Some(RDKafkaErrorCode::SSL) => IngestError::Tls { brokers, why },
            // Brokers that are not there are asked again until the time is up.
            _ => return,
        };
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refused);
    }
}

impl ConsumerContext for Asking {}

/// The client's reason without the connection it is about and the state that was in: `sasl_ssl://host:port/id: why (after
/// 3ms in state ...)`.
fn gist(reason: &str) -> String {
    let why = match reason.split_once(": ") {
        Some((connection, why)) if connection.contains("://") => why,
        _ => reason,
    };
    let why = why.rsplit_once(" (after ").map_or(why, |(why, _)| why);
    why.replace('\n', " ").trim().trim_end_matches(['.', ':']).to_owned()
}

fn ask(config: &IngestConfig) -> Result<Known> {
    let client = Asking::connect(config)?;
    let matched = if config.patterns.is_empty() {
        Vec::new()
    } else {
        config.matched(topic_names(&client, config)?.iter().map(String::as_str))
    };
    let named = config.topics.iter().cloned();
    let give_up = Instant::now() + BELIEVED_AFTER;
    let described = named.map(|topic| patiently(give_up, || describe(&client, config, topic.clone())));
    let mut topics = described.collect::<Result<Vec<_>>>()?;
    let mut aside = Vec::new();
    for topic in matched {
        let name = topic.topic.clone();
        match describe_readable(&client, config, topic) {
            Ok(topic) => topics.push(topic),
            // Gone since the names were asked for.
            Err(IngestError::MissingTopic { .. }) => {}
            Err(error) if error.only_topic() == Some(name.as_str()) => aside.push((name, error)),
            Err(error) => return Err(error),
        }
    }
    let cluster_id = client.client().fetch_cluster_id(config.answer_within()).filter(|id| !id.is_empty());
    Ok(Known { cluster_id, topics, aside })
}

/// Asks about a topic that must be there. A broker that has just started, or is about to stop, says for a moment that it
/// knows none.
fn patiently<T>(give_up: Instant, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match ask() {
            Err(IngestError::MissingTopic { .. }) if Instant::now() < give_up => std::thread::sleep(ASK_AGAIN),
            answer => return answer,
        }
    }
}

/// The names of all topics that can be read. One that is just being made or deleted is not among them.
pub(crate) fn topic_names(client: &BaseConsumer<Asking>, config: &IngestConfig) -> Result<BTreeSet<String>> {
    let wait = config.answer_within();
    // Tokens are asked for inside `poll` only.
    while client.poll(Duration::ZERO).is_some() {}
    let metadata =
        client.fetch_metadata(None, wait).map_err(|error| classify(config, "the list of topics", wait, error))?;
    let is_there = |topic: &&MetadataTopic| match topic.error().map(RDKafkaErrorCode::from) {
        None => !topic.partitions().is_empty(),
        Some(code) => code == RDKafkaErrorCode::LeaderNotAvailable,
    };
    Ok(metadata.topics().iter().filter(is_there).map(|topic| topic.name().to_owned()).collect())
}

/// A topic that a pattern matches, as it is now; an error when it may not be read, which else only reading it would tell.
pub(crate) fn describe_readable(
    client: &BaseConsumer<Asking>,
    config: &IngestConfig,
    topic: TopicConfig,
) -> Result<KnownTopic> {
    let (name, wait) = (topic.topic.clone(), config.answer_within());
    let topic = describe(client, config, topic)?;
    match may_read(client.client(), &name, wait).map_err(|error| classify(config, &name, wait, error))? {
        Some(false) => Err(refused(config, name)),
        Some(true) | None => Ok(topic),
    }
}

/// Which of the topics, by index, may not be read.
pub(crate) fn unreadable(
    client: &BaseConsumer<Asking>,
    config: &IngestConfig,
    topics: &[ReadTopic],
) -> Result<Vec<(usize, IngestError)>> {
    let wait = config.answer_within();
    let mut unreadable = Vec::new();
    for (index, topic) in topics.iter().enumerate().filter(|(_, topic)| !topic.is_gone) {
        let name = topic.config.topic.as_str();
        match may_read(client.client(), name, wait).map_err(|error| classify(config, name, wait, error)) {
            Ok(Some(false)) => unreadable.push((index, refused(config, name.to_owned()))),
            Ok(Some(true) | None) => {}
            Err(error) if error.only_topic() == Some(name) => unreadable.push((index, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(unreadable)
}

fn refused(config: &IngestConfig, topic: String) -> IngestError {
    let why = "its access rules let it be seen and not read".to_owned();
    IngestError::Refused { brokers: config.brokers.clone(), what: topic, why }
}

/// The topic as it is now.
pub(crate) fn describe(client: &BaseConsumer<Asking>, config: &IngestConfig, topic: TopicConfig) -> Result<KnownTopic> {
    let (name, wait) = (topic.topic.as_str(), config.answer_within());
    let trouble = |error| classify(config, name, wait, error);
    let missing = || IngestError::MissingTopic { topic: name.to_owned(), brokers: config.brokers.clone() };
    let metadata = client.fetch_metadata(Some(name), wait).map_err(trouble)?;
    let found = metadata.topics().iter().find(|found| found.name() == name).ok_or_else(missing)?;
    match found.error().map(RDKafkaErrorCode::from) {
        // A topic without a leader yet is there; the consumer waits for the leader.
        None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Err(missing()),
        Some(code) => return Err(trouble(KafkaError::MetadataFetch(code))),
    }
    if found.partitions().is_empty() && found.error().is_none() {
        return Err(missing());
    }
    let id = topic_id(client.client(), name, wait).map_err(trouble)?;
    let partitions = partitions(client, name, wait).map_err(trouble)?;
    let partitions = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
    Ok(KnownTopic { config: topic, id, partitions })
}

fn ask_watermarks(config: &IngestConfig, topics: &[KnownTopic]) -> Result<Vec<Watermarks>> {
    let client = Asking::connect(config)?;
    let give_up = Instant::now() + BELIEVED_AFTER;
    let mut watermarks = Vec::new();
    for (index, topic) in topics.iter().enumerate() {
        let name = &topic.config.topic;
        watermarks.extend(patiently(give_up, || watermarks_of(&client, config, index, name))?);
    }
    Ok(watermarks)
}

/// What Kafka holds now of each partition of the topic, which is to have that index.
pub(crate) fn watermarks_of(
    client: &BaseConsumer<Asking>,
    config: &IngestConfig,
    index: usize,
    name: &str,
) -> Result<Vec<Watermarks>> {
    let wait = config.answer_within();
    let trouble = |error| classify(config, name, wait, error);
    let mut watermarks = Vec::new();
    for partition in partitions(client, name, wait).map_err(trouble)? {
        let (low, high) = ends(client, name, partition, wait).map_err(trouble)?;
        watermarks.push(Watermarks { partition: (index, partition), low, high });
    }
    Ok(watermarks)
}

/// The partitions of a topic; waits for a topic that was just created and has no leader yet.
fn partitions(client: &BaseConsumer<Asking>, topic: &str, wait: Duration) -> Result<Vec<i32>, KafkaError> {
    let give_up = Instant::now() + wait;
    loop {
        let metadata = client.fetch_metadata(Some(topic), wait)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let ids: Vec<i32> = found.iter().flat_map(|found| found.partitions()).map(|partition| partition.id()).collect();
        if !ids.is_empty() {
            return Ok(ids);
        }
        if Instant::now() >= give_up {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::RequestTimedOut));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The Kafka client's error in terms of what to mend.
pub(crate) fn classify(config: &IngestConfig, what: &str, waited: Duration, error: KafkaError) -> IngestError {
    use RDKafkaErrorCode as Code;
    let brokers = config.brokers.clone();
    match error.rdkafka_error_code() {
        Some(
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::Resolve
            | Code::RequestTimedOut,
        ) => IngestError::Unreachable { brokers, waited_s: waited.as_secs() },
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            IngestError::MissingTopic { topic: what.to_owned(), brokers }
        }
        Some(
            code @ (Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
            | Code::SSL),
        ) => IngestError::Refused { brokers, what: what.to_owned(), why: code.to_string() },
        _ => IngestError::Kafka(error),
    }
}

#[cfg(test)]
mod tests {
    use super::gist;

    #[test]
    fn the_reason_is_told_without_the_connection_and_its_state() {
        let refused = "sasl_ssl://127.0.0.1:9093/bootstrap: SASL authentication error: no such user (after 302ms in state AUTH_REQ, 4 identical error(s) suppressed)";
        assert_eq!(gist(refused), "SASL authentication error: no such user");
        assert_eq!(gist("Failed to acquire a token: it is not there"), "Failed to acquire a token: it is not there");
    }
}
