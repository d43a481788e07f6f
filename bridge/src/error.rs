//! What can go wrong before the bridge answers, whose fault it is, and whether trying again helps. What goes wrong
//! later is an answer to a sender ([`crate::receive`]) or an event ([`crate::events`]).

use std::io;
use std::path::PathBuf;

/// Who can mend an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The person or configuration that called us.
    User,
    /// A disk, a network, another process.
    Outside,
    /// A bug of ours.
    Ours,
}

/// Errors of the bridge. Messages never hold what a sender sent.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// A setting makes no sense.
    #[error("{setting} is {value}: {mend}")]
    Config {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// How to mend it.
        mend: &'static str,
    },
    /// The Kafka client does not take a setting. Its value may be a secret, so it is not said.
    #[error("the Kafka client does not take the setting {name}: correct it under [kafka.properties]")]
    Setting {
        /// The setting.
        name: String,
    },
    /// The Kafka client could not be made.
    #[cfg(feature = "kafka")]
    #[error("cannot make a Kafka client: {0}")]
    Kafka(rdkafka::error::KafkaError),
    /// The broker does not know a topic.
    #[error(
        "topic {topic} does not exist on {brokers}: create it, pass --create-topics PARTITIONS, or take {signal} out of bridge.signals"
    )]
    MissingTopic {
        /// The topic.
        topic: String,
        /// The broker asked.
        brokers: String,
        /// The signal that goes there.
        signal: &'static str,
    },
    /// No broker answered.
    #[error("no Kafka broker answered at {brokers} within {waited_s} s; check the address and that the broker is up")]
    Unreachable {
        /// The addresses tried.
        brokers: String,
        /// How long we waited, seconds.
        waited_s: u64,
    },
    /// The buffer's folder can't be used.
    #[error("cannot use the buffer {}: {source}; give bridge.buffer a folder that this process may write", folder.display())]
    Buffer {
        /// The folder.
        folder: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The buffer's folder is another bridge's.
    #[error("the buffer {} belongs to another process that runs: stop it, or give this one another bridge.buffer", folder.display())]
    BufferInUse {
        /// The folder.
        folder: PathBuf,
    },
    /// A thread could not be started, or has died.
    #[error("a thread of the bridge failed: {0}")]
    Thread(String),
}

impl BridgeError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Config { .. } | Self::Setting { .. } | Self::MissingTopic { .. } | Self::BufferInUse { .. } => {
                Fault::User
            }
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => Fault::Outside,
            Self::Unreachable { .. } | Self::Buffer { .. } => Fault::Outside,
            Self::Thread(_) => Fault::Ours,
        }
    }

    /// May the same call pass later?
    #[must_use]
    pub fn retry_helps(&self) -> bool {
        self.fault() == Fault::Outside || matches!(self, Self::BufferInUse { .. })
    }
}

/// What this crate returns.
pub type Result<T, E = BridgeError> = std::result::Result<T, E>;
