//! The decision log: one JSON object a line, each line whole before the decision is used.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::Serialize;

use super::Candidate;
use crate::error::{Failure, Result};

/// One decision.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    pub decided_ms: i64,
    pub request_id: Option<&'a str>,
    /// Pseudonym; the session's own id stays with the caller.
    pub session_id: Option<&'a str>,
    pub tenant: Option<&'a str>,
    /// Where a budget of exploration names it.
    pub domain: Option<&'a str>,
    pub intended_model: &'a str,
    pub propensity: Option<f64>,
    pub policy_version: &'a str,
    pub candidates: &'a [Candidate],
    /// What the draw is expected to cost beside taking what looks best, in units of utility; null where it did.
    pub expected_loss: Option<f64>,
    /// What a dollar was worth in this draw, where the request said so.
    pub usd_weight: Option<f64>,
    /// How long each pool would have let it wait, where the request said so, seconds.
    pub wait_s: Option<&'a BTreeMap<String, f64>>,
}

/// Where decisions are written.
pub(super) struct DecisionLog {
    out: Box<dyn Write + Send>,
    /// The last line was cut off: by a full disk, or by the end of the process before.
    torn: bool,
}

impl DecisionLog {
    /// Appends to a file, or writes to standard output.
    pub(super) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { out: Box::new(std::io::stdout()), torn: false }) };
        let failed =
            |error: std::io::Error| Failure::user(format!("cannot append decisions to {}: {error}", path.display()));
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        let torn = ends_within_a_line(path).map_err(failed)?;
        Ok(Self { out: Box::new(file), torn })
    }

    /// Writes one line. After a failure the next line starts a new one, so that what was cut off spoils itself only.
    pub(super) fn write(&mut self, line: &Line<'_>) -> Result<()> {
        let mut bytes = if self.torn { vec![b'\n'] } else { Vec::new() };
        serde_json::to_writer(&mut bytes, line)
            .map_err(|error| Failure::ours(format!("cannot write a decision: {error}")))?;
        bytes.push(b'\n');
        let written = self.out.write_all(&bytes).and_then(|()| self.out.flush());
        self.torn = written.is_err();
        written.map_err(|error| {
            Failure::outside(format!("the decision could not be logged, so it must not be used: {error}"))
        })
    }
}

fn ends_within_a_line(path: &Path) -> std::io::Result<bool> {
    let metadata = std::fs::metadata(path)?;
    // A pipe or a terminal has no end to look at.
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != [b'\n'])
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn line(model: &str) -> Line<'_> {
        Line {
            decided_ms: 0,
            request_id: None,
            session_id: None,
            tenant: None,
            domain: None,
            intended_model: model,
            propensity: Some(1.0),
            policy_version: "sha256:0",
            candidates: &[],
            expected_loss: None,
            usd_weight: None,
            wait_s: None,
        }
    }

    /// A disk with so much room.
    #[derive(Clone)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let (written, room) = &mut *self.0.lock().unwrap();
            let taken = bytes.len().min(*room);
            if taken == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            written.extend_from_slice(&bytes[..taken]);
            *room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn models(text: &str) -> Vec<String> {
        let model = |line: &str| {
            Some(serde_json::from_str::<serde_json::Value>(line).ok()?["intended_model"].as_str()?.to_owned())
        };
        text.lines().filter_map(model).collect()
    }

    #[test]
    fn a_line_that_a_full_disk_cut_off_does_not_spoil_the_next() {
        let disk = Disk(Arc::new(Mutex::new((Vec::new(), 50))));
        let mut log = DecisionLog { out: Box::new(disk.clone()), torn: false };
        assert!(log.write(&line("lost")).unwrap_err().to_string().contains("must not be used"));
        disk.0.lock().unwrap().1 = 10_000;
        log.write(&line("first")).unwrap();
        log.write(&line("second")).unwrap();
        let text = String::from_utf8(disk.0.lock().unwrap().0.clone()).unwrap();
        assert_eq!(models(&text), ["first", "second"]);
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn a_line_that_the_process_before_left_unfinished_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        DecisionLog::open(Some(&path)).unwrap().write(&line("whole")).unwrap();
        let cut = [std::fs::read(&path).unwrap(), b"{\"decided_ms\":".to_vec()].concat();
        std::fs::write(&path, cut).unwrap();
        DecisionLog::open(Some(&path)).unwrap().write(&line("next")).unwrap();
        assert_eq!(models(&std::fs::read_to_string(&path).unwrap()), ["whole", "next"]);
    }
}
