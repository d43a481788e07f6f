//! The sink: buffers, commits, and the argument why every message lands once.
//!
//! **One table.** For a topic-partition the position `weir/<job>/<topic>/<partition>` of a raw table is the next
//! offset: every message below it has been dealt with, none at or above it has. A flush commits all buffered rows of
//! the table and moves the positions in the same Delta commit, compare-and-set against where we left them. If it
//! lands, both moved; if not, neither. Reading starts at the position. So no message is skipped or stored twice, and
//! a writer that lost its partitions is fenced: its expectation is stale, its commit is refused, its buffers go.
//!
//! **Several tables.** One message of an adapted topic yields rows of `requests` and of `feedback`, and Delta has no
//! commit over two tables. So each table holds its own position for the partition; reading starts at the lowest of
//! them, and every table drops rows below its own. A crash between the two commits leaves one table ahead; the rows
//! between the positions are read again, stored in the one that lacks them and dropped by the other.
//!
//! **Dead letters** are one more such table, with one difference: its position moves only with dead letters, so it
//! takes no part in the lowest. They are committed *before* the raw tables, with the position moved to where the raw
//! tables are about to go. If the raw commit then fails, the same messages are read again, and dead letters that are there
//! already are dropped. In the reverse order a crash in between would lose them, since the raw position says "dealt with".
//! Mostly those below the position are the ones that are there. But the configuration, the version or the registry may have
//! changed in between, and messages be judged otherwise: so whoever resumes below the position looks which of them have
//! letters, and those that are bad now and have none get theirs (see `judged`).
//!
//! **The end of a run** that ends when drained is decided here, since it is a statement about the tables. What is
//! assigned to us was read to its end (the poll thread says so, for one assignment). What is not assigned to us may be
//! read by another process of the job, or held by a dead one: it counts when the positions in its tables are past the
//! end it had when the run began. Until then the run goes on; Kafka takes partitions away from the dead.
//!
//! **Outcomes nobody knows** and storage trouble end like fencing, whether a flush meets them or a look at positions:
//! drop the buffers, join the group again, read the positions, go on from there. Whether a commit had landed is then in
//! the table. Before that the sink rests ([`Trouble`]) and takes nothing, so that the poll thread pauses reading.
//!
//! **Offsets that Kafka has lost** are passed over only by a gap that is recorded before anything behind it is read (see
//! `gaps`), whether an operator says so or the configuration.

mod judged;
mod losses;
mod progress;
#[cfg(test)]
mod tests;
mod trouble;
mod writing;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type};
use weir_schemas::Contract;
use weir_store::{Advance, Keyring, Store, StoreError, Table, UtcDay, Written};

use crate::broker::Known;
use crate::dead_letters::{self, DeadLetter};
use crate::decode::{DecodedChunk, Decoders, OfTopic};
use crate::identity::{self, Source};
use crate::lookout::Seen;
use crate::run::IngestSummary;
use crate::sink::progress::{Progress, is_read_elsewhere};
use crate::sink::trouble::Trouble;
use crate::sink::writing::Writing;
use crate::source::{Chunk, Control, Generation, PartitionKey, Watermarks};
use crate::tables::{DEAD_LETTERS, SOURCE_OFFSET, SOURCE_PARTITION};
use crate::topics::KnownTopic;
use crate::{IngestConfig, IngestError, Result, TopicConfig, dead_letters_spec, events, raw_table_spec};

/// How old what Kafka holds may be when positions are compared with it. Past it the partition may have been somebody
/// else's meanwhile, whose positions would look like data loss.
const WATERMARKS_KEEP: Duration = Duration::from_secs(20);
/// How often a drained reader looks whether the others are.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked whether another day has begun, and with it the end of a day's key.
const LOOK_AT_KEYS: Duration = Duration::from_secs(600);
/// Names of unknown fields that are said of a topic.
const NAMES_SAID_MAX: usize = 8;

