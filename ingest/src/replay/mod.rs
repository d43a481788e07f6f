//! Dead letters, decoded again: after a fix, the rows of what can be read now land in the raw tables, once.
//!
//! **An epoch** is some pending letters and what became of them. It happens in three steps:
//!
//! 1. *Record.* The exact rows, one Parquet object a raw table, are written below `replays/<job>/<epoch>-<nonce>/`.
//! 2. *Claim.* One commit to `dead_letter_replays` says of each letter what became of it and names the record, and moves
//!    the position `weir/<job>/replay` there from `n - 1` to `n`, compare-and-set. From here on the letters are dealt with.
//! 3. *Land.* Each raw table that gets rows takes them from the record in one commit that moves the same position there
//!    to `n`, compare-and-set. Then the record goes.
//!
//! **Why once.** Whoever starts, and whoever wants to claim epoch `n + 1`, first looks at the newest claim and lands what
//! is missing of it. So at most one epoch is unfinished, it is the newest, and a raw table whose position is below it has
//! not got its rows, while one whose position has reached it has. Two processes may land the same epoch: the position
//! lets one through. A process that slept since claiming `n` finds every table of `n` at `n` or later, because `n + 1` was
//! claimed only after they were, and adds nothing. What is pending is read at the version whose position the claim
//! expects, so a letter is claimed as stored by one epoch only.
//!
//! **Why exact.** An interrupted epoch is finished from its record, never by decoding again: the configuration, the
//! version or the keys may have changed in between. A record is one claim's own (its name holds a nonce), written whole
//! before the claim, and removed only when its epoch has been passed by the position: then no claim can name it any more.
//! The rows in it are what the raw table is about to hold, pseudonyms and dropped text included, so it is stored as that
//! is; sealing it with a key that expires would turn an interrupted replay into a loss.
//!
//! **Beside ingest.** Ingest's positions are named `weir/<job>/<topic>/<partition>`, this one `weir/<job>/replay`: no topic
//! is called by two names, so they never meet. But a letter is committed *before* the raw tables pass its offset (see
//! `sink`), and ingest that dies in between reads the message again, perhaps with the mended configuration. So a letter is
//! taken only when ingest's positions in all tables that its topic feeds lie past it, and for each of these tables, as
//! of that version, the rows of a message that it holds already are left out (see `stored`). Once past an offset ingest
//! adds no row for it, so that stays true.
//!
//! **The message's Kafka timestamp** is not kept with a letter. The moment at which it was seen stands for it, which is
//! no earlier: a letter that was turned down for lying too far in the future of its timestamp keeps that verdict.

mod epoch;
mod ledger;
mod letters;
mod stored;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::{Handle, RuntimeFlavor};
use weir_decode::Headers;
use weir_store::{Keyring, Store, StoreError, Table, UtcDay};

use crate::decode::Decoders;
use crate::replay::epoch::{Epoch, Verdict};
use crate::replay::ledger::{Ledger, Outcome};
use crate::replay::letters::{Letter, Opened};
use crate::tables::{DEAD_LETTER_REPLAYS, DEAD_LETTERS};
use crate::{Decoder, Incoming, IngestConfig, IngestError, Reason, Result, events, identity};

pub(crate) use epoch::escaped;
pub use letters::{DeadLetters, FoundLetter, LetterFilter, LetterGroup, LetterId, LetterPayload, LetterReplay};

/// Tries of one epoch, each after other replays got in first or the store was in trouble.
const ATTEMPTS_MAX: u32 = 12;

/// What happens to the letters that can be read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayMode {
    /// Their rows are stored.
    Store,
    /// Nothing is written: the report says what would be.
    DryRun,
}

/// What a replay did, or, dry, would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    /// Letters whose rows are stored now.
    pub stored: u64,
    /// The rows, per raw table.
    pub rows: BTreeMap<String, u64>,
    /// Letters whose message ingest itself had stored in the meantime: nothing was added.
    pub already_stored: u64,
    /// Letters that cannot be read with this configuration either.
    pub rejected: Vec<RejectedLetters>,
    /// Letters whose bytes have expired: nobody can read them.
    pub expired: u64,
    /// Letters whose bytes do not open with the key of their day: changed, or sealed with another keys folder.
    pub foreign: u64,
    /// Letters that ingest has not passed yet, with the tables that the topic's format feeds now.
    pub unsettled: u64,
    /// Letters of topics that the configuration does not name.
    pub other_topics: u64,
    /// Rows of an interrupted replay that were landed first (dry: 0, see `unfinished`).
    pub finished_rows: u64,
    /// Is there an interrupted replay? Only a dry run leaves it so.
    pub unfinished: bool,
    /// Did the run leave everything as it was?
    pub dry_run: bool,
}

