//! One event and the moment at which its sender would send it.

use weir_schemas::{Feedback, GpuTelemetry, Request};

/// An event of one of the three contracts.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A finished model call.
    Request(Box<Request>),
    /// An opinion.
    Feedback(Box<Feedback>),
    /// A sample of an engine.
    Gpu(Box<GpuTelemetry>),
}

/// An event with its time of emission.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// When it is sent, ms since the Unix epoch. Never decreases along an iterator of this crate.
    pub at_ms: i64,
    /// What is sent.
    pub event: Event,
}

impl Event {
    /// The contract's name, which is also the default topic.
    #[must_use]
    pub fn topic(&self) -> &'static str {
        match self {
            Self::Request(_) => Request::contract().name,
            Self::Feedback(_) => Feedback::contract().name,
            Self::Gpu(_) => GpuTelemetry::contract().name,
        }
    }

    /// Partitioning key: what must stay in order stays in one partition.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Request(request) => request.session_id.as_deref().unwrap_or(&request.request_id),
            Self::Feedback(feedback) => {
                feedback.session_id.as_deref().or(feedback.request_id.as_deref()).unwrap_or(&feedback.feedback_id)
            }
            Self::Gpu(sample) => sample.instance.as_deref().unwrap_or_default(),
        }
    }

    /// The message: one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let encoded = match self {
            Self::Request(request) => serde_json::to_vec(request),
            Self::Feedback(feedback) => serde_json::to_vec(feedback),
            Self::Gpu(sample) => serde_json::to_vec(sample),
        };
        encoded.expect("contract structs hold only strings, numbers and maps with string keys, which JSON can write")
    }
}
