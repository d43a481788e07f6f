//! `weir.toml`: what `weir run`, `weir serve` and `weir check` read.
//!
//! Every section has defaults that are safe on a laptop: loopback listeners, text dropped at the door, no exploration.
//! Unknown keys are refused, so a misspelt key cannot be silently ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use weir_learners::{ActionPart, WEIGHT_MAX};
use weir_schemas::contracts;
use weir_store::StoreOptions;

use crate::error::{Failure, Result};

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub store: StoreSection,
    pub upkeep: UpkeepSection,
    /// `[retention]`: days that rows are kept, by table; for ever when a table is not named.
    pub retention: BTreeMap<String, u32>,
    pub keys: KeysSection,
    pub kafka: KafkaSection,
    /// Adapters beside those that come with Weir.
    pub adapters: Vec<weir_adapters::DefinitionText>,
    pub ingest: IngestSection,
    pub http: HttpSection,
    pub postgres: PostgresSection,
    pub policy: PolicySection,
    pub objective: ObjectiveSection,
    pub estimators: EstimatorsSection,
    /// GPUs behind each model, for the energy of requests whose router reports none.
    pub energy: BTreeMap<String, EnergySection>,
    pub bridge: BridgeSection,
}

/// `[store]`: where tables and bundles live.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSection {
    /// Data folder, or the URL of an object store: `s3://bucket/prefix`, `gs://...`, `az://...`, `abfss://...`.
    pub url: String,
    /// File of lines `NAME=value` with the object store's credentials, named as in the environment.
    pub credentials: Option<PathBuf>,
    /// Settings of the object store's client; no secrets.
    pub options: BTreeMap<String, toml::Value>,
}

impl StoreSection {
    /// How the store is reached, beside its URL.
    pub fn client_options(&self) -> StoreOptions {
        let text = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let settings = self.options.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        StoreOptions { settings, credentials: self.credentials.clone() }
    }
}

/// `[upkeep]`: merging small files, retention and clean-up, beside `weir run` and `weir serve`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpkeepSection {
    /// Time between two rounds, ms; 0 switches them off.
    pub interval_ms: u64,
    /// Small files are merged up to about this size, bytes.
    pub target_file_bytes: u64,
    /// Files of a day that is not over are left alone for so long, ms.
    pub settle_ms: u64,
    /// Bytes read a second while merging; 0 for no limit.
    pub bytes_per_s: u64,
}

/// `[keys]`: tenant keys and dead-letter keys; keep this off the data's backups, or shredding a key means nothing.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysSection {
    pub path: PathBuf,
}

/// `[kafka]`: brokers, group and topics.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSection {
    pub brokers: String,
    pub group_id: String,
    /// Names this job's positions in the tables; two jobs with one name on one store share their positions.
    pub job: String,
    pub topics: Vec<TopicSection>,
    /// Where the schemas of Avro and Protobuf are.
    pub registry: Option<RegistrySection>,
    /// Passed to librdkafka as they are (TLS, SASL, fetch sizes).
    pub properties: BTreeMap<String, String>,
    /// Settings of the same kind whose values are in files: setting = path.
    pub secrets: BTreeMap<String, PathBuf>,
}

impl KafkaSection {
    /// All settings of the client, secrets read from their files.
    ///
    /// # Errors
    /// A file that cannot be read, or a setting that is given twice. No value is ever said.
    pub fn client_settings(&self) -> Result<BTreeMap<String, String>> {
        let mut settings = self.properties.clone();
        for (name, path) in &self.secrets {
            let read = std::fs::read_to_string(path).map_err(|error| {
                Failure::user(format!("cannot read the secret {name} from {}: {}", path.display(), error.kind()))
            })?;
            // Editors and `echo` end a file with a line break; no secret of Kafka's ends with one.
            let value = read.trim_end_matches(['\r', '\n']);
            if value.is_empty() {
                return Err(Failure::user(format!("the secret {name} is empty: {}", path.display())));
            }
            if settings.insert(name.clone(), value.to_owned()).is_some() {
                return Err(Failure::user(format!(
                    "{name} is under kafka.properties and kafka.secrets; keep one of them"
                )));
            }
        }
        Ok(settings)
    }

    /// The same for what writes to Kafka.
    ///
    /// # Errors
    /// As [`KafkaSection::client_settings`].
    pub fn producer_settings(&self) -> Result<BTreeMap<String, String>> {
        let mut settings = self.client_settings()?;
        // Ingest's own: the client itself does not know it.
        settings.remove("sasl.oauthbearer.token.file");
        Ok(settings)
    }
}

