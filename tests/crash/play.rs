//! Plays one seed: a group of `weir run` processes reads the topics while its schedule happens to them.
//!
//! Whoever ends before the work is done is started again, as an orchestrator would; what it said is kept. At the end
//! nothing misbehaves any more, all processes read to the end, and the tables are judged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use weir_store::{Keyring, Store, StoreOptions};
use weir_tests::{Kafka, S3, Weir};

use crate::check::{self, Damage};
use crate::disk::SmallDisk;
use crate::janitor::Janitor;
use crate::ledger::Line;
use crate::process::{End, Process};
use crate::progress::Progress;
use crate::proxy::{CLIENT_WAITS_S, Proxy};
use crate::schedule::{Fault, Place, SESSION_MS, Schedule};
use crate::series::Truth;
use crate::truth::{TOPICS, Table};

const JOB: &str = "crash";
/// Between two looks at processes and positions.
const TICK: Duration = Duration::from_millis(25);
/// Before a process that gave up is started again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Positions that have not moved for so long, with nobody started or ended meanwhile, will not move any more.
const STUCK_AFTER: Duration = Duration::from_secs(180);
/// Ticks between two looks at positions when nothing waits for them.
const LOOK_EVERY: u32 = 20;

/// What all seeds share.
pub struct Bench<'a> {
    pub folder: &'a Path,
    pub program: &'a Path,
    pub build: &'a str,
    pub kafka: &'a Kafka,
    /// An S3 server and the proxy before it.
    pub s3: Option<&'a (S3, Proxy)>,
    pub truth: &'a Truth,
    pub janitor: &'a Janitor,
    /// Where the folders of failed seeds go.
    pub kept: Option<&'a Path>,
}

/// Plays the seed and judges.
pub fn play(bench: &Bench<'_>, schedule: &Schedule) -> Line {
    let began = Instant::now();
    let folder = bench.folder.join(format!("seed-{}", schedule.seed));
    std::fs::create_dir_all(folder.join("logs")).expect("the folder is writable");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let mut line = Line {
        seed: schedule.seed,
        build: bench.build.to_owned(),
        schedule: schedule.to_string(),
        events: bench.truth.events,
        seconds: 0.0,
        faults: BTreeMap::new(),
        not_played: Vec::new(),
        exits: Vec::new(),
        seen: BTreeMap::new(),
        damage: Damage::default(),
        failures: Vec::new(),
    };
    let place = Located::of(bench, schedule, &folder, &mut line);
    let weir = Weir::of_program(bench.program, &folder);
    configure(&folder, schedule, &place.section, &bench.kafka.brokers);
    let store = Store::open_to_read_with(&place.url, &place.directly).expect("the store can be opened");
    let keyring = Keyring::reading(folder.join("keys"));

    let disturbed_before = bench.s3.map_or(0, |(_, proxy)| proxy.disturbed());
    let progress = Progress::of(store.clone(), bench.truth, JOB);
    let mut run = Run {
        bench,
        schedule,
        weir: &weir,
        place: &place,
        folder: &folder,
        line: &mut line,
        slots: vec![],
        starts: 0,
        later: vec![],
    };
    run.play_out(&runtime, progress);

    line.damage = runtime.block_on(check::check(&store, &keyring, bench.truth, JOB));
    if line.passed() {
        check_summaries(&weir, bench.truth, &mut line.failures);
    }
    line.seen = seen_in_logs(&folder.join("logs"));
    let disturbed = bench.s3.map_or(0, |(_, proxy)| proxy.disturbed()) - disturbed_before;
    line.seen.insert("store_requests_disturbed".to_owned(), disturbed);
    if line.passed() {
        std::fs::remove_dir_all(&place.data).ok();
        drop(place);
        std::fs::remove_dir_all(&folder).expect("the seed's folder can be removed");
    } else if let Some(kept) = bench.kept {
        keep(bench, &folder, &place, &kept.join(format!("seed-{}", schedule.seed)), &line);
        drop(place);
        std::fs::remove_dir_all(&folder).ok();
    }
    line.seconds = began.elapsed().as_secs_f64();
    line
}

/// Where the tables are.
struct Located {
    url: String,
    /// `[store]` of the configuration.
    section: String,
    /// How we get there, past the proxy.
    directly: StoreOptions,
    /// A folder of what is stored.
    data: PathBuf,
    disk: Option<SmallDisk>,
}