/// Reads chunks, fills buffers, commits.
pub(crate) struct Sink<F> {
    config: IngestConfig,
    keyring: Keyring,
    control: Arc<Control>,
    on_commit: F,
    decoders: Arc<Decoders>,
    store: Store,
    cluster_id: Option<String>,
    topics: Vec<Topic>,
    topic_names: Vec<String>,
    /// Raw tables, then `dead_letters`.
    tables: Vec<Target>,
    letters: Vec<DeadLetter>,
    partitions: BTreeMap<PartitionKey, Progress>,
    /// What each partition of each topic held when the run began; empty unless the run ends when drained.
    wanted: Vec<Watermarks>,
    /// The assignment whose messages are taken; none from a restart or a revocation until the next one.
    assignment: Option<Generation>,
    /// When to look again whether all is read, while this assignment is drained.
    look_again: Option<Instant>,
    buffered: usize,
    /// Payload bytes of the buffered messages, dead letters included.
    buffered_bytes: u64,
    oldest: Option<Instant>,
    trouble: Trouble,
    /// When to join the group again; nothing is taken before.
    rest_until: Option<Instant>,
    expired_on: Option<UtcDay>,
    /// When to look at the dead letters' keys again.
    expire_at: Instant,
    /// Partitions of which Kafka refused one to be read on, until their positions are read again; else empty.
    refused_among: BTreeSet<PartitionKey>,
    pub(crate) summary: IngestSummary,
}

struct Topic {
    /// What rows, letters and positions call it.
    stored: String,
    /// Indices of the tables that it feeds.
    feeds: Vec<usize>,
    /// Partitions that it had when the first writer came; those above were added later.
    partitions_at_first: i32,
    /// Unknown fields whose names were said.
    unknown_said: Vec<String>,
}

struct Target {
    table: Table,
    /// The rows taken since the last commit, on their way into files.
    writing: Option<Writing>,
}

/// How a flush went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// All that was buffered is durable.
    Done,
    /// Buffers were dropped and the group is joined again.
    Restarted,
}

/// When a topic was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Appeared {
    /// Before the run read anything.
    Before,
    /// While it goes on.
    Meanwhile,
}

/// What a run knows of Kafka before it reads.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) known: Known,
    /// What a run that ends when drained has to read.
    pub(crate) wanted: Vec<Watermarks>,
}

impl<F: FnMut(&str, i64, u64) + Send> Sink<F> {
    /// Opens the tables, after checking that they are this job's: a job that is refused leaves nothing behind.
    pub(crate) async fn open(
        store: Store,
        keyring: Keyring,
        config: IngestConfig,
        found: Found,
        control: Arc<Control>,
        on_commit: F,
    ) -> Result<Self> {
        let Found { known: Known { cluster_id, topics, aside }, wanted } = found;
        let decoders = Arc::new(Decoders::new(&config, &keyring)?);
        let trouble = Trouble::new(config.storage_patience);
        let mut sink = Self {
            decoders,
            config,
            keyring,
            control,
            on_commit,
            store,
            cluster_id,
            topics: Vec::new(),
            topic_names: Vec::new(),
            tables: Vec::new(),
            letters: Vec::new(),
            partitions: BTreeMap::new(),
            wanted,
            assignment: None,
            look_again: None,
            buffered: 0,
            buffered_bytes: 0,
            oldest: None,
            trouble,
            rest_until: None,
            expired_on: None,
            expire_at: Instant::now(),
            refused_among: BTreeSet::new(),
            summary: IngestSummary::default(),
        };
        for (topic, why) in aside {
            sink.control.aside.takes(&sink.config, &topic, &why);
        }
        sink.take_on(&topics, Appeared::Before).await?;
        let wanted = std::mem::take(&mut sink.wanted);
        sink.wanted = sink.of_topics_taken(&topics, wanted);
        sink.expire_keys()?;
        Ok(sink)
    }

