//! What can go wrong between Kafka and the tables, whose fault it is, and whether trying again helps.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use weir_decode::SchemaTrouble;
use weir_store::{Fault, StoreError};

/// Errors of ingest. Messages never hold payload bytes.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
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
    /// A pattern of topics is no regular expression.
    #[error("the topic pattern {pattern:?} cannot be used: {why}; write a regular expression that whole names match")]
    Pattern {
        /// As it was written.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// No broker answered.
    #[error("no Kafka broker answered at {brokers} within {waited_s} s; check the address and that the broker is up")]
    Unreachable {
        /// The addresses tried.
        brokers: String,
        /// How long we waited, seconds.
        waited_s: u64,
    },
    /// The broker does not know the topic.
    #[error("topic {topic} does not exist on {brokers}; create it, or correct the topic's name in the configuration")]
    MissingTopic {
        /// The topic.
        topic: String,
        /// The broker asked.
        brokers: String,
    },
    /// The broker refused us.
    #[error("Kafka at {brokers} refused access to {what}: {why}; correct the credentials or the access rules")]
    Refused {
        /// The broker.
        brokers: String,
        /// Topic, group or cluster.
        what: String,
        /// The broker's words.
        why: String,
    },
    /// The broker does not know us.
    #[error(
        "Kafka at {brokers} does not accept the credentials: {why}; correct sasl.mechanism, and sasl.username with its password, or the token"
    )]
    Credentials {
        /// The broker.
        brokers: String,
        /// The broker's or the client's words.
        why: String,
    },
    /// We do not trust the broker, or it does not trust us.
    #[error(
        "no trusted TLS connection to Kafka at {brokers}: {why}; give the authority that signed its certificate as ssl.ca.location, and the broker by a name that the certificate has"
    )]
    Tls {
        /// The broker.
        brokers: String,
        /// The client's words.
        why: String,
    },
    /// The offset to go on from is no longer, or not yet, in Kafka.
    #[error(
        "data loss: {topic}/{partition} must go on at offset {position}, but Kafka holds {low} to {high}; restore the topic, or {}",
        way_on(.topic, *.partition, *.position, *.low)
    )]
    OffsetGone {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Where the table says to go on.
        position: i64,
        /// Kafka's first offset.
        low: i64,
        /// One past Kafka's last offset.
        high: i64,
    },
    /// Kafka refused an offset that, asked again, it says it holds.
    #[error(
        "Kafka refused to go on at a position of job {job} although it says that it holds it: a topic was cut off and written to again; restore it, or, once `weir positions list` has told which it is, read it anew as another topic (`weir positions forget TOPIC --force`)"
    )]
    OffsetRefused {
        /// The job.
        job: String,
    },
    /// A topic of the same name, but not the one that the positions are of.
    #[error(
        "topic {topic} was deleted and created again, so the positions in the tables are not about it; `weir positions forget {topic}` has the new one read from its first message, as another topic"
    )]
    TopicRecreated {
        /// The topic.
        topic: String,
    },
    /// The topic is the one that its positions are about, as far as Kafka tells.
    #[error(
        "Kafka does not tell topic {topic} from the one that its positions are about: there is nothing to forget; if it was made again or cut off all the same, add --force, and what it holds is read from its first message, as another topic"
    )]
    SameTopic {
        /// The topic.
        topic: String,
    },
    /// Nobody has read the topic.
    #[error("job {job} has no positions of topic {topic}: `weir positions list` says which there are")]
    NoPositions {
        /// The job.
        job: String,
        /// The topic.
        topic: String,
    },
    /// The topic has no partition of that number.
    #[error("topic {topic} has {partitions} partitions, and no partition {partition}; they are counted from 0")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition that it lacks.
        partition: i32,
        /// How many it has.
        partitions: i32,
    },
    /// A position cannot be moved there.
    #[error("cannot go on with {topic}/{partition} at offset {to}: {why}")]
    BadSkip {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Where to.
        to: i64,
        /// Why not.
        why: String,
    },
    /// Somebody moved the position in the meantime.
    #[error(
        "{topic} is being read: its positions moved meanwhile; stop every `weir run` of job {job}, then run this again"
    )]
    BeingRead {
        /// The topic, with its partition where that is known.
        topic: String,
        /// The job.
        job: String,
    },
    /// Messages arrived that the client could not take apart.
    #[error(
        "cannot read a batch of messages from Kafka at {brokers}: {why}; if it is damaged, restore it from a replica, or pass over it (`weir positions skip`), else use a build that knows its codec"
    )]
    UnreadableBatch {
        /// The broker.
        brokers: String,
        /// The client's words.
        why: String,
    },
    /// The Kafka client does not take a setting. Its value may be a secret, so it is not said.
    #[error("the Kafka client does not take the setting {name}: {why}; correct it under [kafka.properties]")]
    Setting {
        /// The setting.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The raw table was filled by another job or from another cluster.
    #[error(
        "table {table} is from another job: {found} filled it from topic {topic}, and this is {wanted}; use that job and cluster, or another data folder"
    )]
    OtherSource {
        /// The table.
        table: String,
        /// The topic.
        topic: String,
        /// Who filled it.
        found: String,
        /// Who asks.
        wanted: String,
    },
    /// The raw table was filled by this job, from another cluster.
    #[error(
        "table {table} is from another cluster: {found} filled it from topic {topic}, and this is {wanted}; use that cluster, or, if the topic has moved here, `weir positions forget {topic}` has it read from its first message, as another topic"
    )]
    OtherCluster {
        /// The table.
        table: String,
        /// The topic.
        topic: String,
        /// Who filled it.
        found: String,
        /// Who asks.
        wanted: String,
    },
    /// Dead letters do not say which job they are of.
    #[error(
        "topic {topic} is read by job {other} into table {table} too, and its dead letters do not say which job's they are; they cannot be replayed"
    )]
    SharedTopic {
        /// The topic.
        topic: String,
        /// The other job.
        other: String,
        /// A table that it fills.
        table: String,
    },
    /// An interrupted replay whose rows are not where they were written.
    #[error(
        "replay {epoch} of dead letters was interrupted before table {table} had its rows, and {path} in the data folder, which holds them, is gone; restore it from a copy"
    )]
    ReplayRecordGone {
        /// The table.
        table: String,
        /// The job's epoch.
        epoch: i64,
        /// The object, from the root of the data folder.
        path: String,
    },
    /// Somebody else writes under this job's name.
    #[error(
        "job {job} was fenced {times} times in a row: another process writes the same job from another consumer group; stop it, or give one of them another job name and data folder"
    )]
    FencedOut {
        /// The job.
        job: String,
        /// How often.
        times: u32,
    },
    /// The Kafka client failed for good.
    #[error("the Kafka client failed: {0}")]
    Kafka(KafkaError),
    /// A message names a schema that cannot be had, so it cannot be judged.
    #[error("cannot read the messages of a topic: {0}")]
    Schema(#[from] SchemaTrouble),
    /// The schema that a topic has now leads to no rows.
    #[error("the schema of topic {topic}, version {version} of {subject}, is of no use: {why}; {mend}")]
    UnusableSchema {
        /// The topic.
        topic: String,
        /// Where the registry keeps its schemas.
        subject: String,
        /// Which of them.
        version: i64,
        /// What is wrong with it.
        why: String,
        /// How to mend it.
        mend: &'static str,
    },
    /// The tables failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Arrow refused what we built.
    #[error("cannot build a batch for table {table}: {why}")]
    Batch {
        /// The table.
        table: &'static str,
        /// Arrow's words, of schemas and lengths only.
        why: String,
    },
    /// The thread that polls Kafka ended without saying why.
    #[error(
        "the thread that polls Kafka ended unexpectedly, which is a defect of weir; what is not committed is still in Kafka, so start weir again"
    )]
    PollThread,
    /// The thread that looks out for topics ended without saying why.
    #[error(
        "the thread that looks out for topics ended unexpectedly, which is a defect of weir; topics that come would stay unread, so start weir again"
    )]
    LookoutThread,
}

