//! Training that was stopped goes on where it was, to the same bytes.
//!
//! A training fits several networks, one after the other, always in the same order. Each has a file in a folder: its weights, the best ones
//! so far, the optimiser's moments, the order of the rows and the place of the random numbers, written whole after every pass. A training
//! of the same data and settings reads what is there and does the rest; of others it begins anew.

use std::cell::Cell;
use std::fs::{self, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{LearnError, Result};

/// What a fit is at after a pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub epochs_done: usize,
    pub best_loss: f32,
    pub epochs_since_best: usize,
    /// Rows in their present order.
    pub order: Vec<usize>,
    /// Place of the generator in its stream; the seed is the training's.
    pub random_word: u128,
    /// Weights, best weights and optimiser, as burn writes them.
    #[serde(skip)]
    pub records: [Vec<u8>; 3],
}

/// The line before the records.
#[derive(Serialize, Deserialize)]
struct Header {
    fingerprint: String,
    progress: Progress,
    lengths: [usize; 3],
    sha256: String,
}

/// A folder of checkpoints of one training.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    fingerprint: String,
    fits: Cell<usize>,
    /// Held while this lives, and by the system let go of when the process ends, however it does.
    _lock: fs::File,
}

impl Checkpoints {
    /// Checkpoints in `folder` of the training that `fingerprint` names: its data, settings and code.
    ///
    /// # Errors
    /// [`LearnError::Unreadable`] when the folder cannot be made, [`LearnError::Config`] when another training writes there.
    pub fn open(folder: &Path, fingerprint: &str) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| unreadable(folder, &error))?;
        let fingerprint = hex::encode(Sha256::digest(fingerprint.as_bytes()));
        let lock = fs::File::create(folder.join("lock")).map_err(|error| unreadable(folder, &error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => LearnError::Config(format!(
                "another training keeps its checkpoints in {}: wait for it, or give another folder",
                folder.display()
            )),
            TryLockError::Error(error) => unreadable(folder, &error),
        })?;
        Ok(Self { folder: folder.to_owned(), fingerprint, fits: Cell::new(0), _lock: lock })
    }

    /// The next fit's file.
    fn next(&self) -> PathBuf {
        let fit = self.fits.get();
        self.fits.set(fit + 1);
        self.folder.join(format!("fit-{fit:02}.checkpoint"))
    }
}

fn unreadable(place: &Path, error: &std::io::Error) -> LearnError {
    LearnError::Unreadable { what: place.display().to_string(), why: error.to_string() }
}

/// Seed and checkpoints of a training.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Training<'a> {
    pub seed: u64,
    pub checkpoints: Option<&'a Checkpoints>,
}

impl<'a> Training<'a> {
    pub(crate) fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Where the next fit keeps its progress.
    pub(crate) fn slot(&self) -> Slot<'a> {
        Slot(self.checkpoints.map(|checkpoints| (checkpoints, checkpoints.next())))
    }
}

impl From<u64> for Training<'_> {
    fn from(seed: u64) -> Self {
        Self { seed, checkpoints: None }
    }
}

/// Where one fit keeps its progress; nowhere by default.
#[derive(Debug, Default)]
pub(crate) struct Slot<'a>(Option<(&'a Checkpoints, PathBuf)>);

impl Slot<'_> {
    pub(crate) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// What was kept, if it is of this training and whole.
    pub(crate) fn load(&self) -> Option<Progress> {
        let (checkpoints, path) = self.0.as_ref()?;
        let bytes = fs::read(path).ok()?;
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let header: Header = serde_json::from_slice(&bytes[..end]).ok()?;
        let records = &bytes[end + 1..];
        let is_whole = header.lengths.iter().sum::<usize>() == records.len()
            && header.sha256 == hex::encode(Sha256::digest(records))
            && header.fingerprint == checkpoints.fingerprint;
        if !is_whole {
            return None;
        }
        let (first, rest) = records.split_at(header.lengths[0]);
        let (second, third) = rest.split_at(header.lengths[1]);
        Some(Progress { records: [first, second, third].map(<[u8]>::to_vec), ..header.progress })
    }

    /// Writes the progress, whole or not at all.
    pub(crate) fn save(&self, progress: &Progress) -> Result<()> {
        let Some((checkpoints, path)) = &self.0 else { return Ok(()) };
        let records = progress.records.concat();
        let header = Header {
            fingerprint: checkpoints.fingerprint.clone(),
            progress: progress.clone(),
            lengths: progress.records.each_ref().map(Vec::len),
            sha256: hex::encode(Sha256::digest(&records)),
        };
        let header = serde_json::to_vec(&header).map_err(|error| LearnError::Artefact(error.to_string()))?;
        let partial = path.with_extension("partial");
        let write = || {
            let mut file = fs::File::create(&partial)?;
            file.write_all(&header)?;
            file.write_all(b"\n")?;
            file.write_all(&records)?;
            file.sync_all()?;
            fs::rename(&partial, path)
        };
        write().map_err(|error| unreadable(path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        Progress {
            epochs_done: 3,
            best_loss: 0.25,
            epochs_since_best: 1,
            order: vec![2, 0, 1],
            random_word: u128::from(u64::MAX) + 7,
            records: [vec![1, 2], vec![], vec![3]],
        }
    }

    #[test]
    fn what_is_kept_comes_back_to_the_same_training_only() {
        let folder = tempfile::tempdir().unwrap();
        let slot = |fingerprint: &str| -> (Checkpoints, PathBuf) {
            let checkpoints = Checkpoints::open(folder.path(), fingerprint).unwrap();
            let path = checkpoints.next();
            (checkpoints, path)
        };
        let (own, path) = slot("a");
        Slot(Some((&own, path.clone()))).save(&progress()).unwrap();
        assert_eq!(Slot(Some((&own, path.clone()))).load(), Some(progress()));
        drop(own);
        let (other, same_path) = slot("b");
        assert_eq!(Slot(Some((&other, same_path))).load(), None);
        drop(other);
        let (own, path) = slot("a");
        let mut bytes = fs::read(&path).unwrap();
        bytes.pop();
        fs::write(&path, bytes).unwrap();
        assert_eq!(Slot(Some((&own, path))).load(), None, "half a file");
    }
}
