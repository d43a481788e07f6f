//! Decoding beside the sink: chunks are decoded on as many threads as there are cores, while the sink commits and the
//! poll thread reads on, and everything is handed on in the order in which it came.
//!
//! What is decoded here may turn out to be unwanted (a chunk of an assignment that has ended): decoding has no effect but
//! its result, so that costs nothing but time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::task::JoinHandle;
use weir_decode::{Incoming, SchemaSource};
use weir_store::Keyring;

use crate::decode::{Decoded, Decoder};
use crate::source::{Chunk, Event, News};
use crate::{IngestConfig, Registry, Result, TopicConfig};

/// Chunks under way beyond one for each core: the next is there when one is done.
const AHEAD: usize = 1;

/// Decoders of each topic. A thread takes one, or makes one, and puts it back: there are never more than threads.
#[derive(Debug)]
pub(crate) struct Decoders {
    config: IngestConfig,
    keyring: Keyring,
    schemas: Option<Arc<dyn SchemaSource>>,
    topics: RwLock<Vec<Arc<Idle>>>,
}

/// A topic, and decoders of it that nobody uses now.
#[derive(Debug)]
struct Idle {
    topic: TopicConfig,
    decoders: Mutex<Vec<Decoder>>,
}

/// The messages of one topic in a chunk, and what became of them.
pub(crate) struct OfTopic {
    pub(crate) topic: usize,
    /// The chunk's entries that were decoded, by index; `decoded` counts messages in this order.
    pub(crate) entries: Vec<usize>,
    pub(crate) decoded: Decoded,
}

/// A chunk and what became of its messages.
pub(crate) struct DecodedChunk {
    pub(crate) chunk: Chunk,
    pub(crate) topics: Vec<OfTopic>,
}

impl Decoders {
    /// Of no topics yet.
    pub(crate) fn new(config: &IngestConfig, keyring: &Keyring) -> Result<Self> {
        let schemas: Option<Arc<dyn SchemaSource>> = match &config.registry {
            Some(registry) => Some(Arc::new(Registry::new(registry)?)),
            None => None,
        };
        Ok(Self { config: config.clone(), keyring: keyring.clone(), schemas, topics: RwLock::default() })
    }

    /// Adds a topic behind those that there are.
    pub(crate) fn add(&self, topic: TopicConfig) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.push(Arc::new(Idle { topic, decoders: Mutex::default() }));
    }

    /// Decodes the chunk's entries that are `wanted`, topic by topic.
    pub(crate) fn decode(&self, chunk: &Chunk, wanted: impl Fn(usize) -> bool) -> Result<Vec<OfTopic>> {
        let mut by_topic: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (entry, message) in chunk.entries.iter().enumerate().filter(|(entry, _)| wanted(*entry)) {
            by_topic.entry(message.partition.0).or_default().push(entry);
        }
        let mut topics = Vec::with_capacity(by_topic.len());
        for (topic, entries) in by_topic {
            let messages: Vec<Incoming<'_>> = entries.iter().map(|entry| chunk.incoming(*entry)).collect();
            let mut decoder = self.take(topic);
            let decoded = decoder.decode(&messages)?;
            self.idle(topic).decoders.lock().unwrap_or_else(PoisonError::into_inner).push(decoder);
            topics.push(OfTopic { topic, entries, decoded });
        }
        Ok(topics)
    }

    /// The same on a thread that may wait: for cores, and for the registry.
    pub(crate) fn decode_aside(self: &Arc<Self>, chunk: Chunk, wanted: Option<Vec<bool>>) -> Decoding {
        let decoders = self.clone();
        Decoding(tokio::task::spawn_blocking(move || {
            let topics = decoders.decode(&chunk, |entry| wanted.as_ref().is_none_or(|wanted| wanted[entry]))?;
            Ok(DecodedChunk { chunk, topics })
        }))
    }

    fn idle(&self, topic: usize) -> Arc<Idle> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner)[topic].clone()
    }

    /// A decoder of the topic of that index, as the configuration wants it.
    pub(crate) fn take(&self, topic: usize) -> Decoder {
        let idle = self.idle(topic);
        let decoder = idle.decoders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        decoder.unwrap_or_else(|| {
            let config = &self.config;
            let of_topic = &idle.topic;
            let keyring = self.keyring.clone();
            let (topic, format) = (&of_topic.topic, of_topic.format.clone());
            let (allowed, conflicts) = (&config.allowed_unknown, &config.type_conflicts);
            Decoder::with_type_conflicts(topic, format, keyring, config.keep_text, allowed, conflicts)
                .with_encoding(of_topic.encoding, self.schemas.clone())
                .with_headers(&of_topic.headers)
        })
    }
}

/// A chunk that is being decoded.
pub(crate) struct Decoding(JoinHandle<Result<DecodedChunk>>);

impl Decoding {
    pub(crate) async fn end(&mut self) -> Result<DecodedChunk> {
        match (&mut self.0).await {
            Ok(decoded) => decoded,
            Err(died) => std::panic::resume_unwind(died.into_panic()),
        }
    }
}

/// What comes out of the stage, in order.
pub(crate) enum Staged {
    Chunk(DecodedChunk),
    News(News),
}

enum Waiting {
    Decoding(Decoding),
    News(Option<News>),
}

/// Events on their way to the sink.
pub(crate) struct Stage {
    decoders: Arc<Decoders>,
    waiting: VecDeque<Waiting>,
    room: usize,
}

impl Stage {
    pub(crate) fn new(decoders: Arc<Decoders>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { decoders, waiting: VecDeque::new(), room: cores + AHEAD }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < self.room
    }

    /// Takes the next event; a chunk begins to be decoded.
    pub(crate) fn push(&mut self, event: Event) {
        self.waiting.push_back(match event {
            Event::Messages(chunk) => Waiting::Decoding(self.decoders.decode_aside(chunk, None)),
            Event::News(news) => Waiting::News(Some(news)),
        });
    }

    /// The oldest event, once it is ready; never, while there is none. Dropped before it is ready, it stays the oldest.
    pub(crate) async fn next(&mut self) -> Result<Staged> {
        let ready = match self.waiting.front_mut() {
            Some(Waiting::Decoding(decoding)) => decoding.end().await.map(Staged::Chunk),
            Some(Waiting::News(news)) => match news.take() {
                Some(news) => Ok(Staged::News(news)),
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        };
        self.waiting.pop_front();
        ready
    }
}
