//! Public traces as requests: arrivals and tokens exactly as published, and nothing that the trace does not say.
//!
//! | format | known by its columns | gives |
//! |---|---|---|
//! | `azure-llm` | `ts_unix_ns`, `service`, `context_tokens`, `generated_tokens` | the logged requests |
//! | `mooncake` | `timestamp_ms`, `input_length`, `output_length`, `hash_ids` | the logged requests, with prefix blocks |
//! | `servegen` | `client_id`, `rate_per_s`, `pattern`, `arg1`, `arg2` | a stream **generated** from published statistics |
//! | `score-matrix` | `query_id`, `model`, `score` | no trace: see [`crate::matrix`] |
//!
//! A folder is read as all of its trace files together, in order of time.

mod azure;
mod format;
mod mooncake;
mod servegen;

use std::collections::BinaryHeap;
use std::path::Path;

use weir_schemas::{EventTimeMs, Request};

pub use format::{TraceFormat, detect};
pub use servegen::ServeGenSelection;

use crate::{Event, Timed, TrafficError};

/// Latest start: 2100-01-01T00:00:00Z.
const START_MS_MAX: i64 = crate::simulate::SimConfig::START_MS_MAX;

/// How to replay.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayConfig {
    /// Moment of the first arrival, ms since the Unix epoch; none keeps the trace's own times.
    pub start_ms: Option<i64>,
    /// 2 halves the gaps between arrivals.
    pub speed: f64,
    /// At most this many requests.
    pub limit: Option<u64>,
    /// For `servegen`: the generator's seed.
    pub seed: u64,
    /// For `servegen`: which clients, and when.
    pub servegen: ServeGenSelection,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self { start_ms: None, speed: 1.0, limit: None, seed: 1, servegen: ServeGenSelection::default() }
    }
}

/// A request of a trace and the trace's own time.
struct Traced {
    at_ns: i64,
    request: Request,
}

type Source = Box<dyn Iterator<Item = Result<Traced, TrafficError>> + Send>;

/// The events of a trace, by arrival. Latencies are not known, so a request is emitted when it arrives.
pub struct Replay {
    sources: Vec<Source>,
    heads: BinaryHeap<Head>,
    config: ReplayConfig,
    format: TraceFormat,
    first_ns: Option<i64>,
    sent: u64,
    failed: Option<TrafficError>,
}

/// The next request of one source; the heap gives the earliest, and the first source of equals.
struct Head {
    source: usize,
    traced: Traced,
}

/// Opens a trace file, or a folder of them.
///
/// # Errors
/// When it cannot be read, its format is not known (one sentence names those that are), or the configuration makes no
/// sense.
pub fn open(path: &Path, config: ReplayConfig) -> Result<Replay, TrafficError> {
    if !(config.speed > 0.0 && config.speed.is_finite()) {
        let value = config.speed.to_string();
        return Err(TrafficError::Setting { setting: "speed", value, mend: "give a number above 0" });
    }
    if let Some(start_ms) = config.start_ms.filter(|start_ms| !(0..=START_MS_MAX).contains(start_ms)) {
        let mend = "give a moment from 1970 to 2100, in ms since the Unix epoch";
        return Err(TrafficError::Setting { setting: "start_ms", value: start_ms.to_string(), mend });
    }
    let (format, files) = format::traces(path)?;
    let mut sources: Vec<Source> = Vec::new();
    match format {
        TraceFormat::AzureLlm => {
            for file in &files {
                sources.push(Box::new(azure::read(file)?));
            }
        }
        TraceFormat::Mooncake => {
            for file in &files {
                sources.push(Box::new(mooncake::read(file)?));
            }
        }
        TraceFormat::ServeGen => sources.push(Box::new(servegen::generate(path, &files, &config)?)),
        TraceFormat::ScoreMatrix => {
            let path = path.to_path_buf();
            return Err(TrafficError::WrongKind { path, found: "score matrix", wanted: "trace" });
        }
    }
    let heads = BinaryHeap::with_capacity(sources.len());
    let mut replay = Replay { sources, heads, config, format, first_ns: None, sent: 0, failed: None };
    for source in 0..replay.sources.len() {
        replay.pull(source)?;
    }
    Ok(replay)
}

impl Replay {
    /// The format that the columns gave away.
    #[must_use]
    pub fn format(&self) -> TraceFormat {
        self.format
    }

    fn pull(&mut self, source: usize) -> Result<(), TrafficError> {
        if let Some(traced) = self.sources[source].next() {
            self.heads.push(Head { source, traced: traced? });
        }
        Ok(())
    }

    fn arrival_ms(&mut self, at_ns: i64) -> i64 {
        let first_ns = *self.first_ns.get_or_insert(at_ns);
        let start_ms = self.config.start_ms.unwrap_or(first_ns.div_euclid(1_000_000));
        if self.config.speed == 1.0 && self.config.start_ms.is_none() {
            return at_ns.div_euclid(1_000_000);
        }
        start_ms.saturating_add((at_ns.saturating_sub(first_ns) as f64 / 1e6 / self.config.speed) as i64)
    }
}

impl Iterator for Replay {
    type Item = Result<Timed, TrafficError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.heads.clear();
            return Some(Err(error));
        }
        if self.config.limit.is_some_and(|limit| self.sent >= limit) {
            return None;
        }
        let Head { source, traced } = self.heads.pop()?;
        // The request at hand is good even if the one behind it is not.
        self.failed = self.pull(source).err();
        let at_ms = self.arrival_ms(traced.at_ns);
        let mut request = traced.request;
        request.arrival_ms = EventTimeMs(at_ms);
        self.sent += 1;
        Some(Ok(Timed { at_ms, event: Event::Request(Box::new(request)) }))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.traced.at_ns, other.source).cmp(&(self.traced.at_ns, self.source))
    }
}
