//! What Kafka says of topics, each for itself: one that is missing hides nothing of the others.

use std::collections::BTreeMap;

use rdkafka::consumer::Consumer;

use crate::broker::{self, Asking};
use crate::source::Watermarks;
use crate::topics::KnownTopic;
use crate::{IngestConfig, IngestError, Result, TopicConfig};

/// The cluster and its topics now.
pub(super) struct Cluster {
    pub(super) id: Option<String>,
    pub(super) topics: BTreeMap<String, Result<(KnownTopic, Vec<Watermarks>)>>,
}

impl Cluster {
    /// The one topic that was asked for.
    pub(super) fn one(mut self, topic: &str) -> Result<(KnownTopic, Vec<Watermarks>)> {
        self.topics.remove(topic).unwrap_or(Err(IngestError::PollThread))
    }
}

/// Asks for the topics. Fails when no broker answers.
pub(super) async fn ask(config: &IngestConfig, topics: Vec<TopicConfig>) -> Result<Cluster> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || {
        let client = Asking::connect(&config)?;
        let id = client.client().fetch_cluster_id(config.answer_within()).filter(|id| !id.is_empty());
        let about = |topic: TopicConfig| {
            let name = topic.topic.clone();
            let known = broker::describe(&client, &config, topic)?;
            Ok((known, broker::watermarks_of(&client, &config, 0, &name)?))
        };
        let topics = topics.into_iter().map(|topic| (topic.topic.clone(), about(topic))).collect();
        Ok(Cluster { id, topics })
    })
    .await
    .map_err(|_| IngestError::PollThread)?
}
