//! What each seed came to, one JSON line each: a series that was cut off goes on where it was.
//!
//! A line counts only for the same binary, the same number of events and the same schedule.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::check::Damage;
use crate::schedule::Schedule;

/// What became of one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub seed: u64,
    /// Hash of the binary that was tried.
    pub build: String,
    pub schedule: String,
    pub events: u64,
    pub seconds: f64,
    /// Faults that were played, by name.
    pub faults: BTreeMap<String, u64>,
    /// Faults that could not be played, and why.
    pub not_played: Vec<String>,
    /// Processes that ended by themselves before their work was done, with their sentence.
    pub exits: Vec<String>,
    /// What the processes wrote into their logs, by what it shows.
    pub seen: BTreeMap<String, u64>,
    pub damage: Damage,
    /// Why the seed failed; empty when it passed.
    pub failures: Vec<String>,
}

impl Line {
    pub fn passed(&self) -> bool {
        self.damage.is_none() && self.failures.is_empty()
    }
}

/// The file.
pub struct Ledger {
    path: Option<PathBuf>,
    lines: Vec<Line>,
}

impl Ledger {
    /// Opens the file, or a ledger that is forgotten at the end. Lines that are cut off or of another form are passed over.
    pub fn open(path: Option<&Path>) -> Self {
        let text = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Self { path: path.map(Path::to_owned), lines }
    }

    /// The last line of a schedule, played with that binary over so many events.
    pub fn played(&self, schedule: &Schedule, build: &str, events: u64) -> Option<&Line> {
        let schedule = schedule.to_string();
        let is_same = |line: &&Line| line.schedule == schedule && line.build == build && line.events == events;
        self.lines.iter().rev().find(is_same)
    }

    pub fn add(&mut self, line: Line) {
        if let Some(path) = &self.path {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).expect("the ledger's folder can be made");
            }
            let mut text = serde_json::to_string(&line).expect("a line has a JSON form");
            text.push('\n');
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.and_then(|mut file| file.write_all(text.as_bytes())).expect("the ledger can be written");
        }
        self.lines.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seed: u64, build: &str) -> Line {
        Line {
            seed,
            build: build.to_owned(),
            schedule: Schedule::of(seed).to_string(),
            events: 10,
            seconds: 1.5,
            faults: BTreeMap::new(),
            not_played: vec![],
            exits: vec![],
            seen: BTreeMap::new(),
            damage: Damage::default(),
            failures: vec![],
        }
    }

    #[test]
    fn a_series_goes_on_behind_the_lines_of_the_same_binary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/ledger.jsonl");
        let mut ledger = Ledger::open(Some(&path));
        ledger.add(line(3, "a"));
        ledger.add(line(4, "b"));
        // The process was killed while it wrote.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seed\": 5, \"bui").unwrap();

        let ledger = Ledger::open(Some(&path));
        let played = |seed, build, events| ledger.played(&Schedule::of(seed), build, events).is_some();
        assert!(played(3, "a", 10) && played(4, "b", 10));
        assert!(!played(3, "b", 10), "another binary");
        assert!(!played(3, "a", 11), "other topics");
        assert!(!played(5, "b", 10), "not played");
    }
}
