//! Topics that are set aside: only a pattern matched them, and they cannot be read, so that all others are.
//!
//! A topic that the configuration names ends the run when it was made again, cannot be read or is another job's: somebody
//! wanted it. Of one that merely matches nobody may know; it must not keep the rest from being read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{IngestConfig, IngestError, events};

/// Names and reasons, shared by the sink and the threads that read and look around.
#[derive(Debug, Default)]
pub(crate) struct Aside(Mutex<BTreeMap<String, String>>);

impl Aside {
    /// Sets the topic aside when the error is about it alone and the configuration does not name it; false otherwise. Said
    /// when it is news.
    pub(crate) fn takes(&self, config: &IngestConfig, topic: &str, error: &IngestError) -> bool {
        if config.is_named(topic) || error.only_topic() != Some(topic) {
            return false;
        }
        let why = error.to_string();
        let mut aside = self.lock();
        if aside.insert(topic.to_owned(), why.clone()).as_ref() != Some(&why) {
            events::topic_set_aside(&config.job, topic, &why, aside.len());
        }
        true
    }

    /// The topic is read after all, or gone.
    pub(crate) fn release(&self, config: &IngestConfig, topic: &str) {
        let mut aside = self.lock();
        if aside.remove(topic).is_some() {
            events::topic_no_longer_set_aside(&config.job, topic, aside.len());
        }
    }

    /// Those that are set aside now.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Encoding, Format, Pattern, TopicConfig, TopicPattern};

    #[test]
    fn only_topics_that_nobody_named_are_set_aside_and_only_for_what_is_theirs() {
        let named = TopicConfig {
            topic: "named".to_owned(),
            format: Format::Requests,
            encoding: Encoding::Json,
            headers: Vec::new(),
        };
        let pattern = TopicPattern {
            pattern: Pattern::new(".*").unwrap(),
            format: Format::Requests,
            encoding: Encoding::Json,
            headers: Vec::new(),
        };
        let config = IngestConfig { patterns: vec![pattern], ..crate::config::tests::config_of(vec![named]) };
        let recreated = |topic: &str| IngestError::TopicRecreated { topic: topic.to_owned() };
        let aside = Aside::default();
        assert!(!aside.takes(&config, "named", &recreated("named")), "somebody wanted it");
        assert!(!aside.takes(&config, "other", &IngestError::PollThread), "not the topic's fault");
        assert!(!aside.takes(&config, "other", &recreated("another")));
        assert!(aside.takes(&config, "other", &recreated("other")));
        assert!(aside.takes(&config, "other", &recreated("other")), "still");
        assert_eq!(aside.names(), ["other"]);
        aside.release(&config, "other");
        assert_eq!(aside.names(), [""; 0]);
    }
}