/// Letters that were turned down again, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectedLetters {
    /// Their topic.
    pub topic: String,
    /// Class of the reason that holds now.
    pub reason_class: &'static str,
    /// The reason that holds now; never quotes the message.
    pub reason: String,
    /// How many.
    pub letters: u64,
}

/// Decodes the pending dead letters that pass the filter with the configuration of their topics, and stores what can be
/// read now: once, whoever else does the same, and whenever the process dies. `on_commit` is told of every durable
/// commit: table, version, rows. Kafka is not asked.
///
/// # Errors
/// [`IngestError::SharedTopic`] when several jobs read a topic, [`IngestError::ReplayRecordGone`] when an interrupted
/// replay cannot be finished, otherwise see [`IngestError`]. What was committed stays; a later replay goes on from there.
pub async fn replay(
    store: &Store,
    keyring: &Keyring,
    config: &IngestConfig,
    filter: &LetterFilter,
    mode: ReplayMode,
    on_commit: impl FnMut(&str, i64, u64) + Send,
) -> Result<ReplayReport> {
    config.check()?;
    let topics = Topics { decoders: Decoders::new(config, keyring)?, known: BTreeMap::new(), next: 0 };
    let report = ReplayReport { dry_run: mode == ReplayMode::DryRun, ..ReplayReport::default() };
    let Some(letters) = store.existing(DEAD_LETTERS).await? else { return Ok(report) };
    let ledger = match mode {
        ReplayMode::Store => Ledger::open(store, &config.job).await?,
        ReplayMode::DryRun => Ledger::existing(store, &config.job).await?,
    };
    let rejected = BTreeMap::new();
    let mut replay = Replay { store, config, topics, ledger, mode, on_commit, report, rejected };
    replay.finish_interrupted().await?;
    replay.go_through(&letters, keyring, filter).await?;
    let Replay { mut report, rejected, .. } = replay;
    report.rejected = rejected
        .into_iter()
        .map(|((topic, reason_class, reason), letters)| RejectedLetters { topic, reason_class, reason, letters })
        .collect();
    events::replayed(&config.job, &report);
    Ok(report)
}

struct Replay<'a, F> {
    store: &'a Store,
    config: &'a IngestConfig,
    topics: Topics,
    ledger: Ledger,
    mode: ReplayMode,
    on_commit: F,
    report: ReplayReport,
    rejected: BTreeMap<(String, &'static str, String), u64>,
}

/// Topics of which letters were found.
struct Topics {
    decoders: Decoders,
    /// Nothing for those that the configuration does not have.
    known: BTreeMap<String, Option<Topic>>,
    next: usize,
}

impl Topics {
    /// Is it one that the configuration has, by name or by pattern?
    async fn meet(&mut self, store: &Store, config: &IngestConfig, name: &str) -> Result<bool> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.is_some());
        }
        let topic = match config.topic(name) {
            Some(topic) => {
                identity::check_sole(store, identity::kafka_topic(name), &config.job).await?;
                let contracts = topic.format.contracts();
                self.decoders.add(topic);
                self.next += 1;
                Some(Topic { contracts, decoder: self.decoders.take(self.next - 1) })
            }
            None => None,
        };
        let is_known = topic.is_some();
        self.known.insert(name.to_owned(), topic);
        Ok(is_known)
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.known.get_mut(name)?.as_mut()
    }
}

struct Topic {
    contracts: Vec<&'static weir_schemas::Contract>,
    decoder: Decoder,
}

