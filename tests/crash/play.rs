//! Plays one seed: a group of `weir run` processes reads the topics while its schedule happens to them.
//!
//! Whoever ends before the work is done is started again, as an orchestrator would; what it said is kept. At the end
//! nothing misbehaves any more, all processes read to the end, and the tables are judged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use weir_store::{Keyring, Store};
use weir_tests::{Kafka, Weir};

use crate::check::{self, Damage};
use crate::disk::SmallDisk;
use crate::janitor::Janitor;
use crate::ledger::Line;
use crate::process::{End, Process};
use crate::progress::Progress;
use crate::schedule::{Fault, Place, SESSION_MS, Schedule};
use crate::series::Truth;
use crate::truth::{TOPICS, Table};

const JOB: &str = "crash";
/// Between two looks at processes and positions.
const TICK: Duration = Duration::from_millis(25);
/// Before a process that gave up is started again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A seed that takes longer is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// What all seeds share.
pub struct Bench<'a> {
    pub folder: &'a Path,
    pub program: &'a Path,
    pub build: &'a str,
    pub kafka: &'a Kafka,
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
    let place = Located::of(schedule, &folder, bench.truth, &mut line);
    let weir = Weir::of_program(bench.program, &folder);
    configure(&folder, schedule, &place.url, &bench.kafka.brokers);
    let store = Store::open_to_read(&place.url).expect("the store can be opened");
    let keyring = Keyring::reading(folder.join("keys"));

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
    if line.passed() {
        drop(place);
        std::fs::remove_dir_all(&folder).expect("the seed's folder can be removed");
    } else if let Some(kept) = bench.kept {
        keep(&folder, &kept.join(format!("seed-{}", schedule.seed)), &line);
        drop(place);
    }
    line.seconds = began.elapsed().as_secs_f64();
    line
}

/// Where the tables are.
struct Located {
    url: String,
    disk: Option<SmallDisk>,
}

impl Located {
    fn of(schedule: &Schedule, folder: &Path, truth: &Truth, line: &mut Line) -> Self {
        let data = folder.join("data");
        std::fs::create_dir_all(&data).expect("the folder is writable");
        let url = data.display().to_string();
        let mut disk = None;
        match schedule.place {
            Place::Folder => {}
            Place::SmallDisk => match SmallDisk::mount(&data, 64 + truth.events / 2_000) {
                Ok(mounted) => disk = Some(mounted),
                Err(why) => line.not_played.push(format!("disk_full: {why}")),
            },
            Place::ObjectStore => line.not_played.push("store: no S3-compatible server".to_owned()),
        }
        Self { url, disk }
    }
}

fn configure(folder: &Path, schedule: &Schedule, url: &str, brokers: &str) {
    let Schedule { seed, flush_rows, flush_interval_ms, assignment, .. } = schedule;
    let keys = folder.join("keys");
    let keys = keys.display();
    let topics: String = TOPICS
        .iter()
        .map(|topic| format!("[[kafka.topics]]\nname = \"{}\"\nformat = \"{}\"\n", topic.name(), topic.format()))
        .collect();
    let heartbeat_ms = SESSION_MS / 5;
    let toml = format!(
        "[store]\nurl = \"{url}\"\n[keys]\npath = \"{keys}\"\n\
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
        let began = Instant::now();
        for _ in 0..self.schedule.members {
            self.add_slot();
        }
        let mut waiting = self.schedule.faults.clone().into_iter().peekable();
        let mut due: Option<Instant> = None;
        while !(self.slots.iter().all(|slot| slot.is_done) && self.later.is_empty()) {
            if began.elapsed() > STUCK_AFTER {
                self.line.failures.push(format!("not read to the end in {} s", STUCK_AFTER.as_secs()));
                break;
            }
            self.look_at_processes();
            self.do_what_is_due();
            if let Some(planned) = waiting.peek() {
                if due.is_none() && runtime.block_on(progress.percent()) >= planned.at_percent {
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
        let troubled = self.schedule.faults.iter().any(|planned| planned.fault.is_outside());
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.process.is_none() && slot.start_at.is_some_and(|at| Instant::now() >= at) {
                self.starts += 1;
                let log = self.folder.join(format!("logs/{:02}-member-{index}.log", self.starts));
                slot.process = Some(Process::start(self.weir, &log, &self.bench.janitor.pids));
                slot.start_at = None;
            }
            let Some(end) = slot.process.as_mut().and_then(|process| process.ended(troubled)) else { continue };
            match end {
                End::AsWished => slot.is_done = slot.start_at.is_none(),
                End::Drained => slot.is_done = true,
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
            Fault::Store { .. } => return true,
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

/// Moves what a failed seed left to where it stays.
fn keep(folder: &Path, kept: &Path, line: &Line) {
    std::fs::remove_dir_all(kept).ok();
    let copied = kept.parent().map(std::fs::create_dir_all).is_some_and(|made| made.is_ok())
        && std::process::Command::new("cp")
            .arg("-r")
            .args([folder, kept])
            .status()
            .is_ok_and(|status| status.success());
    eprint!("{}", line.schedule);
    for word in line.failures.iter().chain(&line.damage.findings).chain(&line.exits) {
        eprintln!("  {word}");
    }
    eprintln!(
        "  {} {}",
        if copied { "what it left is in" } else { "what it left cannot be copied to" },
        kept.display()
    );
    std::fs::remove_dir_all(folder).ok();
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
