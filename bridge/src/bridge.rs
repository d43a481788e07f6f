//! A bridge from its start to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use axum::Router;
use serde::Serialize;

use crate::buffer::{Buffer, Limits};
use crate::delivery::{Delivery, Status};
use crate::receive::{self, Desk};
use crate::{BridgeConfig, BridgeError, Result, Signal, events};

/// A bridge that runs: its buffer is open, and what is in it goes to Kafka.
pub struct Bridge {
    desk: Arc<Desk>,
    buffer: Arc<Buffer>,
    status: Arc<Status>,
    delivery: JoinHandle<Result<()>>,
}

/// How a bridge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// A broker is connected.
    pub kafka_up: bool,
    /// There is no room on disk: senders are told to come again.
    pub buffer_full: bool,
}

impl Standing {
    /// Can it take anything, now or soon?
    #[must_use]
    pub fn ready(self) -> bool {
        self.kafka_up || !self.buffer_full
    }
}

/// What a bridge did, from its start to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Requests answered.
    pub requests: u64,
    /// Of those, the ones that were not answered with "yes".
    pub refused_requests: u64,
    /// Messages that senders were told "yes" for, by signal.
    pub accepted: BTreeMap<&'static str, u64>,
    /// Messages that Kafka acknowledged, by signal, those of earlier runs included.
    pub delivered: BTreeMap<&'static str, u64>,
    /// Messages of earlier runs that were found on disk at the start.
    pub replayed: u64,
    /// Bytes of half-written records that a crash had left.
    pub torn_bytes: u64,
    /// Samples that the contract has no column for, or rules out.
    pub ignored_samples: u64,
    /// Attributes, bodies and status messages that can hold text.
    pub text_dropped: u64,
    /// Messages that were refused at the door for their size.
    pub too_large: u64,
    /// Messages that Kafka refused for good.
    pub refused_by_kafka: u64,
    /// Messages that the disk did not give back.
    pub lost: u64,
    /// Messages that stay on disk for the next run.
    pub left_on_disk: u64,
}

impl Bridge {
    /// Opens the buffer and starts to deliver what is in it. Kafka need not be there yet.
    ///
    /// # Errors
    /// When a setting is wrong, or the buffer's folder can't be used.
    pub fn open(config: BridgeConfig) -> Result<Self> {
        config.check()?;
        events::started(config.signals.iter().map(|signal| (*signal, config.topic(*signal))));
        let limits = Limits { max_bytes: config.buffer_max_bytes, segment_bytes: config.segment_bytes() };
        let (buffer, ledger) = Buffer::open(&config.buffer, limits)?;
        let buffer = Arc::new(buffer);
        let status = Arc::new(Status::default());
        let delivery = Delivery::new(config.clone(), buffer.clone(), ledger, status.clone())?;
        let delivery = std::thread::Builder::new()
            .name("bridge-kafka".into())
            .spawn(move || delivery.run())
            .map_err(|error| BridgeError::Thread(error.to_string()))?;
        Ok(Self { desk: Arc::new(Desk::new(config, buffer.clone())), buffer, status, delivery })
    }

    /// The receivers, for HTTP/1 and HTTP/2 without TLS.
    pub fn router(&self) -> Router {
        receive::router(self.desk.clone())
    }

    /// How it is now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing { kafka_up: self.status.kafka_up.load(Ordering::Relaxed), buffer_full: self.buffer.is_full() }
    }

    /// Has its delivery ended before it was told to?
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.delivery.is_finished()
    }

    /// Takes nothing more, and waits until Kafka has everything, or the time to drain is over.
    ///
    /// # Errors
    /// When a thread of the bridge has failed.
    pub async fn close(self) -> Result<Summary> {
        let Self { desk, buffer, status, delivery } = self;
        let closing = tokio::task::spawn_blocking({
            let (buffer, status) = (buffer.clone(), status.clone());
            move || {
                buffer.close();
                status.stopping.store(true, Ordering::Relaxed);
                delivery.join()
            }
        });
        let joined = closing.await.map_err(|error| BridgeError::Thread(error.to_string()))?;
        joined.map_err(|_| BridgeError::Thread("the delivery panicked".to_owned()))??;
        let by_signal = |counts: &[std::sync::atomic::AtomicU64; 3]| {
            let count = |signal: Signal| (signal.name(), counts[signal.index()].load(Ordering::Relaxed));
            Signal::ALL.into_iter().map(count).collect()
        };
        let counts = &desk.counts;
        Ok(Summary {
            requests: counts.requests.load(Ordering::Relaxed),
            refused_requests: counts.refused_requests.load(Ordering::Relaxed),
            accepted: by_signal(&counts.accepted),
            delivered: by_signal(&status.delivered),
            replayed: buffer.found().messages,
            torn_bytes: buffer.found().torn_bytes,
            ignored_samples: counts.ignored_samples.load(Ordering::Relaxed),
            text_dropped: counts.text_dropped.load(Ordering::Relaxed),
            too_large: counts.too_large.load(Ordering::Relaxed),
            refused_by_kafka: status.refused.load(Ordering::Relaxed),
            lost: status.lost.load(Ordering::Relaxed),
            left_on_disk: status.left.load(Ordering::Relaxed),
        })
    }
}