impl IngestError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Config { .. }
            | Self::Pattern { .. }
            | Self::Setting { .. }
            | Self::Credentials { .. }
            | Self::Tls { .. }
            | Self::MissingTopic { .. }
            | Self::TopicRecreated { .. }
            | Self::SameTopic { .. }
            | Self::NoPositions { .. }
            | Self::NoPartition { .. }
            | Self::BadSkip { .. }
            | Self::BeingRead { .. }
            | Self::OtherSource { .. }
            | Self::OtherCluster { .. }
            | Self::SharedTopic { .. }
            | Self::UnusableSchema { .. }
            | Self::FencedOut { .. } => Fault::User,
            Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::OffsetGone { .. }
            | Self::OffsetRefused { .. }
            | Self::UnreadableBatch { .. }
            | Self::ReplayRecordGone { .. }
            | Self::Schema(_)
            | Self::Kafka(_) => Fault::Outside,
            Self::Store(error) => error.fault(),
            Self::Batch { .. } | Self::PollThread | Self::LookoutThread => Fault::Ours,
        }
    }

    /// The one topic that it is about, when others can be read without that. (What is refused may be something else too;
    /// then no topic has its name.)
    pub(crate) fn only_topic(&self) -> Option<&str> {
        match self {
            Self::TopicRecreated { topic }
            | Self::OtherSource { topic, .. }
            | Self::OtherCluster { topic, .. }
            | Self::Refused { what: topic, .. } => Some(topic),
            _ => None,
        }
    }

    /// Can the same call succeed later, without anybody mending anything?
    #[must_use]
    pub fn retry_helps(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Schema(_)
            | Self::Kafka(_)
            | Self::FencedOut { .. }
            | Self::BeingRead { .. } => true,
            Self::Store(error) => error.retry_helps(),
            _ => false,
        }
    }
}

/// What an operator can do about a position that Kafka does not hold.
fn way_on(topic: &str, partition: i32, position: i64, low: i64) -> String {
    if position < low {
        return format!(
            "pass over what is lost: `weir positions skip {topic}/{partition} --to earliest` once, or ingest.on_data_loss = \"count\" for good"
        );
    }
    // New messages take offsets that rows have already: under the topic's name they cannot be told from those.
    format!("have what Kafka holds now read as another topic: `weir positions forget {topic} --force`")
}

impl From<KafkaError> for IngestError {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(code, _, name, _) => {
                let why = match code {
                    RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN => "it knows none of that name",
                    _ => "it refuses the value",
                };
                Self::Setting { name, why }
            }
            other => Self::Kafka(other),
        }
    }
}
