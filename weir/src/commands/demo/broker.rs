//! The embedded broker: librdkafka's mock cluster, which speaks Kafka's protocol inside this process.
//!
//! It keeps about 5 MiB a partition and then drops the oldest messages, so producers must never be further ahead of the
//! consumer than that; [`Headroom`] is that rule.

use std::collections::{BTreeMap, VecDeque};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::error::{Failure, Result};

/// Partitions of each topic.
pub const PARTITIONS: i32 = 2;
/// Bytes of one partition that may wait for the consumer. The mock cluster counts compressed bytes and drops the oldest
/// above 5 MiB; ours are counted before compression, which leaves the more room.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// What a record adds to its key and payload, at most.
const RECORD_OVERHEAD_BYTES: usize = 100;

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
///
/// Only the number of committed rows is known, and a partition is read in order. So of each partition at most its newest
/// `produced - committed` messages still wait, and their bytes are what must fit.
#[derive(Default)]
pub struct Headroom {
    produced: u64,
    partitions: BTreeMap<(&'static str, i32), Waiting>,
}

/// Sizes of the newest messages of one partition, oldest first.
#[derive(Default)]
struct Waiting {
    sizes: VecDeque<usize>,
    bytes: usize,
}

impl Headroom {
    /// Counts one message.
    pub fn add(&mut self, topic: &'static str, partition: i32, key_and_payload_bytes: usize) {
        let size = key_and_payload_bytes + RECORD_OVERHEAD_BYTES;
        self.produced += 1;
        let waiting = self.partitions.entry((topic, partition)).or_default();
        waiting.sizes.push_back(size);
        waiting.bytes += size;
    }

    /// May more be produced, with this many rows committed?
    pub fn allows(&mut self, committed_rows: u64) -> bool {
        let waiting_at_most = usize::try_from(self.produced.saturating_sub(committed_rows)).unwrap_or(usize::MAX);
        for waiting in self.partitions.values_mut() {
            while waiting.sizes.len() > waiting_at_most {
                waiting.bytes -= waiting.sizes.pop_front().unwrap_or_default();
            }
        }
        self.partitions.values().all(|waiting| waiting.bytes < WAITING_BYTES_MAX)
    }
}

/// The partition of a key: what belongs together stays in order.
pub fn partition_of(key: &str) -> i32 {
    // FNV-1a; any hash that spreads keys will do.
    let hash = key.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash % PARTITIONS as u32) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1_024 - RECORD_OVERHEAD_BYTES;

    #[test]
    fn a_producer_waits_when_a_partition_may_hold_four_mebibytes_of_what_is_not_committed() {
        let mut headroom = Headroom::default();
        for _ in 0..4_096 {
            assert!(headroom.allows(0));
            headroom.add("requests", 0, SIZE);
        }
        assert!(!headroom.allows(0));
        assert!(headroom.allows(1));
    }

    /// Small messages of one topic must not hide the large ones of another: a mean would.
    #[test]
    fn large_messages_count_in_full_among_many_small_ones() {
        let mut headroom = Headroom::default();
        for _ in 0..4_096 {
            headroom.add("requests", 0, SIZE);
            (0..3).for_each(|_| headroom.add("gpu_telemetry", 1, 1));
        }
        // A quarter is committed: the telemetry, for all that we know.
        assert!(!headroom.allows(4_096));
        // All but 100 are: whichever wait, they fit.
        assert!(headroom.allows(4 * 4_096 - 100));
    }

    #[test]
    fn keys_spread_over_the_partitions() {
        let first = (0..1_000).filter(|key| partition_of(&format!("session-{key}")) == 0).count();
        // Binomial(1000, 1/2): standard deviation 16.
        assert!((420..=580).contains(&first), "{first} of 1000 in one of two");
    }
}