    /// The lookout has seen topics come or go.
    ///
    /// # Errors
    /// As [`Sink::open`]; storage in trouble is none, since what is not taken on is seen again.
    pub(crate) async fn see(&mut self, seen: Seen) -> Result<()> {
        match seen {
            Seen::Came(topics) => match self.take_on(&topics, Appeared::Meanwhile).await {
                Ok(()) => {
                    let read = self.control.topics.now();
                    let is_read = |topic: &&KnownTopic| read.is_read(&topic.config.topic);
                    for KnownTopic { config, partitions, .. } in topics.iter().filter(is_read) {
                        events::topic_came(&self.config.job, &config.topic, *partitions);
                    }
                }
                Err(IngestError::Store(error)) if error.retry_helps() => {
                    events::topics_not_taken_on(&self.config.job, &error);
                }
                Err(error) => return Err(error),
            },
            Seen::Went(topics) => {
                for topic in topics {
                    events::topic_went(&self.config.job, &self.topic_names[topic]);
                    // Nobody can read what was wanted of it any more.
                    self.wanted.retain(|had| had.partition.0 != topic);
                    self.control.topics.set_gone(topic);
                }
                self.control.subscribe_again();
            }
            Seen::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// Opens the tables of the topics, after checking that they are this job's, and has the topics read.
    async fn take_on(&mut self, topics: &[KnownTopic], appeared: Appeared) -> Result<()> {
        let mut sources = Vec::with_capacity(topics.len());
        let mut taken = Vec::with_capacity(topics.len());
        for topic in topics {
            let source = self.source(topic);
            match self.check(topic, &source).await {
                Ok(()) => {
                    sources.push(source);
                    taken.push(topic);
                }
                Err(error) if self.control.aside.takes(&self.config, &topic.config.topic, &error) => {}
                Err(error) => return Err(error),
            }
        }
        let topics = taken;
        // "Latest" is about what was there when the job came. What a pattern matches and the job has not met before was made
        // since, so it is read from its first message.
        let patterns_are_old = match appeared {
            Appeared::Meanwhile => true,
            Appeared::Before if self.config.patterns.is_empty() => false,
            Appeared::Before => identity::has_run(&self.store, &self.config.job).await?,
        };
        for source in sources.iter_mut().filter(|source| patterns_are_old && !self.config.is_named(&source.topic)) {
            source.partitions_at_first = Some(0);
        }
        if self.tables.is_empty() {
            self.tables.push(Target::new(self.store.table(&dead_letters_spec()).await?));
        }
        for (topic, source) in topics.into_iter().zip(&sources) {
            let mut feeds = Vec::new();
            let mut partitions_at_first = i32::MAX;
            let mut made_again = 0;
            for contract in topic.config.format.contracts() {
                feeds.push(self.open_raw(contract).await?);
                let claimed = identity::claim(&self.store, contract.name, source).await?;
                partitions_at_first = partitions_at_first.min(claimed.partitions_at_first.unwrap_or(i32::MAX));
                made_again = made_again.max(claimed.made_again);
            }
            let stored = identity::stored_topic(&topic.config.topic, made_again);
            if !self.topic_names.contains(&topic.config.topic) {
                self.decoders.add(TopicConfig { topic: stored.clone(), ..topic.config.clone() });
                self.topics.push(Topic { stored, feeds, partitions_at_first, unknown_said: Vec::new() });
                self.topic_names.push(topic.config.topic.clone());
            }
            self.control.aside.release(&self.config, &topic.config.topic);
            self.control.topics.add(topic);
            self.control.subscribe_again();
        }
        Ok(())
    }

    /// Are the topic's tables this job's, as far as this topic goes?
    async fn check(&mut self, topic: &KnownTopic, source: &Source) -> Result<()> {
        for contract in topic.config.format.contracts() {
            identity::check(&self.store, contract.name, source).await?;
        }
        let read = self.control.topics.now();
        match read.index(&topic.config.topic).map(|index| &read.list[index].id) {
            // Given up and made again while this run has the first one's positions in hand: the next run reads it.
            Some(id) if id.is_some() && topic.id.is_some() && *id != topic.id => {
                Err(IngestError::TopicRecreated { topic: topic.config.topic.clone() })
            }
            _ => Ok(()),
        }
    }

    /// What was wanted of topics, by their places among those that are read.
    fn of_topics_taken(&self, topics: &[KnownTopic], wanted: Vec<Watermarks>) -> Vec<Watermarks> {
        let place = |topic: usize| self.topic_names.iter().position(|name| *name == topics[topic].config.topic);
        let placed = wanted.into_iter().filter_map(|had| {
            let (topic, partition) = had.partition;
            Some(Watermarks { partition: (place(topic)?, partition), ..had })
        });
        placed.collect()
    }

    /// The index of the raw table of that contract, which goes before that of the dead letters.
    async fn open_raw(&mut self, contract: &'static Contract) -> Result<usize> {
        let open = self.tables.iter().position(|target| target.table.name() == contract.name);
        if let Some(index) = open {
            return Ok(index);
        }
        let index = self.tables.len() - 1;
        self.tables.insert(index, Target::new(self.store.table(&raw_table_spec(contract)).await?));
        Ok(index)
    }

    /// What the notes of a topic must say.
    fn source(&self, topic: &KnownTopic) -> Source {
        Source {
            job: self.config.job.clone(),
            cluster_id: self.cluster_id.clone(),
            topic: topic.config.topic.clone(),
            topic_id: topic.id.clone(),
            partitions_at_first: Some(topic.partitions),
            made_again: 0,
        }
    }

    /// The name of a partition's positions.
    fn app_id(&self, (topic, partition): PartitionKey) -> String {
        self.config.app_id(&self.topics[topic].stored, partition)
    }

    /// The decoders of the topics, for whoever decodes beside us.
    pub(crate) fn decoders(&self) -> Arc<Decoders> {
        self.decoders.clone()
    }

    /// Reads the tables' positions and says where each partition starts; `None` when what is known of them is too old, or
    /// storage is in trouble and the group will be joined again.
    pub(crate) async fn assign(
        &mut self,
        generation: Generation,
        assigned: &[Watermarks],
        as_of: Instant,
    ) -> Result<Option<Vec<i64>>> {
        if as_of.elapsed() > WATERMARKS_KEEP {
            // What was held before goes on, under the number that news of it has now.
            self.assignment = self.assignment.map(|_| generation);
            return Ok(None);
        }
        match self.resume(assigned).await {
            Ok(_) if self.kafka_contradicts_itself(assigned) => {
                Err(IngestError::OffsetRefused { job: self.config.job.clone() })
            }
            Ok(starts) => {
                self.refused_among.clear();
                (self.assignment, self.look_again) = (Some(generation), None);
                Ok(Some(starts))
            }
            Err(error) => self.survive(error).map(|()| None),
        }
    }

    async fn resume(&mut self, assigned: &[Watermarks]) -> Result<Vec<i64>> {
        self.refresh_settled().await?;
        self.pass_over_losses(assigned).await?;
        let letters = self.tables.len() - 1;
        let mut starts = Vec::with_capacity(assigned.len());
        for watermarks in assigned {
            let (topic, partition) = watermarks.partition;
            let positions = self.positions(watermarks.partition).await?;
            let app_id = self.app_id(watermarks.partition);
            let dead = self.tables[letters].table.position(&app_id).await?;
            let later = partition >= self.topics[topic].partitions_at_first;
            let mut progress = Progress::resume(positions, dead, watermarks, self.config.start, later)
                .map_err(|position| self.offset_gone(watermarks, position))?;
            if let Some(offsets) = progress.read_again() {
                let table = &self.tables[letters].table;
                progress.judged_before(
                    judged::Before::of(table, &app_id, &self.topics[topic].stored, partition, offsets).await?,
                );
            }
            starts.push(progress.next());
            self.partitions.insert(watermarks.partition, progress);
        }
        Ok(starts)
    }

    async fn refresh(&mut self) -> Result<()> {
        for target in &mut self.tables {
            target.table.refresh().await?;
        }
        Ok(())
    }

    /// The positions of a partition in the raw tables that it feeds.
    async fn positions(&mut self, partition: PartitionKey) -> Result<Vec<Option<i64>>> {
        let app_id = self.app_id(partition);
        let mut positions = Vec::new();
        for table in &self.topics[partition.0].feeds {
            positions.push(self.tables[*table].table.position(&app_id).await?);
        }
        Ok(positions)
    }

    /// Nothing lies between the last message of these partitions and these ends: the next flush moves the positions there.
    pub(crate) fn see_ends(&mut self, generation: Generation, ends: &[(PartitionKey, i64)]) {
        if self.assignment != Some(generation) {
            return;
        }
        for (partition, end) in ends {
            if self.partitions.get_mut(partition).is_some_and(|progress| progress.see_end(*end)) {
                self.oldest.get_or_insert_with(Instant::now);
            }
        }
    }

    /// An assignment was read to its end: is that the end of the run? News of another assignment than the one at hand
    /// says nothing: the rows that it speaks of may have been dropped since.
    pub(crate) async fn drained(&mut self, generation: Generation) -> Result<bool> {
        if self.assignment != Some(generation) {
            return Ok(false);
        }
        self.is_all_read().await
    }

    /// Commits what is buffered; true when with that every partition is read to the end it had when the run began.
    /// Only to be asked of a drained assignment. After a restart it reads again, and is drained again later.
    pub(crate) async fn is_all_read(&mut self) -> Result<bool> {
        self.look_again = None;
        if self.flush().await? == Flushed::Restarted {
            return Ok(false);
        }
        match self.is_read_by_others().await {
            Err(error) => self.survive(error).map(|()| false),
            all_read => all_read,
        }
    }

    async fn is_read_by_others(&mut self) -> Result<bool> {
        // Of a topic that went, or is set aside, nobody reads what was wanted.
        let read = self.control.topics.now();
        let is_gone = |had: &Watermarks| read.list.get(had.partition.0).is_some_and(|topic| topic.is_gone);
        let elsewhere = |had: &&Watermarks| !self.partitions.contains_key(&had.partition) && !is_gone(had);
        let elsewhere: Vec<Watermarks> = self.wanted.iter().filter(elsewhere).copied().collect();
        if !elsewhere.is_empty() {
            self.refresh().await?;
        }
        for had in elsewhere {
            if !is_read_elsewhere(&had, &self.positions(had.partition).await?) {
                events::waiting(&self.config.job, &self.topic_names[had.partition.0], had.partition.1, had.high);
                self.look_again = Some(Instant::now() + LOOK_AGAIN);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// When to ask [`Sink::is_all_read`] again, while the assignment is drained and others are not.
    pub(crate) fn look_again_at(&self) -> Option<Instant> {
        self.look_again
    }

    /// Is there a choice of "latest" that no table knows of yet?
    pub(crate) fn must_record_start(&self) -> bool {
        self.partitions.values().any(Progress::must_record_start)
    }

    /// Partitions that are gone: commits what is buffered, then forgets them. Others of the assignment go on; that their
    /// rows are committed early with those costs nothing, for a file holds rows of all.
    pub(crate) async fn revoke(&mut self, revoked: &[PartitionKey]) -> Result<()> {
        if self.partitions.keys().any(|held| revoked.contains(held)) {
            self.flush().await?;
        }
        self.partitions.retain(|partition, _| !revoked.contains(partition));
        if self.partitions.is_empty() {
            (self.assignment, self.look_again) = (None, None);
        }
        Ok(())
    }

    /// Takes a chunk into the buffers. Messages of partitions that are not held, or already seen, are passed over.
    pub(crate) async fn take(&mut self, decoded: DecodedChunk) -> Result<()> {
        let DecodedChunk { mut chunk, mut topics } = decoded;
        let mut wanted = Vec::with_capacity(chunk.entries.len());
        wanted.extend(
            chunk.entries.iter().map(|entry| {
                self.partitions.get_mut(&entry.partition).is_some_and(|progress| progress.see(entry.offset))
            }),
        );
        if wanted.contains(&false) {
            // Rare: what is left over from before a restart.
            DecodedChunk { chunk, topics } = self.decoders.decode_aside(chunk, Some(wanted)).end().await?;
        }
        for of_topic in topics {
            self.take_of(&chunk, of_topic).await?;
        }
        self.control.reuse(chunk);
        Ok(())
    }

    async fn take_of(&mut self, chunk: &Chunk, of_topic: OfTopic) -> Result<()> {
        let OfTopic { topic: index, entries, decoded } = of_topic;
        self.oldest.get_or_insert_with(Instant::now);
        self.buffered += entries.len();
        let messages = || entries.iter().map(|entry| chunk.incoming(*entry));
        let bytes = messages().filter_map(|message| message.payload).map(|payload| payload.len() as u64).sum();
        self.buffered_bytes += bytes;
        events::Decoded {
            job: &self.config.job,
            topic: &self.topic_names[index],
            messages: entries.len() as u64,
            bytes,
            tombstones: decoded.tombstones,
            nulled: &decoded.nulled,
            headers_left_out: decoded.headers_left_out,
        }
        .emit();
        self.say_unknown(index, decoded.unknown_fields, decoded.unknown_names);
        self.summary.messages += entries.len() as u64;
        self.summary.bytes += bytes;
        self.summary.tombstones += decoded.tombstones;
        for (column, values) in &decoded.nulled {
            *self.summary.nulled_values.entry(column.clone()).or_default() += values;
        }
        for (contract, batch) in decoded.batches {
            let is_its = |feed: &usize| self.tables[*feed].table.name() == contract.name;
            let Some(feed) = self.topics[index].feeds.iter().position(is_its) else { continue };
            let batch = match self.already_in(index, feed) {
                below if below.is_empty() => batch,
                below => without_rows_below(&batch, &below)?,
            };
            if batch.num_rows() > 0 {
                let Target { table, writing } = &mut self.tables[self.topics[index].feeds[feed]];
                writing.get_or_insert_with(|| Writing::start(table)).push(batch).await;
            }
        }
        self.letters.extend(decoded.rejected.into_iter().map(|rejected| {
            let message = chunk.incoming(entries[rejected.message]);
            DeadLetter {
                topic: index,
                partition: message.partition,
                offset: message.offset,
                reason: rejected.reason,
                payload: message.payload.unwrap_or_default().to_vec(),
                headers: message.headers.packed().to_vec(),
            }
        }));
        Ok(())
    }

    fn say_unknown(&mut self, topic: usize, count: u64, mut names: Vec<String>) {
        if count > 0 {
            let said = &mut self.topics[topic].unknown_said;
            names.retain(|name| !said.contains(name));
            names.truncate(NAMES_SAID_MAX.saturating_sub(said.len()));
            let (job, topic) = (&self.config.job, &self.topic_names[topic]);
            events::UnknownFields { job, topic, count, names: &names }.emit();
            said.append(&mut names);
        }
    }

    /// Have enough messages, or enough bytes, been buffered?
    pub(crate) fn is_full(&self) -> bool {
        self.buffered >= self.config.flush_rows || self.buffered_bytes >= self.config.flush_bytes as u64
    }

    /// When the oldest buffered message has waited long enough.
    pub(crate) fn flush_at(&self) -> Option<Instant> {
        self.oldest.map(|oldest| oldest + self.config.flush_interval)
    }

    /// Makes everything that was taken durable: dead letters, then each raw table.
    pub(crate) async fn flush(&mut self) -> Result<Flushed> {
        let commits_before = self.summary.commits;
        match self.flush_all().await {
            Ok(()) => {
                // All of it, in every table. Where there was nothing to commit, nothing shows that storage takes it.
                if self.summary.commits > commits_before {
                    self.trouble.is_over();
                }
                self.forget_buffers();
                self.expire_keys()?;
                Ok(Flushed::Done)
            }
            Err(error) => self.survive(error).map(|()| Flushed::Restarted),
        }
    }

    /// A restart, where that can help.
    fn survive(&mut self, error: IngestError) -> Result<()> {
        match error {
            IngestError::Store(error) if error.retry_helps() => self.restart(error),
            error => Err(error),
        }
    }

    /// Drops what is not durable, and rests before the poll thread joins the group anew.
    fn restart(&mut self, why: StoreError) -> Result<()> {
        self.summary.restarts += 1;
        let is_fenced = matches!(why, StoreError::Fenced { .. });
        let now = Instant::now();
        let rest = if is_fenced { self.trouble.of_fencing(now) } else { self.trouble.of_storage(now) };
        events::Restarted { job: &self.config.job, why: &why, rest }.emit();
        let Some(rest) = rest else {
            let (job, times) = (self.config.job.clone(), self.trouble.fenced());
            return Err(if is_fenced { IngestError::FencedOut { job, times } } else { why.into() });
        };
        self.forget_assignment();
        self.rest_until = Some(now + rest);
        Ok(())
    }

    /// Until when nothing is to be taken, because of trouble; then [`Sink::go_on`] is due.
    pub(crate) fn rest_until(&self) -> Option<Instant> {
        self.rest_until
    }

    /// The rest is over: the poll thread joins the group anew, and positions are read again.
    pub(crate) fn go_on(&mut self) {
        self.rest_until = None;
        self.control.rejoin();
    }

    /// As a restart, when Kafka no longer holds what comes next: reading positions again names the partition, or shows
    /// that Kafka contradicts itself.
    pub(crate) fn read_positions_again(&mut self) {
        self.refused_among = self.partitions.keys().copied().collect();
        self.forget_assignment();
        self.control.rejoin();
    }

    /// Did Kafka refuse one of these partitions, and says of all now that it holds the positions? The client does not say
    /// which one was refused. If only some came back, it may be one of the others, whose topic was deleted or made again, or
    /// which another member reads now; if it was none of those, it is refused once more.
    fn kafka_contradicts_itself(&self, assigned: &[Watermarks]) -> bool {
        let is_back = |suspect: &PartitionKey| assigned.iter().any(|watermarks| watermarks.partition == *suspect);
        !self.refused_among.is_empty() && self.refused_among.iter().all(is_back)
    }

    /// Waits for maintenance that is under way.
    pub(crate) async fn finish(&mut self) {
        for target in &mut self.tables {
            target.table.maintained().await;
        }
    }

    async fn flush_all(&mut self) -> Result<()> {
        self.flush_letters().await?;
        for index in 0..self.tables.len() - 1 {
            self.flush_table(index).await?;
        }
        for (partition, progress) in &mut self.partitions {
            if progress.flushed() {
                self.control.show_committed(*partition, progress.next());
                events::progressed(&self.config.job, &self.topic_names[partition.0], partition.1);
            }
        }
        Ok(())
    }

    async fn flush_letters(&mut self) -> Result<()> {
        let letters: Vec<&DeadLetter> = self.letters.iter().filter(is_new_in(&self.partitions)).collect();
        if letters.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = self.topics.iter().map(|topic| topic.stored.clone()).collect();
        let batch = dead_letters::batch(&letters, &names, &self.keyring)?;
        // Is one of the partition's letters below its position?
        let mut below: BTreeMap<PartitionKey, bool> = BTreeMap::new();
        for letter in &letters {
            let key = (letter.topic, letter.partition);
            *below.entry(key).or_default() |= self.partitions[&key].is_below_dead(letter.offset);
        }
        let mut advances: Vec<Advance> = Vec::new();
        for (key, below) in &below {
            let app_id = self.app_id(*key);
            let progress = &self.partitions[key];
            advances.extend(progress.letters_added(*below).map(|added| added.advance(&app_id)));
            let moved = progress.letters_step();
            advances.extend(moved.map(|(expected, next)| Advance { app_id, expected, next }));
        }
        let target = self.tables.len() - 1;
        let writing = Writing::start(&self.tables[target].table);
        writing.push(batch).await;
        self.commit(target, writing.end().await?, advances).await?;
        let mut by_reason: BTreeMap<(usize, &'static str), events::DeadLettered<'_>> = BTreeMap::new();
        for letter in self.letters.iter().filter(is_new_in(&self.partitions)) {
            let class = letter.reason.class();
            let DeadLetter { topic, partition, offset, .. } = *letter;
            let (job, topic_name) = (&self.config.job, &self.topic_names[topic]);
            let first = events::DeadLettered { job, topic: topic_name, class, count: 0, partition, offset };
            by_reason.entry((topic, class)).or_insert(first).count += 1;
        }
        for event in by_reason.values() {
            event.emit();
            self.summary.dead_letters += event.count;
        }
        for (key, below) in below {
            if let Some(progress) = self.partitions.get_mut(&key) {
                progress.dead_letters_committed(below);
            }
        }
        Ok(())
    }

    /// Partitions of which a table holds rows beyond where reading went on, each with the table's position: another table
    /// was behind, and what this one has comes again.
    fn already_in(&self, topic: usize, feed: usize) -> HashMap<i32, i64> {
        let of_topic = self.partitions.range((topic, i32::MIN)..=(topic, i32::MAX));
        of_topic.filter_map(|((_, partition), progress)| Some((*partition, progress.already_in(feed)?))).collect()
    }

    async fn flush_table(&mut self, index: usize) -> Result<()> {
        let mut advances = Vec::new();
        for ((topic, partition), progress) in &self.partitions {
            let Some(feed) = self.topics[*topic].feeds.iter().position(|table| *table == index) else { continue };
            if let Some((expected, next)) = progress.step(feed) {
                advances.push(Advance { app_id: self.app_id((*topic, *partition)), expected, next });
            }
        }
        let written = match self.tables[index].writing.take() {
            Some(writing) => writing.end().await?,
            None if advances.is_empty() => return Ok(()),
            None => Written::default(),
        };
        self.commit(index, written, advances).await?;
        for ((topic, _), progress) in &mut self.partitions {
            if let Some(feed) = self.topics[*topic].feeds.iter().position(|table| *table == index) {
                progress.table_committed(feed);
            }
        }
        Ok(())
    }

    async fn commit(&mut self, index: usize, written: Written, advances: Vec<Advance>) -> Result<()> {
        let target = &mut self.tables[index];
        let began = Instant::now();
        let committed = target.table.commit_written(written, advances).await?;
        let (table, took) = (target.table.name(), began.elapsed());
        events::Committed { job: &self.config.job, table, version: committed.version, rows: committed.rows, took }
            .emit();
        self.summary.commits += 1;
        if table != DEAD_LETTERS {
            *self.summary.rows.entry(table.to_owned()).or_default() += committed.rows;
        }
        (self.on_commit)(table, committed.version, committed.rows);
        Ok(())
    }

    /// Whatever still comes of the assignment at hand is not ours to take, until the next one.
    fn forget_assignment(&mut self) {
        self.forget_buffers();
        self.partitions.clear();
        (self.assignment, self.look_again) = (None, None);
    }

    fn forget_buffers(&mut self) {
        self.letters.clear();
        for target in &mut self.tables {
            target.writing = None;
        }
        (self.buffered, self.buffered_bytes) = (0, 0);
        self.oldest = None;
    }

    /// When to call [`Sink::expire_keys`], also where nothing is read and nothing flushed.
    pub(crate) fn expire_at(&self) -> Instant {
        self.expire_at
    }

    /// Once a day: the bytes of dead letters that are old enough become unreadable.
    pub(crate) fn expire_keys(&mut self) -> Result<()> {
        self.expire_at = Instant::now() + LOOK_AT_KEYS;
        let today = UtcDay::today();
        if self.expired_on != Some(today) {
            let expired = self.keyring.expire(today.minus_days(self.config.dead_letter_days))?;
            self.expired_on = Some(today);
            if expired > 0 {
                events::keys_expired(expired);
            }
        }
        Ok(())
    }

    fn offset_gone(&self, watermarks: &Watermarks, position: i64) -> IngestError {
        let Watermarks { partition: (topic, partition), low, high } = *watermarks;
        IngestError::OffsetGone { topic: self.topic_names[topic].clone(), partition, position, low, high }
    }
}

impl Target {
    fn new(table: Table) -> Self {
        Self { table, writing: None }
    }
}

fn is_new_in(partitions: &BTreeMap<PartitionKey, Progress>) -> impl Fn(&&DeadLetter) -> bool {
    |letter| {
        let progress = partitions.get(&(letter.topic, letter.partition));
        progress.is_some_and(|progress| progress.lacks_letter(letter.offset))
    }
}

/// The rows of one topic whose offset is not below the table's position of their partition.
fn without_rows_below(batch: &RecordBatch, below: &HashMap<i32, i64>) -> Result<RecordBatch> {
    let bad = |why: String| IngestError::Batch { table: "raw", why };
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| bad(format!("it has no column {name}")));
    let partitions = column(SOURCE_PARTITION)?.as_primitive::<Int32Type>().values();
    let offsets = column(SOURCE_OFFSET)?.as_primitive::<Int64Type>().values();
    let keep = |(partition, offset): (&i32, &i64)| below.get(partition).is_none_or(|position| offset >= position);
    let keep: BooleanArray = partitions.iter().zip(offsets).map(|row| Some(keep(row))).collect();
    filter_record_batch(batch, &keep).map_err(|error| bad(error.to_string()))
}
