//! What senders speak to: remote-write, OTLP over HTTP and OTLP over gRPC, on one router.
//!
//! Each request goes the same way: a place among the few that are worked on at once, the token, the body within its
//! limit, its messages, the disk. Only then is it answered with "yes". Whatever is in its way becomes a [`Refusal`],
//! which each protocol says in its own words; those that time mends carry the time to wait.

mod body;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod grpc;
mod otlp;
mod refusal;
mod remote_write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::routing::post;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, SemaphorePermit};

use self::refusal::Refusal;
use crate::buffer::{Buffer, NotTaken};
use crate::message::{Message, Signal};
use crate::proto::otlp::{LogsRequest, MetricsRequest, TracesRequest};
use crate::telemetry::{self, Parts};
use crate::text::Text;
use crate::{BridgeConfig, events, spans};

/// Requests whose bodies are in memory at once; others wait for a place.
const AT_ONCE: usize = 16;
/// How long a request waits for a place.
const PLACE_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of a message that are not its key or its payload, at most: its framing and its header.
const MESSAGE_OVERHEAD_BYTES: usize = 512;

/// What the handlers share.
pub(crate) struct Desk {
    config: BridgeConfig,
    buffer: Arc<Buffer>,
    text: Text,
    parts: Parts,
    places: Semaphore,
    token: Option<[u8; 32]>,
    pub(crate) counts: Counts,
}

/// What was taken since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: AtomicU64,
    pub(crate) refused_requests: AtomicU64,
    pub(crate) accepted: [AtomicU64; 3],
    pub(crate) ignored_samples: AtomicU64,
    pub(crate) too_large: AtomicU64,
    pub(crate) text_dropped: AtomicU64,
}

/// Messages that were not taken although their request was.
#[derive(Debug, Clone, Copy, Default)]
struct TooLarge(u64);

impl Desk {
    pub(crate) fn new(config: BridgeConfig, buffer: Arc<Buffer>) -> Self {
        let text = if config.keep_text { Text::kept() } else { Text::dropped(&config.text_attributes) };
        let token = config.token.as_ref().map(|token| Sha256::digest(token.as_bytes()).into());
        let (parts, places) = (Parts::default(), Semaphore::new(AT_ONCE));
        Self { config, buffer, text, parts, places, token, counts: Counts::default() }
    }

    fn receives(&self, signal: Signal) -> Result<(), Refusal> {
        if self.config.signals.contains(&signal) { Ok(()) } else { Err(Refusal::NotReceived(signal)) }
    }

    /// Comparing hashes takes the same time wherever a wrong token differs.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(wanted) = &self.token else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        let token = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let hash: [u8; 32] = Sha256::digest(token.unwrap_or_default().as_bytes()).into();
        if bool::from(hash.ct_eq(wanted)) { Ok(()) } else { Err(Refusal::WrongToken) }
    }

    async fn place(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        match tokio::time::timeout(PLACE_WITHIN, self.places.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Refusal::Busy),
        }
    }

    /// Makes the messages durable, apart from those that Kafka would not take.
    async fn take(&self, signal: Signal, mut messages: Vec<Message>) -> Result<TooLarge, Refusal> {
        let most = self.config.max_message_bytes().saturating_sub(MESSAGE_OVERHEAD_BYTES);
        let all = messages.len();
        messages.retain(|message| message.key.len() + message.payload.len() <= most);
        let (taken, too_large) = (messages.len() as u64, (all - messages.len()) as u64);
        self.buffer.append(messages).await.map_err(|why| {
            if why == NotTaken::Full {
                events::full();
            }
            Refusal::NotTaken(why)
        })?;
        events::accepted(signal, taken);
        self.counts.accepted[signal.index()].fetch_add(taken, Ordering::Relaxed);
        if too_large > 0 {
            events::too_large(signal, too_large);
            self.counts.too_large.fetch_add(too_large, Ordering::Relaxed);
        }
        Ok(TooLarge(too_large))
    }

    async fn take_metrics(&self, (messages, ignored): (Vec<Message>, telemetry::Ignored)) -> Result<TooLarge, Refusal> {
        let taken = self.take(Signal::Metrics, messages).await?;
        self.counts.ignored_samples.fetch_add(ignored.emit(), Ordering::Relaxed);
        Ok(taken)
    }

    async fn take_flattened(&self, signal: Signal, flattened: spans::Flattened) -> Result<TooLarge, Refusal> {
        let taken = self.take(signal, flattened.messages).await?;
        events::text_dropped(signal, flattened.dropped);
        self.counts.text_dropped.fetch_add(flattened.dropped, Ordering::Relaxed);
        Ok(taken)
    }

    /// A request of OTLP, however it came.
    async fn take_otlp(&self, request: Otlp) -> Result<TooLarge, Refusal> {
        let room = self.config.room();
        match request {
            Otlp::Metrics(request) => self.take_metrics(telemetry::of_otlp(&request, &self.parts, room)?).await,
            Otlp::Traces(request) => {
                self.take_flattened(Signal::Traces, spans::spans(&request, &self.text, room)?).await
            }
            Otlp::Logs(request) => self.take_flattened(Signal::Logs, spans::logs(&request, &self.text, room)?).await,
        }
    }

    /// Counts the answer to a request.
    fn answered(&self, receiver: &'static str, status: u16, body_bytes: usize) {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        if status >= 400 {
            self.counts.refused_requests.fetch_add(1, Ordering::Relaxed);
        }
        events::answered(receiver, status, body_bytes);
    }
}

/// A request of OTLP.
enum Otlp {
    Metrics(MetricsRequest),
    Traces(TracesRequest),
    Logs(LogsRequest),
}

pub(crate) fn router(desk: Arc<Desk>) -> Router {
    let mut router = Router::new().route("/api/v1/write", post(remote_write::receive));
    for (signal, path, method) in [
        (Signal::Metrics, "/v1/metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"),
        (Signal::Traces, "/v1/traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        (Signal::Logs, "/v1/logs", "/opentelemetry.proto.collector.logs.v1.LogsService/Export"),
    ] {
        router = router
            .route(path, post(move |desk, request| otlp::receive(signal, desk, request)))
            .route(method, post(move |desk, request| grpc::receive(signal, desk, request)));
    }
    router.with_state(desk)
}