/// `[kafka.registry]`: a schema registry that speaks Confluent's HTTP interface.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySection {
    pub url: String,
    /// File whose first line is `user:password`.
    pub basic_auth_file: Option<PathBuf>,
    /// File whose first line is a bearer token.
    pub bearer_token_file: Option<PathBuf>,
}

/// `[[kafka.topics]]`: one topic, or all whose names match a pattern, and what their messages are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSection {
    pub name: Option<String>,
    /// A regular expression that whole names match.
    pub pattern: Option<String>,
    pub format: TopicFormat,
    #[serde(default)]
    pub encoding: TopicEncoding,
    /// Headers whose values are kept in `extra`.
    #[serde(default)]
    pub headers: Vec<String>,
}

/// What the bytes of a topic's messages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopicEncoding {
    #[default]
    Json,
    JsonLines,
    Avro,
    Protobuf,
}

/// What a topic's messages are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum TopicFormat {
    Requests,
    Feedback,
    GpuTelemetry,
    VllmSemanticRouter,
    /// `adapter:NAME`, one that comes with Weir or stands under `[[adapters]]`.
    Adapter(String),
}

impl TryFrom<String> for TopicFormat {
    type Error = String;

    fn try_from(word: String) -> Result<Self, Self::Error> {
        Ok(match word.as_str() {
            "requests" => Self::Requests,
            "feedback" => Self::Feedback,
            "gpu_telemetry" => Self::GpuTelemetry,
            "vllm_semantic_router" => Self::VllmSemanticRouter,
            other => match other.strip_prefix("adapter:") {
                Some(name) if !name.is_empty() => Self::Adapter(name.to_owned()),
                _ => {
                    return Err(format!(
                        "there is no format {other:?}: write requests, feedback, gpu_telemetry, vllm_semantic_router, or \
                         adapter:NAME with a name that `weir adapters list` shows"
                    ));
                }
            },
        })
    }
}

/// `[ingest]`: batching and what is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestSection {
    /// Rows that trigger a commit.
    pub flush_rows: usize,
    /// Bytes of buffered messages that trigger a commit, so that memory does not depend on how large messages are.
    pub flush_bytes: usize,
    /// Age of the oldest uncommitted row that triggers a commit, ms.
    pub flush_interval_ms: u64,
    /// Keep prompt, context and response text. Personal data: off unless the operator says so.
    pub keep_text: bool,
    /// Unknown top-level fields whose values go to `extra`.
    pub allowed_unknown: Vec<String>,
    /// What to do with values of another type than their column: by `table.column`, and `default`.
    pub type_conflicts: BTreeMap<String, TypeConflict>,
    /// Days after which a dead letter's bytes can no longer be read.
    pub dead_letter_days: u32,
    /// Where a partition without a stored position starts.
    pub start: StartAt,
    /// What to do when retention has removed what comes next.
    pub on_data_loss: OnDataLoss,
}

/// What to do when retention has removed what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDataLoss {
    /// End the run with the reason.
    #[default]
    Stop,
    /// Record the gap and go on at the first offset that is left.
    Count,
}

/// What to do with a value of another type than its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypeConflict {
    /// The message is a dead letter.
    #[default]
    DeadLetter,
    /// The value becomes null, and is counted.
    Null,
    /// Text columns take it as its JSON text, list columns as a list of one; else dead letter.
    Widen,
}

/// Where a partition without a stored position starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartAt {
    Earliest,
    Latest,
}

/// `[http]`: the one listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    pub listen: String,
    /// File of token hashes and roles; without it no endpoint that changes something answers.
    pub tokens: Option<PathBuf>,
}

/// `[postgres]`: PostgreSQL's wire from `weir serve`, read-only.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresSection {
    /// HOST:PORT; without it nothing listens.
    pub listen: Option<String>,
    /// The one user.
    pub user: String,
    /// File that holds the user's password.
    pub password_file: Option<PathBuf>,
    pub max_connections: usize,
    /// How long a statement may take, ms.
    pub query_timeout_ms: u64,
    /// Rows that one result may have.
    pub max_rows: usize,
}

/// `[policy]`: trust and delivery.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySection {
    /// Folder of trusted public keys.
    pub trusted_keys: PathBuf,
    /// Compacted topic to which the active policy is published; none when empty.
    pub kafka_topic: String,
    /// How often the registry is read, ms.
    pub refresh_ms: u64,
}

