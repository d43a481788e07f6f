//! What to read, how, and what an operator allows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use weir_adapters::{Adapter, Input};
use weir_decode::{Encoding, OnConflict};
use weir_schemas::{Contract, Feedback, FieldKind, GpuTelemetry, Request, Requirement, contracts};

use crate::{IngestError, RegistryConfig, Result, TopicPattern};

/// How long brokers may take to answer before we call them unreachable.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The client setting that changes it.
const ANSWER_WITHIN_SETTING: &str = "metadata.request.timeout.ms";

/// How soon new partitions are seen, and new topics that match a pattern; the client's default is five minutes.
pub(crate) const TOPICS_ASKED_EVERY: Duration = Duration::from_secs(30);
/// The client setting that changes it.
pub(crate) const TOPICS_ASKED_EVERY_SETTING: &str = "topic.metadata.refresh.interval.ms";

/// How long a member of the group may go without polling, unless it is set: the client's default.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);
/// The client setting that changes it.
const MAX_POLL_INTERVAL_SETTING: &str = "max.poll.interval.ms";

/// Client settings that decide where reading starts or ends: they are ours, or exactly-once is not.
const OURS: [&str; 8] = [
    "bootstrap.servers",
    "group.id",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "statistics.interval.ms",
    "allow.auto.create.topics",
];

/// What the messages of a topic are.
#[derive(Debug, Clone)]
pub enum Format {
    /// Messages of the `requests` contract.
    Requests,
    /// Messages of the `feedback` contract.
    Feedback,
    /// Messages of the `gpu_telemetry` contract.
    GpuTelemetry,
    /// Replay records of vLLM Semantic Router: requests and feedback.
    VllmSemanticRouter,
    /// Messages of another system, projected by an adapter.
    Adapter(Arc<Adapter>),
}

/// Two adapters are the same when they are the same compiled one: a definition of the same name may say something else.
impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Adapter(one), Self::Adapter(other)) => Arc::ptr_eq(one, other),
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }
}

impl Eq for Format {}

impl Format {
    /// The raw tables that a message of this format can yield rows for.
    #[must_use]
    pub fn contracts(&self) -> Vec<&'static Contract> {
        match self {
            Self::Requests => vec![Request::contract()],
            Self::Feedback => vec![Feedback::contract()],
            Self::GpuTelemetry => vec![GpuTelemetry::contract()],
            Self::VllmSemanticRouter => vec![Request::contract(), Feedback::contract()],
            Self::Adapter(adapter) => adapter.outputs().to_vec(),
        }
    }
}

/// One topic to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// Its name in Kafka.
    pub topic: String,
    /// What its messages are.
    pub format: Format,
    /// What their bytes are.
    pub encoding: Encoding,
    /// Names of the headers whose values are kept in `extra`; all others are dropped unread.
    pub headers: Vec<String>,
}

impl TopicConfig {
    /// Does reading a message take a look at its headers?
    pub(crate) fn reads_headers(&self) -> bool {
        !self.headers.is_empty() || self.encoding.needs_schemas()
    }
}

/// What to do with values whose type is not their column's, in messages that follow a contract. An adapter's definition
/// decides for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeConflicts {
    /// For columns that are not named.
    pub default: OnConflict,
    /// By `table.column`.
    pub columns: BTreeMap<String, OnConflict>,
}

impl TypeConflicts {
    /// The policy of one column.
    #[must_use]
    pub fn of(&self, table: &str, column: &str) -> OnConflict {
        let own = self.columns.iter().find(|(name, _)| name.split_once('.') == Some((table, column)));
        own.map_or(self.default, |(_, policy)| *policy)
    }

