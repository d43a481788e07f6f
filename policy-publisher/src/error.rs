//! What can go wrong, whose fault it is, and whether trying again helps.

use rdkafka::error::KafkaError;
use weir_policy_runtime::{BundleError, PolicyError, PolicyId, SignatureError};
use weir_store::{Fault, StoreError};

use crate::registry::{Status, Verdict};

/// What stands for the policy in force.
pub(crate) const ACTIVE: &str = "active";
/// Digits of an id that name a policy, at least.
pub(crate) const ID_DIGITS_MIN: usize = 6;

fn how_to_name_one(text: &str) -> &'static str {
    match text {
        ACTIVE => "none is active; name one by its id, which weir policy list shows",
        _ if text.len() < ID_DIGITS_MIN => "give at least six digits of its id, which weir policy list shows",
        _ => "weir policy list shows all of them",
    }
}

/// Errors of the registry, the keys and delivery.
#[derive(Debug, thiserror::Error)]
pub enum PublisherError {
    /// The tables or objects below.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bundle is not whole.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle is whole but is no policy that can be scored.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The signature does not hold.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Nothing of that name.
    #[error("no policy {text:?} in the registry: {}", how_to_name_one(.text))]
    Unknown {
        /// What was asked for.
        text: String,
    },
    /// More than one of that name.
    #[error("{text:?} begins the ids of {matches} policies: give more digits")]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// How many it could be.
        matches: usize,
    },
    /// It is in force already.
    #[error("policy {} is the active one already: there is nothing to approve", id.short())]
    AlreadyActive {
        /// The policy.
        id: PolicyId,
    },
    /// Its state forbids the step.
    #[error("policy {} is {status} and cannot be approved: propose it again first", id.short())]
    NotApprovable {
        /// The policy.
        id: PolicyId,
        /// Where it stands.
        status: Status,
    },
    /// The evidence does not carry it.
    #[error("policy {} has the verdict {verdict}, not better: approve it with force and a reason, or not at all", id.short())]
    NotBetter {
        /// The policy.
        id: PolicyId,
        /// What its report says.
        verdict: Verdict,
    },
    /// It was withdrawn before.
    #[error("policy {} was rolled back before: approve it again with force and a reason, or not at all", id.short())]
    WasRolledBack {
        /// The policy.
        id: PolicyId,
    },
    /// Somebody will want to know why.
    #[error("give a reason: it is kept in the registry")]
    NeedsReason,
    /// Active policies are withdrawn, not rejected.
    #[error("policy {} is the active one: roll back first", id.short())]
    RejectActive {
        /// The policy.
        id: PolicyId,
    },
    /// Once is enough.
    #[error("policy {} is rejected already: there is nothing to do", id.short())]
    AlreadyRejected {
        /// The policy.
        id: PolicyId,
    },
    /// Nothing to go back from.
    #[error("no policy is active: there is nothing to roll back")]
    NothingActive,
    /// The way back is blocked by damaged content or a key that is not trusted any more.
    #[error("policy {} cannot be gone back to ({source}): reject it, and a rollback goes to the one before it", target.short())]
    NoWayBack {
        /// Where the rollback would have gone.
        target: PolicyId,
        /// What is wrong with it.
        source: Box<PublisherError>,
    },
    /// A change over HTTP that does not say what it is a change of.
    #[error("say which policy you saw in force: {how}")]
    NeedsSeen {
        /// How to say it.
        how: &'static str,
    },
    /// Somebody else decided while this decision was being made.
    #[error("the active policy changed meanwhile and is {now} now: look at it and decide again")]
    Overtaken {
        /// The active policy now, or `none`.
        now: String,
    },
    /// Other people decided faster, every time.
    #[error("other decisions came first {attempts} times in a row: look at the registry and decide again")]
    Contended {
        /// How often we tried.
        attempts: usize,
    },
    /// Two contents under one id.
    #[error("{path} in the store holds other bytes than this bundle's: remove the damaged copy, it matches no id")]
    OtherContent {
        /// Object in the store.
        path: String,
    },
    /// One policy, one signature.
    #[error("policy {} is signed by key {key_id} already: the first signature stays", id.short())]
    SignedByAnother {
        /// The policy.
        id: PolicyId,
        /// Key of the signature that is stored.
        key_id: String,
    },
    /// The events contradict themselves.
    #[error("the registry's events are damaged ({why}): restore the table policy_events from a copy")]
    Damaged {
        /// The first contradiction.
        why: String,
    },
    /// A key file cannot be made, read or trusted.
    #[error("cannot use the key file {path}: {why}")]
    Key {
        /// File or folder.
        path: String,
        /// What is wrong, and how to mend it.
        why: String,
    },
    /// The token file cannot be read.
    #[error("cannot use the token file {path}: {why}")]
    Tokens {
        /// The file.
        path: String,
        /// What is wrong, and how to mend it.
        why: String,
    },
    /// The Kafka client does not take a setting. Its value may be a secret, so it is not said.
    #[error("the Kafka client does not take the setting {name}: correct its name or its value")]
    KafkaSetting {
        /// The setting.
        name: String,
    },
    /// The broker said no.
    #[error("kafka topic {topic} at {brokers}: {source}; check the address and that the topic exists")]
    Kafka {
        /// Bootstrap servers.
        brokers: String,
        /// Topic of the active policy.
        topic: String,
        /// The client's error.
        source: Box<KafkaError>,
    },
    /// The broker said nothing.
    #[error("kafka topic {topic} at {brokers} did not answer in time: check the address and the network")]
    KafkaSilent {
        /// Bootstrap servers.
        brokers: String,
        /// Topic of the active policy.
        topic: String,
    },
    /// The topic's limit is below the bundle's size.
    #[error("the bundle has {bytes} bytes, more than kafka topic {topic} takes: raise its max.message.bytes")]
    KafkaTooLarge {
        /// Topic of the active policy.
        topic: String,
        /// Size of the record.
        bytes: usize,
    },
    /// A topic that forgets.
    #[error(
        "kafka topic {topic} has cleanup.policy={cleanup}, so it forgets the policy in force: set cleanup.policy=compact"
    )]
    KafkaNotCompacted {
        /// Topic of the active policy.
        topic: String,
        /// What it does with old records.
        cleanup: String,
    },
    /// A record that nobody of ours wrote.
    #[error("the record in kafka topic {topic} is no policy ({why}): publish the active policy again")]
    KafkaRecord {
        /// Topic of the active policy.
        topic: String,
        /// What is wrong with it.
        why: String,
    },
}

impl PublisherError {
    /// The target's fault, said as such; what will pass by itself stays what it is.
    pub(crate) fn no_way_back(target: &PolicyId, error: Self) -> Self {
        if error.retry_helps() {
            return error;
        }
        Self::NoWayBack { target: target.clone(), source: Box::new(error) }
    }

    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Store(error) => error.fault(),
            Self::Bundle(BundleError::Io { .. })
            | Self::Contended { .. }
            | Self::Kafka { .. }
            | Self::KafkaSilent { .. }
            | Self::Damaged { .. } => Fault::Outside,
            _ => Fault::User,
        }
    }

    /// Can the same call succeed later, without anybody mending anything?
    #[must_use]
    pub fn retry_helps(&self) -> bool {
        match self {
            Self::Store(error) => error.retry_helps(),
            Self::Contended { .. } | Self::Kafka { .. } | Self::KafkaSilent { .. } => true,
            _ => false,
        }
    }
}
