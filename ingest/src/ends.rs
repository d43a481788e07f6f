//! The first and the last offset that Kafka holds of a partition.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

/// Offset of the first message that is held, and the one behind the last.
///
/// The client's own call asks for both at once and drops an error about one of the two: it then gives the other one twice,
/// as for a partition that holds nothing, and whoever starts at its first offset would pass over all of it. So what looks
/// empty is asked for one end at a time. Two calls more, each of at most `wait`.
///
/// # Errors
/// The client's, also of an error about the partition alone.
pub(crate) fn ends<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    wait: Duration,
) -> KafkaResult<(i64, i64)> {
    let (low, high) = client.fetch_watermarks(topic, partition, wait)?;
    if low != high {
        return Ok((low, high));
    }
    let low = one_end(client, topic, partition, Offset::Beginning, wait)?;
    let high = one_end(client, topic, partition, Offset::End, wait)?;
    Ok((low, high))
}

/// The protocol takes the two ends for times: -2 is the first offset, -1 the last.
fn one_end<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    end: Offset,
    wait: Duration,
) -> KafkaResult<i64> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(topic, partition, end)?;
    let answer = client.offsets_for_times(asked, wait)?;
    let unknown = || KafkaError::MetadataFetch(RDKafkaErrorCode::Unknown);
    let found = answer.find_partition(topic, partition).ok_or_else(unknown)?;
    found.error()?;
    match found.offset() {
        Offset::Offset(offset) => Ok(offset),
        _ => Err(unknown()),
    }
}