/// `[objective]`: what "better" means here. utility = quality * `quality` - cost in USD * `usd`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectiveSection {
    /// A signed file that says what an outcome is worth; `quality` and `usd` then say nothing.
    pub outcome: Option<PathBuf>,
    pub quality: f64,
    pub usd: f64,
    /// How greedy published policies are (higher explores less); left out, it follows the amount of data.
    pub gamma: Option<f64>,
    /// What an action is beside its model, of `provider` and `reasoning`: a policy then chooses them too.
    pub action_parts: BTreeSet<ActionPart>,
    /// Least share of traffic spread evenly over the allowed models.
    pub floor: f64,
}

/// `[estimators.*]`: what runs in the stream.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EstimatorsSection {
    pub hallucination: Option<HallucinationSection>,
}

/// `[estimators.hallucination]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HallucinationSection {
    /// Artifact written by `weir learn hallucination`.
    pub artifact: PathBuf,
    /// Share of requests with text that are checked, 0..1.
    #[serde(default = "one")]
    pub sample_share: f64,
}

/// `[energy.MODEL]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnergySection {
    /// Name of a built-in GPU profile, or a file of one.
    pub profile: String,
    /// Sequences that an instance decodes at once, on average (`weir fleet size` plans it, the view `pool_state` observes it).
    pub sequences: f64,
}

/// `[bridge]`: what `weir bridge` receives, and where it waits for Kafka.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeSection {
    /// Listeners; each speaks remote-write, OTLP over HTTP and OTLP over gRPC.
    pub listen: Vec<String>,
    /// File that holds what senders must present as `Authorization: Bearer ...`; `WEIR_BRIDGE_TOKEN` overrides it.
    pub token_file: Option<PathBuf>,
    /// What is received: metrics, traces, logs.
    pub signals: Vec<String>,
    pub metrics_topic: String,
    pub traces_topic: String,
    pub logs_topic: String,
    /// Folder of the disk buffer.
    pub buffer: PathBuf,
    pub buffer_max_bytes: u64,
    /// Bytes of a request, compressed or not.
    pub max_body_bytes: usize,
    /// Keep prompts and responses in attributes and bodies. Personal data: off unless the operator says so.
    pub keep_text: bool,
    /// Further attributes that hold text.
    pub text_attributes: Vec<String>,
    /// How long stopping waits for Kafka, ms; what is left stays on disk.
    pub drain_ms: u64,
}

fn one() -> f64 {
    1.0
}

impl Default for StoreSection {
    fn default() -> Self {
        Self { url: "weir-data".into(), credentials: None, options: BTreeMap::new() }
    }
}
impl Default for UpkeepSection {
    fn default() -> Self {
        Self { interval_ms: 600_000, target_file_bytes: 64 << 20, settle_ms: 3_600_000, bytes_per_s: 32 << 20 }
    }
}
impl Default for KeysSection {
    fn default() -> Self {
        Self { path: "weir-keys".into() }
    }
}
impl Default for KafkaSection {
    fn default() -> Self {
        let topic = |name: &str, format| TopicSection {
            name: Some(name.into()),
            pattern: None,
            format,
            encoding: TopicEncoding::Json,
            headers: Vec::new(),
        };
        Self {
            brokers: "127.0.0.1:9092".into(),
            group_id: "weir".into(),
            job: "weir".into(),
            topics: vec![
                topic("requests", TopicFormat::Requests),
                topic("feedback", TopicFormat::Feedback),
                topic("gpu_telemetry", TopicFormat::GpuTelemetry),
            ],
            registry: None,
            properties: BTreeMap::new(),
            secrets: BTreeMap::new(),
        }
    }
}
impl Default for IngestSection {
    fn default() -> Self {
        Self {
            flush_rows: 50_000,
            flush_bytes: 64 << 20,
            flush_interval_ms: 5_000,
            keep_text: false,
            allowed_unknown: Vec::new(),
            type_conflicts: BTreeMap::new(),
            dead_letter_days: 14,
            start: StartAt::Earliest,
            on_data_loss: OnDataLoss::Stop,
        }
    }
}
impl Default for HttpSection {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8077".into(), tokens: None }
    }
}
impl Default for PostgresSection {
    fn default() -> Self {
        Self {
            listen: None,
            user: "weir".into(),
            password_file: None,
            max_connections: 32,
            query_timeout_ms: 60_000,
            max_rows: 1_000_000,
        }
    }
}
impl Default for PolicySection {
    fn default() -> Self {
        Self { trusted_keys: "weir-keys/trusted".into(), kafka_topic: String::new(), refresh_ms: 5_000 }
    }
}
impl Default for ObjectiveSection {
    fn default() -> Self {
        Self { outcome: None, quality: 1.0, usd: 15.0, gamma: None, action_parts: BTreeSet::new(), floor: 0.02 }
    }
}