    fn check(&self) -> Result<()> {
        for (name, policy) in &self.columns {
            let error = |mend| {
                Err(IngestError::Config { setting: "a type-conflict policy", value: format!("set for {name}"), mend })
            };
            let field = name.split_once('.').and_then(|(table, column)| {
                contracts().into_iter().find(|contract| contract.name == table)?.field(column)
            });
            let Some(field) = field else {
                return error("name a column as table.column, as docs/reference/events.md lists them");
            };
            match policy {
                OnConflict::Widen if !can_widen(field.kind) => {
                    return error("only columns of text and of lists can widen; use null or dead_letter");
                }
                OnConflict::Null if field.requirement == Requirement::Required => {
                    return error("the column is required, so it cannot be null; use dead_letter");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn can_widen(kind: FieldKind) -> bool {
    match kind {
        FieldKind::Text
        | FieldKind::TextList
        | FieldKind::Int64List
        | FieldKind::Float32List
        | FieldKind::ToolCalls
        | FieldKind::Candidates => true,
        FieldKind::Bool
        | FieldKind::Int32
        | FieldKind::Int64
        | FieldKind::Float64
        | FieldKind::TextMap
        | FieldKind::NumberMap => false,
    }
}

/// Where a partition starts that no table has a position for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first message that Kafka holds.
    Earliest,
    /// After the last one. The choice is committed at once, so that it is made only once.
    Latest,
}

/// What to do when Kafka no longer holds what comes next, because retention has removed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDataLoss {
    /// End the run: somebody should know before anything is passed over.
    Stop,
    /// Record the gap, count it, and go on at the first offset that Kafka holds.
    Count,
}

/// One ingest job.
#[derive(Debug, Clone)]
pub struct IngestConfig {
    /// Bootstrap brokers, `host:port,...`.
    pub brokers: String,
    /// Kafka consumer group: processes with the same one share the partitions.
    pub group_id: String,
    /// Names the positions in the tables; never reuse one for another cluster.
    pub job: String,
    /// What to read, by name.
    pub topics: Vec<TopicConfig>,
    /// What to read besides, whatever its name is: topics that are there, and those that are made later.
    pub patterns: Vec<TopicPattern>,
    /// Commit when so many rows are buffered.
    pub flush_rows: usize,
    /// Commit when so many payload bytes are buffered: what bounds memory when messages are large.
    pub flush_bytes: usize,
    /// Commit when rows have waited for so long.
    pub flush_interval: Duration,
    /// End when every partition of every topic has been read to the end it had when the run began, by us or by another
    /// process of the job. Partitions that a dead process still holds are waited for.
    pub stop_when_drained: bool,
    /// Keep prompt, context and response text.
    pub keep_text: bool,
    /// Names of unknown fields to keep in `extra`; all others are dropped unread.
    pub allowed_unknown: Vec<String>,
    /// Where the schemas of Avro and Protobuf are.
    pub registry: Option<RegistryConfig>,
    /// What to do with values of another type.
    pub type_conflicts: TypeConflicts,
    /// Where a partition without a position starts.
    pub start: Start,
    /// What to do when retention was faster.
    pub on_data_loss: OnDataLoss,
    /// Further settings of the Kafka client, by librdkafka's names.
    pub kafka: BTreeMap<String, String>,
    /// Days after which the bytes of dead letters become unreadable.
    pub dead_letter_days: u32,
    /// How long storage may be in trouble, with no commit in between, before the run ends.
    pub storage_patience: Duration,
}

impl IngestConfig {
    /// The usual `storage_patience`: a disk that somebody makes room on, an object store that is being repaired.
    pub const STORAGE_PATIENCE: Duration = Duration::from_secs(300);

    pub(crate) fn check(&self) -> Result<()> {
        let error = |setting, value: &str, mend| Err(IngestError::Config { setting, value: value.to_owned(), mend });
        if self.brokers.trim().is_empty() {
            return error("brokers", "empty", "give host:port of at least one Kafka broker");
        }
        if self.group_id.is_empty() {
            return error("group id", "empty", "name the consumer group");
        }
        if self.job.is_empty() || self.job.contains('/') {
            return error("job", &format!("{:?}", self.job), "give a name without slashes");
        }
        if self.topics.is_empty() && self.patterns.is_empty() {
            return error("topics", "empty", "name at least one topic, or give a pattern");
        }
        let mut names: Vec<_> = self.topics.iter().map(|topic| topic.topic.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return error("topics", pair[0], "name each topic once");
        }
        let again =
            |index: usize| self.patterns[..index].iter().any(|other| other.pattern == self.patterns[index].pattern);
        if let Some(index) = (0..self.patterns.len()).find(|index| again(*index)) {
            return error("topics", self.patterns[index].pattern.text(), "give each pattern once");
        }
        for topic in &self.topics {
            let mut headers: Vec<_> = topic.headers.iter().map(String::as_str).collect();
            headers.sort_unstable();
            let twice = headers.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
            if let Some(name) = twice.or_else(|| headers.first().copied().filter(|name| name.is_empty())) {
                return error(
                    "the headers of a topic",
                    &format!("{name:?}, of {}", topic.topic),
                    "name each header once",
                );
            }
        }
        if self.flush_rows == 0 {
            return error("flush rows", "0", "give at least 1");
        }
        if self.flush_bytes == 0 {
            return error("flush bytes", "0", "give at least 1, better some MiB");
        }
        if let Some(name) = OURS.iter().find(|name| self.kafka.contains_key(**name)) {
            return error("a Kafka setting", name, "remove it: weir sets it itself");
        }
        let page = |format: &Format| match format {
            Format::Adapter(adapter) => matches!(adapter.input(), Input::Prometheus { .. }),
            _ => false,
        };
        let mut read = self.read();
        if let Some((topic, ..)) = read.find(|(_, format, encoding)| page(format) && *encoding != Encoding::Json) {
            let set = format!("set, that of {topic}");
            return error("the encoding of a topic of scraped pages", &set, "leave it out: a page is text");
        }
        if let Some(registry) = &self.registry {
            registry.check()?;
        } else if let Some((topic, ..)) = self.read().find(|(_, _, encoding)| encoding.needs_schemas()) {
            return Err(no_registry(topic));
        }
        self.type_conflicts.check()
    }

    /// All entries, by name or by pattern.
    fn read(&self) -> impl Iterator<Item = (&str, &Format, Encoding)> {
        let named = self.topics.iter().map(|topic| (topic.topic.as_str(), &topic.format, topic.encoding));
        named.chain(self.patterns.iter().map(|each| (each.pattern.text(), &each.format, each.encoding)))
    }

    /// How often the lookout asks which topics there are.
    pub(crate) fn topics_asked_every(&self) -> Duration {
        let set = self.kafka.get(TOPICS_ASKED_EVERY_SETTING).and_then(|value| value.parse().ok());
        set.map_or(TOPICS_ASKED_EVERY, Duration::from_millis)
    }

    /// How long brokers may take to answer.
    pub(crate) fn answer_within(&self) -> Duration {
        let set = self.kafka.get(ANSWER_WITHIN_SETTING).and_then(|value| value.parse().ok());
        set.map_or(ANSWER_WITHIN, Duration::from_millis)
    }

    /// A wait between two polls: so much, or less if the group would throw out who does not poll for so long.
    pub(crate) fn between_polls(&self, at_most: Duration) -> Duration {
        let set = self.kafka.get(MAX_POLL_INTERVAL_SETTING).and_then(|value| value.parse().ok());
        let interval = set.map_or(MAX_POLL_INTERVAL, Duration::from_millis);
        // Two waits can follow each other, and the commits and the polls around them take time too.
        at_most.min(interval / 4)
    }

    /// Does the broker decide who reads what (KIP-848)?
    pub(crate) fn is_of_consumer_protocol(&self) -> bool {
        self.kafka.get("group.protocol").is_some_and(|protocol| protocol == "consumer")
    }

    /// The transaction application id of one partition: its version is the next offset.
    pub(crate) fn app_id(&self, topic: &str, partition: i32) -> String {
        format!("weir/{}/{topic}/{partition}", self.job)
    }
}

/// What is wrong with a topic that needs schemas where no registry is named.
pub(crate) fn no_registry(topic: &str) -> IngestError {
    IngestError::Config {
        setting: "the encoding of a topic",
        value: format!("one that needs schemas, that of {topic}"),
        mend: "name a schema registry: [kafka.registry] url = ...",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn config() -> IngestConfig {
        config_of(vec![TopicConfig {
            topic: "requests".into(),
            format: Format::Requests,
            encoding: Encoding::Json,
            headers: vec![],
        }])
    }

    /// A topic of requests.
    pub(crate) fn llm() -> TopicConfig {
        let topic = "llm".to_owned();
        TopicConfig { topic, format: Format::Requests, encoding: Encoding::Json, headers: Vec::new() }
    }

    /// A configuration that reads these topics.
    pub(crate) fn config_of(topics: Vec<TopicConfig>) -> IngestConfig {
        IngestConfig {
            brokers: "localhost:9092".into(),
            group_id: "g".into(),
            job: "j".into(),
            topics,
            patterns: vec![],
            flush_rows: 1,
            flush_bytes: 64 << 20,
            flush_interval: Duration::from_secs(1),
            stop_when_drained: false,
            keep_text: false,
            allowed_unknown: vec![],
            registry: None,
            type_conflicts: TypeConflicts::default(),
            start: Start::Earliest,
            on_data_loss: OnDataLoss::Stop,
            kafka: BTreeMap::new(),
            dead_letter_days: 1,
            storage_patience: IngestConfig::STORAGE_PATIENCE,
        }
    }

    #[test]
    fn settings_that_would_break_exactly_once_are_refused() {
        config().check().unwrap();
        for name in OURS {
            let mut bad = config();
            bad.kafka.insert(name.to_owned(), "x".to_owned());
            assert!(bad.check().unwrap_err().to_string().contains(name));
        }
    }

    #[test]
    fn waits_between_polls_are_shorter_where_the_group_is_less_patient() {
        let mut config = config();
        let (long, short) = (Duration::from_secs(20), Duration::from_millis(100));
        assert_eq!(config.between_polls(long), long);
        config.kafka.insert("max.poll.interval.ms".to_owned(), "10000".to_owned());
        assert_eq!((config.between_polls(long), config.between_polls(short)), (Duration::from_millis(2_500), short));
    }

    #[test]
    fn encodings_with_schemas_need_a_registry() {
        for encoding in [Encoding::Avro, Encoding::Protobuf] {
            let mut config = config();
            config.topics[0].encoding = encoding;
            let said = config.check().unwrap_err().to_string();
            assert!(said.contains("of requests: name a schema registry"), "{said}");
            let access = crate::RegistryAccess::Open;
            config.registry = Some(RegistryConfig { url: "http://127.0.0.1:8081".to_owned(), access });
            config.check().unwrap();
        }
    }

    #[test]
    fn policies_for_type_conflicts_are_of_columns_that_can_follow_them() {
        let with = |name: &str, policy| {
            let mut config = config();
            config.type_conflicts.columns = BTreeMap::from([(name.to_owned(), policy)]);
            config.check().map_err(|error| error.to_string())
        };
        with("requests.executed_model", OnConflict::Widen).unwrap();
        with("requests.prompt_tokens", OnConflict::Null).unwrap();
        with("requests.request_id", OnConflict::DeadLetter).unwrap();
        for (name, policy, mend) in [
            ("requests.modell", OnConflict::Null, "name a column as table.column"),
            ("model", OnConflict::Null, "name a column as table.column"),
            ("dead_letters.reason", OnConflict::Null, "name a column as table.column"),
            ("requests.prompt_tokens", OnConflict::Widen, "can widen"),
            ("requests.request_id", OnConflict::Null, "cannot be null"),
        ] {
            let said = with(name, policy).unwrap_err();
            assert!(said.contains(name) && said.contains(mend), "{name}: {said}");
        }
    }

    #[test]
    fn jobs_and_topics_need_names_that_make_distinct_positions() {
        let mut slashed = config();
        slashed.job = "a/b".into();
        let mut twice = config();
        twice.topics.push(twice.topics[0].clone());
        let mut none = config();
        none.topics.clear();
        for bad in [slashed, twice, none] {
            assert!(matches!(bad.check(), Err(IngestError::Config { .. })));
        }
    }
}
