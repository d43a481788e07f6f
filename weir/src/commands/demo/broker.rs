//! The embedded broker: librdkafka's mock cluster, which speaks Kafka's protocol inside this process.
//!
//! It keeps about 5 MiB a partition and then drops the oldest messages, so producers must never be further ahead of the
//! consumer than that; [`Headroom`] is that rule.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::error::{Failure, Result};

/// Partitions of each topic.
pub const PARTITIONS: i32 = 2;
/// What the mock cluster keeps per partition is about 5 MiB; one may hold all of a topic's traffic for a moment.
const AHEAD_BYTES_MAX: u64 = 3 << 20;

/// A broker that lives as long as this value.
pub struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Broker {
    /// Starts it with these topics.
    pub fn start(topics: &[&str]) -> Result<Self> {
        let failed = |error| Failure::outside(format!("the embedded broker did not start: {error}"));
        let cluster = MockCluster::new(1).map_err(failed)?;
        for topic in topics {
            cluster.create_topic(topic, PARTITIONS, 1).map_err(failed)?;
        }
        Ok(Self { cluster })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}

/// How far the producer may run ahead of what is committed.
#[derive(Default)]
pub struct Headroom {
    produced_rows: u64,
    produced_bytes: u64,
}

impl Headroom {
    /// Counts one message.
    pub fn add(&mut self, bytes: usize) {
        self.produced_rows += 1;
        self.produced_bytes += bytes as u64;
    }

    /// May more be produced, with this many rows committed?
    pub fn allows(&self, committed_rows: u64) -> bool {
        let waiting = self.produced_rows.saturating_sub(committed_rows);
        let mean_bytes = self.produced_bytes / self.produced_rows.max(1);
        waiting * mean_bytes < AHEAD_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_waits_when_the_consumer_is_three_mebibytes_behind() {
        let mut headroom = Headroom::default();
        for _ in 0..3_072 {
            assert!(headroom.allows(0));
            headroom.add(1_024);
        }
        assert!(!headroom.allows(0));
        assert!(headroom.allows(1));
    }
}