impl Located {
    fn of(bench: &Bench<'_>, schedule: &Schedule, folder: &Path, line: &mut Line) -> Self {
        if schedule.place == Place::ObjectStore {
            match bench.s3 {
                Some((s3, proxy)) => return Self::in_object_store(s3, proxy, schedule.seed),
                None => line.not_played.push("store: no S3 server".to_owned()),
            }
        }
        let data = folder.join("data");
        std::fs::create_dir_all(&data).expect("the folder is writable");
        let url = data.display().to_string();
        let mut disk = None;
        if schedule.place == Place::SmallDisk {
            match SmallDisk::mount(&data, 64 + bench.truth.events / 2_000) {
                Ok(mounted) => disk = Some(mounted),
                Err(why) => line.not_played.push(format!("disk_full: {why}")),
            }
        }
        let section = format!("[store]\nurl = \"{url}\"\n");
        Self { url, section, directly: StoreOptions::default(), data, disk }
    }

    fn in_object_store(s3: &S3, proxy: &Proxy, seed: u64) -> Self {
        let url = s3.url(&format!("seed-{seed}"));
        let credentials = s3.credentials();
        let section = format!(
            "[store]\nurl = \"{url}\"\ncredentials = \"{}\"\n\
             [store.options]\nendpoint = \"{}\"\nallow_http = \"true\"\ntimeout = \"{CLIENT_WAITS_S}s\"\n",
            credentials.display(),
            proxy.endpoint
        );
        let directly = StoreOptions { credentials: Some(credentials), ..StoreOptions::default() };
        Self { data: s3.objects().join(format!("seed-{seed}")), url, section, directly, disk: None }
    }
}

fn configure(folder: &Path, schedule: &Schedule, store: &str, brokers: &str) {
    let Schedule { seed, flush_rows, flush_interval_ms, assignment, .. } = schedule;
    let keys = folder.join("keys");
    let keys = keys.display();
    let topics: String = TOPICS
        .iter()
        .map(|topic| format!("[[kafka.topics]]\nname = \"{}\"\nformat = \"{}\"\n", topic.name(), topic.format()))
        .collect();
    let heartbeat_ms = SESSION_MS / 5;
    let toml = format!(
        "{store}[keys]\npath = \"{keys}\"\n\
         [ingest]\nflush_rows = {flush_rows}\nflush_interval_ms = {flush_interval_ms}\n\
         [kafka]\nbrokers = \"{brokers}\"\njob = \"{JOB}\"\ngroup_id = \"crash-{seed}\"\n{topics}\
         [kafka.properties]\n\"session.timeout.ms\" = \"{SESSION_MS}\"\n\"heartbeat.interval.ms\" = \"{heartbeat_ms}\"\n\
         \"partition.assignment.strategy\" = \"{assignment}\"\n\"reconnect.backoff.max.ms\" = \"500\"\n"
    );
    std::fs::write(folder.join("weir.toml"), toml).expect("the folder is writable");
}

/// A place in the group, with the process that has it.
struct Slot {
    process: Option<Process>,
    start_at: Option<Instant>,
    /// Its process has read to the end, or has left for good.
    is_done: bool,
}

/// What is to happen at a moment.
enum Later {
    Wake(usize),
    Leave(usize),
    StartBroker,
    FreeDisk,
    HealStore,
}

struct Run<'a> {
    bench: &'a Bench<'a>,
    schedule: &'a Schedule,
    weir: &'a Weir,
    place: &'a Located,
    folder: &'a Path,
    line: &'a mut Line,
    slots: Vec<Slot>,
    starts: usize,
    later: Vec<(Instant, Later)>,
}

