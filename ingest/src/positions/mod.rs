//! Positions for operators: where a job stands in each partition, and the ways on after Kafka has lost what comes next.
//!
//! Positions only ever move forward, and no message is stored twice: [`skip`] passes over offsets, [`forget`] gives up a
//! topic that was made again, and has the new one read under another name. Both write down what they pass over (see
//! `gaps`), and both are fenced like any commit: whoever reads the partition at the same time wins or reads positions anew.

mod forget;
mod kafka;
mod list;
mod skip;

use std::fmt;
use std::str::FromStr;

pub use forget::{Forgotten, forget};
pub use list::{PartitionPosition, PositionState, Positions, positions};
pub use skip::{SkipTo, Skipped, skip};

/// A partition of a topic. Prints and parses as `topic/partition`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionId {
    /// The topic, as Kafka names it.
    pub topic: String,
    /// Counted from 0.
    pub partition: i32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl FromStr for PartitionId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = text.split_once('/').and_then(|(topic, partition)| {
            let partition = partition.parse().ok().filter(|partition: &i32| *partition >= 0)?;
            (!topic.is_empty()).then(|| Self { topic: topic.to_owned(), partition })
        });
        id.ok_or_else(|| "write TOPIC/PARTITION, for example requests/0".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_named_by_topic_and_number() {
        let id: PartitionId = "llm.requests/3".parse().unwrap();
        assert_eq!((id.to_string().as_str(), id.partition), ("llm.requests/3", 3));
        for wrong in ["llm.requests", "/3", "llm.requests/-1", "llm.requests/x", "llm.requests/1/2"] {
            assert!(wrong.parse::<PartitionId>().is_err(), "{wrong}");
        }
    }
}
