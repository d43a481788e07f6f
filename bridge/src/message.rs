//! What the bridge produces: a value for one of its topics, with the key that keeps its order.

/// Which topic a message goes to. The buffer stores the signal and not the topic's name, so that a topic can be renamed
/// between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Samples of GPUs and engines: the contract `gpu_telemetry`.
    Metrics,
    /// One message a span.
    Traces,
    /// One message a log record.
    Logs,
}

impl Signal {
    /// Every signal, in the order of its byte in the buffer.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Traces, Self::Logs];

    /// Its name in the configuration and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Traces => "traces",
            Self::Logs => "logs",
        }
    }

    /// The signal of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// One Kafka message to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub signal: Signal,
    /// Messages of one key keep their order; empty where there is no order to keep.
    pub key: String,
    /// One JSON object.
    pub payload: Vec<u8>,
}