impl Run<'_> {
    fn play_out(&mut self, runtime: &Runtime, mut progress: Progress<'_>) {
        let (mut percent, mut starts, mut moved) = (0, 0, Instant::now());
        let mut ticks = 0_u32;
        for _ in 0..self.schedule.members {
            self.add_slot();
        }
        let mut waiting = self.schedule.faults.clone().into_iter().peekable();
        let mut due: Option<Instant> = None;
        while !(self.slots.iter().all(|slot| slot.is_done) && self.later.is_empty()) {
            ticks = ticks.wrapping_add(1);
            if (waiting.peek().is_some() && due.is_none()) || ticks.is_multiple_of(LOOK_EVERY) {
                let now = runtime.block_on(progress.percent());
                if (now, self.starts) != (percent, starts) {
                    (percent, starts, moved) = (now, self.starts, Instant::now());
                }
            }
            if moved.elapsed() > STUCK_AFTER {
                let seconds = STUCK_AFTER.as_secs();
                self.line.failures.push(format!("nothing moved for {seconds} s, at {percent} % of the offsets"));
                break;
            }
            self.look_at_processes();
            self.do_what_is_due();
            if let Some(planned) = waiting.peek() {
                if due.is_none() && percent >= planned.at_percent {
                    due = Some(Instant::now() + Duration::from_millis(planned.wait_ms));
                }
                if due.is_some_and(|due| Instant::now() >= due) && self.inflict(planned.fault) {
                    (due, _) = (None, waiting.next());
                }
            }
            std::thread::sleep(TICK);
        }
        for planned in waiting {
            self.line.not_played.push(format!("{}: all was read before", planned.fault.name()));
        }
        self.tidy_up();
    }

    fn add_slot(&mut self) -> usize {
        self.slots.push(Slot { process: None, start_at: Some(Instant::now()), is_done: false });
        self.slots.len() - 1
    }

    fn look_at_processes(&mut self) {
        let excuses: Vec<&str> =
            self.schedule.faults.iter().flat_map(|planned| planned.fault.is_blamed_by()).copied().collect();
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.process.is_none() && slot.start_at.is_some_and(|at| Instant::now() >= at) {
                self.starts += 1;
                let log = self.folder.join(format!("logs/{:02}-member-{index}.log", self.starts));
                slot.process = Some(Process::start(self.weir, &log, &self.bench.janitor.pids));
                slot.start_at = None;
            }
            let Some(end) = slot.process.as_mut().and_then(|process| process.ended(&excuses)) else { continue };
            match end {
                End::AsWished => slot.is_done = slot.start_at.is_none(),
                End::Drained => (slot.is_done, slot.start_at) = (true, None),
                End::Gave(sentence) => {
                    self.line.exits.push(sentence);
                    slot.start_at = Some(Instant::now() + AGAIN_AFTER);
                }
                End::Wrong(how) => {
                    self.line.failures.push(format!("a process {how}"));
                    slot.start_at = Some(Instant::now() + AGAIN_AFTER);
                    if let Some(process) = &mut slot.process {
                        process.abandon();
                    }
                }
            }
            slot.process = None;
        }
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(at, _)| now >= *at);
        self.later = later;
        for (_, action) in due {
            self.act(action);
        }
    }

    fn act(&mut self, action: Later) {
        match action {
            Later::Wake(index) => {
                if let Some(process) = &mut self.slots[index].process {
                    process.wake();
                }
            }
            Later::Leave(index) => {
                let slot = &mut self.slots[index];
                match &mut slot.process {
                    Some(process) if process.runs() => process.ask_to_stop(),
                    Some(_) => {}
                    None => slot.is_done = true,
                }
                slot.start_at = None;
            }
            Later::StartBroker => self.bench.kafka.start_again(),
            Later::FreeDisk => {
                if let Some(disk) = &self.place.disk {
                    // A second filling may have been freed with the first.
                    disk.free().ok();
                }
            }
            Later::HealStore => {
                if let Some((_, proxy)) = self.bench.s3 {
                    proxy.misbehave(None);
                }
            }
        }
    }

    /// Does it; false when there is nobody yet to do it to.
    fn inflict(&mut self, fault: Fault) -> bool {
        let running: Vec<usize> = (0..self.slots.len())
            .filter(|index| self.slots[*index].process.as_ref().is_some_and(Process::runs))
            .collect();
        let chosen = |target: u64| usize::try_from(target % running.len() as u64).map_or(0, |index| running[index]);
        if running.is_empty() {
            return false;
        }
        let after = |ms| Instant::now() + Duration::from_millis(ms);
        match fault {
            Fault::Kill { target, back_after_ms } | Fault::Stop { target, back_after_ms } => {
                let slot = &mut self.slots[chosen(target)];
                slot.start_at = Some(after(back_after_ms));
                if let Some(process) = &mut slot.process {
                    if matches!(fault, Fault::Kill { .. }) { process.kill() } else { process.ask_to_stop() }
                }
            }
            Fault::Freeze { target, for_ms } => {
                let index = chosen(target);
                if let Some(process) = &mut self.slots[index].process {
                    process.freeze();
                }
                if running.len() == 1 {
                    // A zombie needs somebody who takes over.
                    self.add_slot();
                }
                self.later.push((after(for_ms), Later::Wake(index)));
            }
            Fault::Join { for_ms } => {
                let index = self.add_slot();
                self.later.push((after(for_ms), Later::Leave(index)));
            }
            Fault::BrokerStop { down_ms } => {
                self.bench.kafka.stop();
                self.later.push((after(down_ms), Later::StartBroker));
            }
            Fault::BrokerKill { down_ms } => {
                self.bench.kafka.kill();
                self.later.push((after(down_ms), Later::StartBroker));
            }
            Fault::DiskFull { for_ms } => {
                let Some(disk) = &self.place.disk else { return true };
                if let Err(error) = disk.fill() {
                    self.line.not_played.push(format!("disk_full: {error}"));
                    return true;
                }
                self.later.push((after(for_ms), Later::FreeDisk));
            }
            Fault::Store { how, for_ms } => {
                let Some((_, proxy)) = self.bench.s3 else { return true };
                proxy.misbehave(Some(how));
                // Of two troubles at a time the second counts, and both end when the first does.
                self.later.push((after(for_ms), Later::HealStore));
            }
        }
        *self.line.faults.entry(fault.name().to_owned()).or_default() += 1;
        true
    }

    /// Leaves no process behind, and everything outside well.
    fn tidy_up(&mut self) {
        for slot in &mut self.slots {
            if let Some(mut process) = slot.process.take() {
                process.abandon();
            }
        }
        for (_, action) in std::mem::take(&mut self.later) {
            self.act(action);
        }
    }
}