impl<F: FnMut(&str, i64, u64) + Send> Replay<'_, F> {
    /// Lands what is missing of the newest epoch that anybody claimed.
    async fn finish_interrupted(&mut self) -> Result<()> {
        let mut attempt = Attempts::default();
        loop {
            match self.finish_newest().await {
                Ok(rows) => {
                    self.report.finished_rows += rows;
                    return Ok(());
                }
                Err(error) => attempt.after(error).await?,
            }
        }
    }

    /// The rows that it landed. Dry, it only looks.
    async fn finish_newest(&mut self) -> Result<u64> {
        self.ledger.refresh().await?;
        let Some(claimed) = self.ledger.newest().await? else { return Ok(0) };
        if self.mode == ReplayMode::DryRun {
            self.report.unfinished = epoch::is_unfinished(self.store, &self.ledger, &claimed).await?;
            return Ok(0);
        }
        let rows = epoch::land(self.store, &self.ledger, &claimed, &mut self.on_commit).await?;
        epoch::clear_records(self.store, &self.ledger, claimed.epoch).await?;
        Ok(rows)
    }

    /// Gathers pending letters into chunks of the size that ingest flushes, and replays each.
    async fn go_through(&mut self, table: &Table, keyring: &Keyring, filter: &LetterFilter) -> Result<()> {
        // Those that were dealt with when this run began need not be opened. What others do meanwhile is seen later.
        let known = self.ledger.outcomes().await?;
        let oldest_kept = UtcDay::today().minus_days(self.config.dead_letter_days);
        let mut gathered: HashSet<LetterId> = HashSet::new();
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        for file in table.live_files().await?.iter().filter(|file| filter.may_be_in(file)) {
            for batch in table.live_rows(file, &letters::ALL_COLUMNS).await? {
                let batch = batch?;
                let rows = letters::Rows::of(&batch)?;
                for row in (0..rows.len()).filter(|row| filter.takes(&rows, *row)) {
                    let id = rows.id(row);
                    if known.get(&id).is_some_and(|past| past.outcome.is_final()) {
                        continue;
                    }
                    if !self.topics.meet(self.store, self.config, &id.topic).await? {
                        self.report.other_topics += 1;
                        continue;
                    }
                    match rows.open(row, keyring, oldest_kept)? {
                        Opened::Expired => self.report.expired += 1,
                        Opened::Foreign => self.report.foreign += 1,
                        // The table holds a message once; were it there twice, it would still be replayed once.
                        Opened::Message(message) if gathered.insert(id.clone()) => {
                            bytes += message.payload.len();
                            chunk.push(rows.letter(row, id, message));
                        }
                        Opened::Message(_) => {}
                    }
                    if chunk.len() >= self.config.flush_rows || bytes >= self.config.flush_bytes {
                        self.replay_chunk(std::mem::take(&mut chunk)).await?;
                        bytes = 0;
                    }
                }
            }
        }
        self.replay_chunk(chunk).await
    }

    /// One epoch, tried until it is claimed and landed, or until others have left nothing to do.
    async fn replay_chunk(&mut self, chunk: Vec<Letter>) -> Result<()> {
        if chunk.is_empty() {
            return Ok(());
        }
        if self.mode == ReplayMode::DryRun {
            let (_, counted) = self.prepare(&chunk).await?;
            self.count(counted);
            return Ok(());
        }
        let mut attempt = Attempts::default();
        let mut unsure = None;
        loop {
            match self.try_epoch(&chunk, &mut unsure).await {
                Ok(Some(counted)) => {
                    self.count(counted);
                    break;
                }
                Ok(None) => {}
                Err(error) => attempt.after(error).await?,
            }
        }
        // What was claimed is counted with the claim, whoever lands it.
        let mut attempt = Attempts::default();
        while let Err(error) = self.finish_newest().await {
            attempt.after(error).await?;
        }
        Ok(())
    }

    /// Claims an epoch for the chunk, or finds that `unsure`, the claim of an earlier try whose outcome is unknown, has
    /// landed; what it did. `None` when others were first: look again.
    async fn try_epoch(&mut self, chunk: &[Letter], unsure: &mut Option<(String, Counted)>) -> Result<Option<Counted>> {
        // Loads the ledger, and leaves no epoch unfinished before the one that is claimed below as of the loaded version.
        let finished = self.finish_newest().await?;
        if let Some((record, counted)) = unsure.take()
            && self.ledger.has_claimed(&record).await?
        {
            return Ok(Some(counted));
        }
        self.report.finished_rows += finished;
        let (epoch, counted) = self.prepare(chunk).await?;
        if epoch.is_empty() {
            return Ok(Some(counted));
        }
        epoch.open_tables(self.store).await?;
        let record = epoch.write_record(self.store, &self.ledger).await?;
        match self.ledger.claim(&epoch.verdicts, &record).await {
            Ok(committed) => {
                (self.on_commit)(DEAD_LETTER_REPLAYS, committed.version, committed.rows);
                Ok(Some(counted))
            }
            Err(StoreError::Fenced { .. }) => Ok(None),
            Err(error) => {
                *unsure = Some((record, counted));
                Err(error.into())
            }
        }
    }

    /// Judges the letters that are still pending, as of the ledger's loaded version.
    async fn prepare(&mut self, chunk: &[Letter]) -> Result<(Epoch, Counted)> {
        let known = self.ledger.outcomes().await?;
        let mut counted = Counted::default();
        let mut epoch = Epoch::default();
        let mut by_topic: BTreeMap<&str, Vec<&Letter>> = BTreeMap::new();
        for letter in chunk {
            if !known.get(&letter.id).is_some_and(|past| past.outcome.is_final()) {
                by_topic.entry(&letter.id.topic).or_default().push(letter);
            }
        }
        for (name, letters) in by_topic {
            let Some(topic) = self.topics.get_mut(name) else { continue };
            let (settled, unsettled) = stored::settled(self.store, self.config, &topic.contracts, letters).await?;
            counted.unsettled += unsettled;
            let already = stored::already(self.store, &topic.contracts, name, &settled).await?;
            let decoded = where_it_may_wait(|| topic.decode(&settled))?;
            epoch.add(&settled, decoded, &already)?;
        }
        for verdict in &epoch.verdicts {
            counted.add(verdict);
        }
        // A letter that fails as it failed before is reported, and not written down again.
        epoch.verdicts.retain(|verdict| {
            verdict.outcome.is_final()
                || verdict.reason.as_ref().is_some_and(|reason| match known.get(&verdict.id) {
                    Some(past) => past.reason.as_deref() != Some(reason.to_string().as_str()),
                    None => verdict.first_reason != reason.to_string(),
                })
        });
        Ok((epoch, counted))
    }

    fn count(&mut self, counted: Counted) {
        self.report.stored += counted.stored;
        self.report.already_stored += counted.already_stored;
        self.report.unsettled += counted.unsettled;
        for (table, rows) in counted.rows {
            *self.report.rows.entry(table.to_owned()).or_default() += rows;
        }
        for (reason, letters) in counted.rejected {
            *self.rejected.entry(reason).or_default() += letters;
        }
    }
}

