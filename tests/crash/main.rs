//! The crash harness: the same topics through a real Kafka again and again, disturbed differently each time.
//!
//! Every seed gives a group of one to three `weir run` processes a store of its own and a schedule of its own: kills,
//! frozen processes that come back, broker restarts, members that join and leave, disks that fill up, object stores
//! that fail or do not say whether a write has landed. At the end every row of every table is compared with what was
//! produced.
//!
//! ```text
//! truth     what is produced, and what must become of it: a function of a number
//! series    the topics, produced once and read back; every seed reads them
//! schedule  what happens to a seed, and when: a function of the seed
//! play      one seed: processes, faults, the end          (process, disk, proxy, progress)
//! check     the verdict, row by row                       (digest)
//! ledger    what each seed came to; a series goes on behind it
//! ```
//!
//! As part of the tests it plays a few seeds over few events. `make crash` plays a series, with these settings:
//! `WEIR_CRASH_SEEDS=n` seeds 0 to n - 1; `WEIR_CRASH_SEED=k` that one only, whatever the ledger says;
//! `WEIR_CRASH_EVENTS`, messages of the series; `WEIR_CRASH_LEDGER`, the file of results that a series goes on behind;
//! `WEIR_CRASH_WITHIN_S`, no further seed is begun after so many seconds; `WEIR_CRASH_PROGRAM`, a binary of Weir to play
//! instead of the tests' own.

mod check;
mod digest;
mod disk;
mod janitor;
mod ledger;
mod play;
mod process;
mod progress;
mod proxy;
mod schedule;
mod series;
mod truth;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use weir_tests::{Kafka, S3, Weir};

use crate::janitor::Janitor;
use crate::ledger::{Ledger, Line};
use crate::play::Bench;
use crate::proxy::Proxy;
use crate::schedule::Schedule;

/// What the tests play: seeds that between them kill, freeze, stop and join, kill the broker, fill a disk, and have an
/// object store that hangs up and forgets to answer.
const SHORT: [u64; 3] = [2, 8, 15];
const SHORT_EVENTS: u64 = 60_000;
const SERIES_EVENTS: u64 = 1_000_000;

#[test]
fn whatever_happens_nothing_is_lost_doubled_or_altered() {
    let settings = Settings::read();
    let began = Instant::now();
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    // Declared first: it cleans up last.
    let janitor = Janitor::of(&folder);
    let Some(kafka) = Kafka::start(&folder) else { return };
    let s3 = S3::start(&folder).map(|s3| (Proxy::start(&s3.endpoint), s3)).map(|(proxy, s3)| (s3, proxy));
    let program = settings.program.clone().unwrap_or_else(|| Weir::new(&folder).program().to_owned());
    let program = play::copy_of(&program, &folder);
    let build = play::build_of(&program);
    let truth = series::produce(&kafka.brokers, settings.events);
    eprintln!("{} events produced and read back in {:.1} s", truth.events, began.elapsed().as_secs_f64());

    let mut ledger = Ledger::open(settings.ledger.as_deref());
    let kept = settings.ledger.as_deref().and_then(|ledger| ledger.parent()).map(|folder| folder.join("failed"));
    let bench = Bench {
        folder: &folder,
        program: &program,
        build: &build,
        kafka: &kafka,
        s3: s3.as_ref(),
        truth: &truth,
        janitor: &janitor,
        kept: kept.as_deref(),
    };
    let mut lines = Vec::new();
    for seed in &settings.seeds {
        let schedule = Schedule::of(*seed);
        if settings.goes_on
            && let Some(line) = ledger.played(&schedule, &build, truth.events)
        {
            lines.push(line.clone());
            continue;
        }
        if settings.within.is_some_and(|within| began.elapsed() > within) {
            break;
        }
        let line = play::play(&bench, &schedule);
        eprintln!("{}", summary_of(&line));
        line.failures.iter().for_each(|failure| eprintln!("  {failure}"));
        ledger.add(line.clone());
        lines.push(line);
    }
    let failed: Vec<u64> = lines.iter().filter(|line| !line.passed()).map(|line| line.seed).collect();
    println!("{}", report(&lines, &failed));
    assert!(failed.is_empty(), "seeds {failed:?} failed: `make crash SEED={}` plays one again", failed[0]);
}

/// What to play, from the environment.
struct Settings {
    seeds: Vec<u64>,
    events: u64,
    ledger: Option<PathBuf>,
    /// Seeds that the ledger has are not played again.
    goes_on: bool,
    within: Option<Duration>,
    program: Option<PathBuf>,
}

impl Settings {
    fn read() -> Self {
        let (seeds, seed) = (number("WEIR_CRASH_SEEDS"), number("WEIR_CRASH_SEED"));
        let is_series = seeds.is_some() || seed.is_some();
        Self {
            seeds: match (seed, seeds) {
                (Some(seed), _) => vec![seed],
                (None, Some(seeds)) => (0..seeds).collect(),
                (None, None) => SHORT.to_vec(),
            },
            events: number("WEIR_CRASH_EVENTS").unwrap_or(if is_series { SERIES_EVENTS } else { SHORT_EVENTS }),
            ledger: path("WEIR_CRASH_LEDGER"),
            goes_on: seed.is_none(),
            within: number("WEIR_CRASH_WITHIN_S").map(Duration::from_secs),
            program: path("WEIR_CRASH_PROGRAM"),
        }
    }
}

fn path(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn number<T: FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}: give a number")))
}

fn summary_of(line: &Line) -> String {
    let faults: Vec<String> = line.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let check::Damage { lost, doubled, altered, foreign, .. } = line.damage;
    let verdict = if line.passed() { "ok" } else { "FAILED" };
    let Line { seed, seconds, .. } = line;
    format!(
        "seed {seed}: {verdict} in {seconds:.1} s: {lost} lost, {doubled} doubled, {altered} altered, {foreign} foreign; {}",
        faults.join(", ")
    )
}

/// The series in one JSON object.
fn report(lines: &[Line], failed: &[u64]) -> serde_json::Value {
    let sum = |of: fn(&Line) -> u64| lines.iter().map(of).sum::<u64>();
    let total = |of: fn(&Line) -> &BTreeMap<String, u64>| {
        let mut total: BTreeMap<&str, u64> = BTreeMap::new();
        lines.iter().flat_map(of).for_each(|(name, count)| *total.entry(name).or_default() += count);
        serde_json::json!(total)
    };
    let mut not_played: BTreeMap<&str, u64> = BTreeMap::new();
    lines.iter().flat_map(|line| &line.not_played).for_each(|why| *not_played.entry(why).or_default() += 1);
    serde_json::json!({
        "seeds": lines.len(),
        "events": sum(|line| line.events),
        "lost": sum(|line| line.damage.lost),
        "unread": sum(|line| line.damage.unread),
        "doubled": sum(|line| line.damage.doubled),
        "altered": sum(|line| line.damage.altered),
        "foreign": sum(|line| line.damage.foreign),
        "positions_not_at_the_end": sum(|line| line.damage.positions),
        "failed_seeds": failed,
        "faults": total(|line| &line.faults),
        "not_played": not_played,
        "seen": total(|line| &line.seen),
        "exits_blaming_what_failed": sum(|line| line.exits.len() as u64),
        "seconds": lines.iter().map(|line| line.seconds).sum::<f64>().round(),
    })
}
