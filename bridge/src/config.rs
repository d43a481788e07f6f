//! What the bridge is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::room::Room;
use crate::{BridgeError, Result, Signal};

/// Above what one request can become, so that a full buffer always has room again once it is empty.
const LEAST_BUFFER_BYTES: u64 = 64 << 20;
/// A body that may grow beyond this in memory is no telemetry.
const MOST_BODY_BYTES: usize = 64 << 20;
/// What a request may become, for each byte that its body may have. Telemetry grows two or three times in JSON, or ten where
/// many small spans repeat a resource.
const MESSAGES_BY_BODY: usize = 16;

/// Everything that the bridge is told.
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    /// Bootstrap servers of Kafka.
    pub brokers: String,
    /// Further settings of the Kafka client, by librdkafka's names.
    pub kafka: BTreeMap<String, String>,
    /// What is received; senders of anything else are told so.
    pub signals: BTreeSet<Signal>,
    /// Topic of each signal, in the order of [`Signal::ALL`].
    pub topics: [String; 3],
    /// Folder of the disk buffer.
    pub buffer: PathBuf,
    /// Bytes that the buffer may take on disk.
    pub buffer_max_bytes: u64,
    /// Bytes of a request's body, compressed or not.
    pub max_body_bytes: usize,
    /// What senders must present as `Authorization: Bearer ...`; anybody may send when there is none.
    pub token: Option<String>,
    /// Keep prompts and responses in attributes and bodies. Personal data: off unless the operator says so.
    pub keep_text: bool,
    /// Further attributes that hold text, by name; dropped unless `keep_text`.
    pub text_attributes: Vec<String>,
    /// How long stopping waits for Kafka to take what is in the buffer. What is left stays on disk for the next run.
    pub drain: Duration,
}

impl BridgeConfig {
    /// The defaults, with these brokers and this folder.
    #[must_use]
    pub fn new(brokers: &str, buffer: PathBuf) -> Self {
        Self {
            brokers: brokers.to_owned(),
            kafka: BTreeMap::new(),
            signals: Signal::ALL.into(),
            topics: ["gpu_telemetry", "otel_spans", "otel_logs"].map(str::to_owned),
            buffer,
            buffer_max_bytes: 1 << 30,
            max_body_bytes: 8 << 20,
            token: None,
            keep_text: false,
            text_attributes: Vec::new(),
            drain: Duration::from_secs(10),
        }
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`BridgeError::Config`], with the setting and how to mend it.
    pub fn check(&self) -> Result<()> {
        let error = |setting, value: String, mend| Err(BridgeError::Config { setting, value, mend });
        if self.brokers.trim().is_empty() {
            return error("kafka.brokers", "empty".into(), "give host:port of at least one Kafka broker");
        }
        if self.signals.is_empty() {
            return error("bridge.signals", "empty".into(), "name at least one of metrics, traces, logs");
        }
        if self.topics.iter().any(String::is_empty) {
            return error("a topic of the bridge", "empty".into(), "name it, or take its signal out of bridge.signals");
        }
        if self.buffer_max_bytes < LEAST_BUFFER_BYTES {
            return error(
                "bridge.buffer_max_bytes",
                self.buffer_max_bytes.to_string(),
                "give at least 67108864 (64 MiB)",
            );
        }
        if self.max_body_bytes == 0 || self.max_body_bytes > MOST_BODY_BYTES {
            return error("bridge.max_body_bytes", self.max_body_bytes.to_string(), "give 1 to 67108864 (64 MiB)");
        }
        if self.token.as_ref().is_some_and(|token| token.is_empty() || token.contains(char::is_whitespace)) {
            return error("the bridge's token", "empty or of several words".into(), "give one long random word");
        }
        Ok(())
    }

    /// The topic of a signal.
    #[must_use]
    pub fn topic(&self, signal: Signal) -> &str {
        &self.topics[signal.index()]
    }

    /// The size of a segment file: small beside the whole, since room comes back a segment at a time.
    pub(crate) fn segment_bytes(&self) -> u64 {
        (self.buffer_max_bytes / 16).clamp(1 << 20, 16 << 20)
    }

    /// What one request may become: never more than the buffer can take.
    pub(crate) fn room(&self) -> Room {
        let bytes = self.max_body_bytes.saturating_mul(MESSAGES_BY_BODY);
        Room::of(bytes.min(usize::try_from(self.buffer_max_bytes).unwrap_or(usize::MAX)))
    }

    /// Bytes of the largest message that the Kafka client takes, framing and headers included.
    pub(crate) fn max_message_bytes(&self) -> usize {
        let set = self.kafka.get("message.max.bytes").and_then(|value| value.parse().ok());
        set.unwrap_or(1_000_000) // librdkafka's default, and below the brokers' own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_named_with_what_mends_them() {
        let good = BridgeConfig::new("localhost:9092", "b".into());
        good.check().unwrap();
        let bad = [
            BridgeConfig { brokers: " ".into(), ..good.clone() },
            BridgeConfig { signals: BTreeSet::new(), ..good.clone() },
            BridgeConfig { buffer_max_bytes: 1 << 20, ..good.clone() },
            BridgeConfig { max_body_bytes: 0, ..good.clone() },
            BridgeConfig { token: Some(String::new()), ..good.clone() },
            BridgeConfig { topics: ["a".into(), String::new(), "c".into()], ..good },
        ];
        for config in bad {
            let said = config.check().unwrap_err();
            assert!(said.to_string().contains("give ") || said.to_string().contains("name "), "{said}");
            assert_eq!(said.fault(), crate::Fault::User);
        }
    }
}