/// What became of the letters that one topic's decoder was given.
pub(crate) struct DecodedLetters {
    batches: Vec<(&'static weir_schemas::Contract, arrow::array::RecordBatch)>,
    /// By the letter's index.
    rejected: BTreeMap<usize, Reason>,
}

impl Topic {
    fn decode(&mut self, letters: &[&Letter]) -> Result<DecodedLetters> {
        // Those that keep their verdict are judged without being decoded.
        let mut rejected = BTreeMap::new();
        let mut asked = Vec::new();
        for (index, letter) in letters.iter().enumerate() {
            let too_late = self.contracts.iter().find_map(|contract| {
                let reason = Reason::TimeTooLate { field: contract.time_column };
                (reason.to_string() == letter.reason).then_some(reason)
            });
            match too_late {
                Some(reason) => drop(rejected.insert(index, reason)),
                None => asked.push(index),
            }
        }
        let messages: Vec<Incoming<'_>> = asked
            .iter()
            .map(|index| {
                let letter = letters[*index];
                Incoming {
                    partition: letter.id.partition,
                    offset: letter.id.offset,
                    timestamp_ms: Some(letter.observed_ms),
                    payload: Some(&letter.message.payload),
                    headers: Headers::of(&letter.message.headers),
                }
            })
            .collect();
        let decoded = self.decoder.decode(&messages)?;
        rejected.extend(decoded.rejected.into_iter().map(|rejected| (asked[rejected.message], rejected.reason)));
        Ok(DecodedLetters { batches: decoded.batches, rejected })
    }
}

/// Decoding may wait for the registry; other tasks of the thread go on elsewhere meanwhile.
fn where_it_may_wait<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// What one chunk adds to the report.
#[derive(Default)]
struct Counted {
    stored: u64,
    already_stored: u64,
    unsettled: u64,
    rows: BTreeMap<&'static str, u64>,
    rejected: BTreeMap<(String, &'static str, String), u64>,
}

impl Counted {
    fn add(&mut self, verdict: &Verdict) {
        match (verdict.outcome, &verdict.reason) {
            (Outcome::Stored, _) => self.stored += 1,
            (Outcome::AlreadyStored, _) => self.already_stored += 1,
            (Outcome::Rejected, Some(reason)) => {
                let key = (verdict.id.topic.clone(), reason.class(), reason.to_string());
                *self.rejected.entry(key).or_default() += 1;
            }
            (Outcome::Rejected, None) => {}
        }
        for (table, rows) in &verdict.rows {
            *self.rows.entry(table).or_default() += rows;
        }
    }
}

/// Failures in a row that may pass.
#[derive(Default)]
struct Attempts(u32);

impl Attempts {
    /// Waits a little when another try can help, and there are tries left.
    async fn after(&mut self, error: IngestError) -> Result<()> {
        self.0 += 1;
        if self.0 >= ATTEMPTS_MAX || !error.retry_helps() {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(5) * 2_u32.pow(self.0.min(8))).await;
        Ok(())
    }
}

/// The position of a job's replays, in `dead_letter_replays` and in every raw table that they fed.
fn app_id(job: &str) -> String {
    format!("weir/{job}/replay")
}

/// The raw tables of contracts that are there.
async fn raw_tables(
    store: &Store,
    contracts: &[&'static weir_schemas::Contract],
) -> Result<Vec<(&'static str, Option<Table>)>> {
    let mut found = Vec::new();
    for contract in contracts {
        found.push((contract.name, store.existing(contract.name).await?));
    }
    Ok(found)
}