impl Default for BridgeSection {
    fn default() -> Self {
        Self {
            // OTLP's own ports: gRPC and HTTP.
            listen: vec!["127.0.0.1:4317".into(), "127.0.0.1:4318".into()],
            token_file: None,
            signals: ["metrics", "traces", "logs"].map(str::to_owned).into(),
            metrics_topic: "gpu_telemetry".into(),
            traces_topic: "otel_spans".into(),
            logs_topic: "otel_logs".into(),
            buffer: "weir-bridge".into(),
            buffer_max_bytes: 1 << 30,
            max_body_bytes: 8 << 20,
            keep_text: false,
            text_attributes: Vec::new(),
            drain_ms: 10_000,
        }
    }
}

impl Config {
    /// Reads `path`, or the defaults when there is no such file and the caller did not name one.
    ///
    /// # Errors
    /// When a named file is missing, is not TOML, or holds an unknown key or a value out of range.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let (path, named) = match path {
            Some(path) => (path, true),
            None => (Path::new("weir.toml"), false),
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if !named && error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::user(format!("cannot read configuration {}: {error}", path.display()))),
        };
        let config: Self = toml::from_str(&text).map_err(|error| {
            Failure::user(format!("configuration {} is not valid{}", path.display(), place_and_rule(&text, &error)))
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let bad = |sentence: String| Err(Failure::user(sentence));
        if self.kafka.topics.is_empty() {
            return bad(
                "kafka.topics is empty: name at least one topic, or leave the section out for the defaults".into()
            );
        }
        for TopicSection { name, pattern, .. } in &self.kafka.topics {
            match (name, pattern) {
                (None, None) => return bad("an entry of kafka.topics has no name: give name, or pattern".into()),
                (Some(name), Some(_)) => {
                    return bad(format!("the entry {name} of kafka.topics has name and pattern: keep one of them"));
                }
                _ => {}
            }
        }
        if let Some(RegistrySection { basic_auth_file: Some(_), bearer_token_file: Some(_), .. }) = &self.kafka.registry
        {
            return bad("kafka.registry has basic_auth_file and bearer_token_file: keep one of them".into());
        }
        if let Some((table, _)) = self.retention.iter().find(|(_, days)| **days == 0) {
            return bad(format!("retention.{table} is 0 days: give 1 or more, or leave it out to keep its rows"));
        }
        let dated: Vec<&str> = contracts().iter().map(|contract| contract.name).chain(["dead_letters"]).collect();
        if let Some(table) = self.retention.keys().find(|table| !dated.contains(&table.as_str())) {
            let dated = dated.join(", ");
            return bad(format!("retention.{table}: no table of that name holds raw rows by day; there are: {dated}"));
        }
        if self.upkeep.target_file_bytes < 1 << 20 {
            return bad("upkeep.target_file_bytes is below 1 MiB: the files would be too small to merge".into());
        }
        let ObjectiveSection { quality, usd, gamma, .. } = &self.objective;
        for (name, value) in [("quality", Some(*quality)), ("usd", Some(*usd)), ("gamma", *gamma)] {
            if value.is_some_and(|value| !(0.0..=WEIGHT_MAX).contains(&value)) {
                let value = value.unwrap_or_default();
                return bad(format!("objective.{name} is {value}: give a number from 0 to {WEIGHT_MAX}"));
            }
        }
        if self.ingest.dead_letter_days == 0 || self.policy.refresh_ms == 0 {
            return bad("ingest.dead_letter_days and policy.refresh_ms must be above zero".into());
        }
        let PostgresSection { listen, user, password_file, max_connections, query_timeout_ms, max_rows } =
            &self.postgres;
        if listen.is_some() && password_file.is_none() {
            return bad("postgres.listen needs a password: name a file that holds it in postgres.password_file".into());
        }
        if user.is_empty() || *max_connections == 0 || *query_timeout_ms == 0 || *max_rows == 0 {
            return bad(
                "postgres.user must not be empty; max_connections, query_timeout_ms and max_rows must be above zero"
                    .into(),
            );
        }
        if self.estimators.hallucination.is_some() && !self.ingest.keep_text {
            return bad(
                "estimators.hallucination needs text, which ingest drops at the door: set ingest.keep_text = true, or score \
                 at the router's side with `weir estimate`"
                    .into(),
            );
        }
        if !(0.0..=1.0).contains(&self.objective.floor) {
            return bad(format!("objective.floor is {}: it is a share of traffic, 0 to 1", self.objective.floor));
        }
        let IngestSection { flush_rows, flush_bytes, flush_interval_ms, .. } = self.ingest;
        if flush_rows == 0 || flush_bytes == 0 || flush_interval_ms == 0 {
            return bad("ingest.flush_rows, flush_bytes and flush_interval_ms must be above zero".into());
        }
        if let Some(hallucination) = &self.estimators.hallucination
            && !(0.0..=1.0).contains(&hallucination.sample_share)
        {
            return bad(format!(
                "estimators.hallucination.sample_share is {}: it is a share, 0 to 1",
                hallucination.sample_share
            ));
        }
        Ok(())
    }
}

