//! Which topics a run reads: those that the configuration names, and those that its patterns match, now or later.
//!
//! A run's list of topics only grows, and an index into it keeps its meaning: partitions, decoders and positions are kept
//! by it. The sink adds to the list once a topic's tables are checked and open; the poll thread subscribes to what is in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use regex::Regex;
use weir_decode::Encoding;

use crate::{Format, IngestConfig, IngestError, Result, TopicConfig, identity};

/// Kafka's own topics begin so, and no pattern means them.
const INTERNAL: &str = "__";

/// A regular expression that a topic's whole name matches.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles it, in the syntax of the crate `regex`.
    ///
    /// # Errors
    /// [`IngestError::Pattern`], which says what is wrong with it.
    pub fn new(text: &str) -> Result<Self> {
        let compiled = if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(()) };
        let compiled = compiled.and_then(|()| Regex::new(&format!("^(?:{text})$")).map_err(|error| gist(&error)));
        compiled.map(Self).map_err(|why| IngestError::Pattern { pattern: text.to_owned(), why })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        let whole = self.0.as_str();
        whole.strip_prefix("^(?:").and_then(|text| text.strip_suffix(")$")).unwrap_or(whole)
    }

    /// Does it mean the topic of that name?
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        !topic.starts_with(INTERNAL) && self.0.is_match(topic)
    }
}

/// The last line says it; those above point into the expression.
fn gist(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

/// Topics to read whose names match a pattern, those that are made while a run goes on included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPattern {
    /// What their names match.
    pub pattern: Pattern,
    /// What their messages are.
    pub format: Format,
    /// What the bytes of their messages are.
    pub encoding: Encoding,
    /// As [`TopicConfig::headers`].
    pub headers: Vec<String>,
}

impl TopicPattern {
    fn topic(&self, name: &str) -> TopicConfig {
        let Self { format, encoding, headers, .. } = self;
        TopicConfig { topic: name.to_owned(), format: format.clone(), encoding: *encoding, headers: headers.clone() }
    }
}

impl IngestConfig {
    /// How to read the topic of that name: as it is named, or else by the first pattern that it matches.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<TopicConfig> {
        // As the tables name it: one that was made again is read as the first was.
        let kafka_name = identity::kafka_topic(name);
        let named = self.topics.iter().find(|topic| topic.topic == kafka_name).cloned();
        let topic = named.or_else(|| {
            let pattern = self.patterns.iter().find(|pattern| pattern.pattern.matches(kafka_name))?;
            Some(pattern.topic(kafka_name))
        });
        topic.map(|topic| TopicConfig { topic: name.to_owned(), ..topic })
    }

    /// Does an entry of the configuration name it? Else a pattern matches it, and the others are read without it.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.topics.iter().any(|topic| topic.topic == name)
    }

    /// Those of the names that no entry of the configuration gives and a pattern matches, by name.
    pub(crate) fn matched<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<TopicConfig> {
        let mut matched: Vec<_> =
            names.filter(|name| !self.is_named(name)).filter_map(|name| self.topic(name)).collect();
        matched.sort_by(|a, b| a.topic.cmp(&b.topic));
        matched
    }
}

/// A topic as Kafka had it when it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownTopic {
    pub(crate) config: TopicConfig,
    /// Its id, which a later topic of the same name does not have; none where brokers have none.
    pub(crate) id: Option<String>,
    /// How many partitions it had.
    pub(crate) partitions: i32,
}

/// A topic that a run reads, as the poll thread needs it.
#[derive(Debug, Clone)]
pub(crate) struct ReadTopic {
    pub(crate) config: TopicConfig,
    pub(crate) id: Option<String>,
    /// Found by a pattern, and deleted or set aside since: it is not subscribed to.
    pub(crate) is_gone: bool,
}

/// A state of the list, which does not change any more.
#[derive(Debug, Default)]
pub(crate) struct ReadTopics {
    pub(crate) list: Vec<ReadTopic>,
    by_name: HashMap<String, usize>,
}

impl ReadTopics {
    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The same, for names that mostly are that of `last`.
    #[inline]
    pub(crate) fn index_near(&self, last: usize, name: &str) -> Option<usize> {
        match self.list.get(last) {
            Some(topic) if topic.config.topic == name => Some(last),
            _ => self.index(name),
        }
    }

    /// Is the topic subscribed to?
    pub(crate) fn is_read(&self, name: &str) -> bool {
        self.index(name).is_some_and(|index| !self.list[index].is_gone)
    }
}

/// The list, shared by the sink, which adds to it, and the threads that read and look around.
#[derive(Debug, Default)]
pub(crate) struct Topics(Mutex<Arc<ReadTopics>>);

impl Topics {
    /// The list as it is now.
    pub(crate) fn now(&self) -> Arc<ReadTopics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a topic at the end; one that was gone is there again, at its old place.
    pub(crate) fn add(&self, KnownTopic { config, id, .. }: &KnownTopic) {
        self.change(|list| match list.iter_mut().find(|topic| topic.config.topic == config.topic) {
            Some(topic) => topic.is_gone = false,
            None => list.push(ReadTopic { config: config.clone(), id: id.clone(), is_gone: false }),
        });
    }

    pub(crate) fn set_gone(&self, index: usize) {
        self.change(|list| list[index].is_gone = true);
    }

    fn change(&self, change: impl FnOnce(&mut Vec<ReadTopic>)) {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = topics.list.clone();
        change(&mut list);
        let by_name = list.iter().enumerate().map(|(index, topic)| (topic.config.topic.clone(), index)).collect();
        *topics = Arc::new(ReadTopics { list, by_name });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_and_none_of_kafkas_own() {
        let pattern = Pattern::new(r"llm\..*|chat").unwrap();
        assert_eq!(pattern.text(), r"llm\..*|chat");
        for (name, is_match) in
            [("llm.eu", true), ("chat", true), ("chats", false), ("my.llm.eu", false), ("llmxeu", false)]
        {
            assert_eq!(pattern.matches(name), is_match, "{name}");
        }
        assert!(!Pattern::new(".*").unwrap().matches("__consumer_offsets"));
    }

    #[test]
    fn a_pattern_that_is_none_is_refused_with_its_reason() {
        for (text, why) in [("", "it is empty"), ("llm.(", "unclosed group"), ("a{2,1}", "invalid repetition")] {
            let said = Pattern::new(text).unwrap_err().to_string();
            assert!(said.contains(why) && said.contains(&format!("{text:?}")), "{said}");
        }
    }

    #[test]
    fn an_index_keeps_its_topic() {
        let topic = |name: &str| KnownTopic {
            config: TopicConfig {
                topic: name.to_owned(),
                format: Format::Requests,
                encoding: Encoding::Json,
                headers: Vec::new(),
            },
            id: None,
            partitions: 1,
        };
        let topics = Topics::default();
        ["b", "a"].iter().for_each(|name| topics.add(&topic(name)));
        let before = topics.now();
        topics.set_gone(0);
        ["c", "b"].iter().for_each(|name| topics.add(&topic(name)));
        let now = topics.now();
        let names: Vec<_> = now.list.iter().map(|topic| (topic.config.topic.as_str(), topic.is_gone)).collect();
        assert_eq!(names, [("b", false), ("a", false), ("c", false)]);
        assert_eq!((before.index("c"), now.index("c")), (None, Some(2)));
        assert_eq!((now.index_near(1, "a"), now.index_near(1, "b")), (Some(1), Some(0)));
    }
}