/// Every request is counted once in the summaries too, which are made beside the tables by the same processes.
fn check_summaries(weir: &Weir, truth: &Truth, failures: &mut Vec<String>) {
    let counted = weir.number("select sum(requests) from workload_minute");
    let produced = truth.rows_of(Table::Requests);
    if (counted - produced as f64).abs() > 0.0 {
        failures.push(format!("the summaries count {counted} requests of {produced}"));
    }
}

/// What the logs show, by how often.
fn seen_in_logs(logs: &Path) -> BTreeMap<String, u64> {
    let shown = [
        ("fenced", "commit fenced"),
        ("outcome_unknown", "commit outcome unknown"),
        ("outcome_found", "an earlier attempt had landed"),
        ("rows_dropped_and_read_again", "uncommitted rows dropped"),
        ("partitions_revoked", "partition revoked"),
    ];
    let mut seen = BTreeMap::new();
    let files = std::fs::read_dir(logs).into_iter().flatten().flatten();
    for text in files.filter_map(|file| std::fs::read_to_string(file.path()).ok()) {
        for (name, words) in shown {
            *seen.entry(name.to_owned()).or_default() += text.matches(words).count() as u64;
        }
    }
    seen
}

/// Copies what a failed seed left to where it stays, and says so.
fn keep(bench: &Bench<'_>, folder: &Path, place: &Located, kept: &Path, line: &Line) {
    use std::process::Command;
    std::fs::remove_dir_all(kept).ok();
    let mut copied = kept.parent().map(std::fs::create_dir_all).is_some_and(|made| made.is_ok());
    copied &= Command::new("cp").arg("-r").args([folder, kept]).status().is_ok_and(|status| status.success());
    let broker = bench.folder.join("kafka/server.log");
    copied &= std::fs::copy(broker, kept.join("logs/kafka.log")).is_ok();
    if !place.data.starts_with(folder) {
        let target = kept.join("objects");
        copied &=
            Command::new("cp").arg("-r").args([&place.data, &target]).status().is_ok_and(|status| status.success());
    }
    eprint!("{}", line.schedule);
    for word in line.failures.iter().chain(&line.damage.findings).chain(&line.exits) {
        eprintln!("  {word}");
    }
    eprintln!(
        "  {} {}",
        if copied { "what it left is in" } else { "what it left cannot be copied to" },
        kept.display()
    );
}

/// The program's hash: results are about it alone.
pub fn build_of(program: &Path) -> String {
    use sha2::{Digest, Sha256};
    let bytes = std::fs::read(program).expect("the binary can be read");
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A copy of the program that a later build does not touch.
pub fn copy_of(program: &Path, folder: &Path) -> PathBuf {
    let copy = folder.join("weir");
    std::fs::copy(program, &copy).expect("the binary can be copied");
    copy
}