/// Where the file breaks which rule. A value in it may be a password, so neither the line nor the part of the message
/// that quotes a value is shown.
fn place_and_rule(text: &str, error: &toml::de::Error) -> String {
    let place = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map_or_else(String::new, |before| format!(" in line {}", before.matches('\n').count() + 1));
    let message = error.message();
    let quotes_a_value = ["invalid type", "invalid value", "invalid length", "unknown variant"];
    let rule = if quotes_a_value.iter().any(|start| message.starts_with(start)) {
        // "invalid type: string \"...\", expected u64"
        message
            .rsplit_once(", expected ")
            .map_or("another kind of value is expected".to_owned(), |(_, rule)| format!("expected {rule}"))
    } else {
        message.to_owned()
    };
    format!("{place}: {rule}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weir.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path)).unwrap_err().to_string()
    }

    #[test]
    fn a_refused_line_is_named_by_its_number_and_its_value_stays_unsaid() {
        let wrong_kind = sentence("[ingest]\nflush_rows = \"hunter2\"\n");
        assert!(wrong_kind.contains("in line 2: expected"), "{wrong_kind}");
        let wrong_word = sentence("[ingest]\nstart = \"hunter2\"\n");
        assert!(wrong_word.contains("`earliest`"), "{wrong_word}");
        let unquoted = sentence("[kafka.properties]\n\"sasl.password\" = hunter2\n");
        let open = sentence("[kafka.properties]\n\"sasl.password\" = \"hunter2\n");
        for said in [wrong_kind, wrong_word, unquoted, open] {
            assert!(!said.contains("hunter2"), "{said}");
            assert!(said.contains("in line 2"), "{said}");
        }
    }

    #[test]
    fn a_misspelt_key_is_refused_by_name() {
        let error = toml::from_str::<Config>("[ingest]\nflush_row = 3\n").unwrap_err().to_string();
        assert!(error.contains("flush_row"), "{error}");
    }

    #[test]
    fn retention_is_for_tables_that_have_days() {
        let config: Config = toml::from_str("[retention]\nrequests = 30\ndead_letters = 14\n").unwrap();
        config.check().unwrap();
        let said = sentence("[retention]\nrequsts = 30\n");
        assert!(said.contains("retention.requsts") && said.contains("requests, feedback"), "{said}");
        let said = sentence("[retention]\nrequests = 0\n");
        assert!(said.contains("retention.requests is 0 days"), "{said}");
    }

    #[test]
    fn the_defaults_listen_on_loopback_and_drop_text() {
        let config = Config::default();
        assert!(config.http.listen.starts_with("127.0.0.1:"));
        assert!(!config.ingest.keep_text);
        assert!(config.postgres.listen.is_none());
        assert!(config.bridge.listen.iter().all(|listen| listen.starts_with("127.0.0.1:")));
        assert!(!config.bridge.keep_text);
        config.check().unwrap();
    }

    #[test]
    fn postgres_listens_with_a_password_or_not_at_all() {
        let said = sentence("[postgres]\nlisten = \"127.0.0.1:5432\"\n");
        assert!(said.contains("postgres.password_file"), "{said}");
        let said = sentence("[postgres]\npassword = \"hunter2\"\n");
        assert!(said.contains("unknown field") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn secrets_come_from_files_and_are_never_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "hunter2\n").unwrap();
        let mut kafka = KafkaSection::default();
        kafka.secrets.insert("sasl.password".into(), path.clone());
        assert_eq!(kafka.client_settings().unwrap()["sasl.password"], "hunter2");

        kafka.properties.insert("sasl.password".into(), "hunter3".into());
        let twice = kafka.client_settings().unwrap_err().to_string();
        assert!(twice.contains("sasl.password") && !twice.contains("hunter"), "{twice}");
        kafka.properties.clear();
        std::fs::write(&path, "\n").unwrap();
        assert!(kafka.client_settings().unwrap_err().to_string().contains("empty"));
        std::fs::remove_file(&path).unwrap();
        assert!(kafka.client_settings().unwrap_err().to_string().contains("cannot read the secret sasl.password from"));
    }
}
