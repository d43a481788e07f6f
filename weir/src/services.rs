//! The HTTP services of a process, put together: operations, policy delivery, console.

use std::time::Duration;

use axum::Router;
use tokio::sync::watch;
use weir_policy_publisher::Registry;
use weir_policy_publisher::delivery::{self, Delivery};
use weir_policy_publisher::kafka::{self, KafkaConfig};
use weir_policy_publisher::keys::{self, SigningKey};
use weir_policy_publisher::tokens::Tokens;
use weir_policy_runtime::Trust;
use weir_store::Store;

use crate::config::Config;
use crate::error::{Failure, Result};

/// Topics of policies are replicated like this; one broker is enough to start with.
const POLICY_TOPIC_REPLICATION: i32 = 1;

/// What the registry insists on. Without trusted keys nothing is trusted, so nothing can be approved: the safe state of a
/// fresh installation.
pub fn trust(config: &Config) -> Result<Trust> {
    Ok(Trust::Signed(keys::read_trusted(&config.policy.trusted_keys)?))
}

/// The same, for somebody who is to sign with `key` after long work: better refused before it than after.
///
/// # Errors
/// When the folder cannot be read, or the key is not in it.
pub fn trust_in(config: &Config, key: &SigningKey) -> Result<Trust> {
    let trusted = keys::read_trusted(&config.policy.trusted_keys)?;
    let id = key.public().key_id();
    if trusted.iter().all(|(known, _)| known != id) {
        return Err(Failure::user(format!(
            "the key {id} is not trusted here, so nothing was learned: put its public key into {}, or sign with a key that is there",
            config.policy.trusted_keys.display()
        )));
    }
    Ok(Trust::Signed(trusted))
}

/// Who makes the topic of the active policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyTopic {
    /// We do, compacted, if it is not there.
    Create,
    /// It is there: an embedded broker takes no administrative requests.
    Exists,
}

/// Who may decide and whose signatures count: read before anything is written, so that a bad file leaves nothing behind.
pub struct Access {
    pub trust: Trust,
    pub tokens: Option<Tokens>,
}

impl Access {
    /// Reads the key folder and the token file that the configuration names.
    pub fn read(config: &Config) -> Result<Self> {
        Ok(Self { trust: trust(config)?, tokens: config.http.tokens.as_deref().map(Tokens::read).transpose()? })
    }
}

/// All routes, with the background work behind them started.
pub async fn router(
    config: &Config,
    store: &Store,
    access: Access,
    operations: Router,
    topic: PolicyTopic,
    stop: watch::Receiver<bool>,
) -> Result<Router> {
    let delivery = policies(config, store, access, topic, stop).await?;
    Ok(operations.merge(delivery::router(delivery)).merge(weir_console::router(store.clone())))
}

/// Follows the registry, and publishes the policy in force to Kafka where a topic is configured. Neither a damaged policy
/// nor a silent broker keeps the process from starting: both are logged, counted and tried again.
pub async fn policies(
    config: &Config,
    store: &Store,
    access: Access,
    topic: PolicyTopic,
    stop: watch::Receiver<bool>,
) -> Result<Delivery> {
    let registry = Registry::open(store, access.trust).await?;
    let delivery = Delivery::open(registry, access.tokens).await;
    let every = Duration::from_millis(config.policy.refresh_ms.max(100));
    tokio::spawn({
        let (delivery, stop) = (delivery.clone(), stop.clone());
        async move { delivery.keep_fresh(every, stop).await }
    });
    if !config.policy.kafka_topic.is_empty() {
        let kafka = KafkaConfig {
            topic: config.policy.kafka_topic.clone(),
            options: config.kafka.producer_settings()?,
            ..KafkaConfig::new(&config.kafka.brokers)
        };
        let replication = (topic == PolicyTopic::Create).then_some(POLICY_TOPIC_REPLICATION);
        tokio::spawn(kafka::publish_changes(kafka, replication, delivery.in_force(), stop));
    }
    Ok(delivery)
}
