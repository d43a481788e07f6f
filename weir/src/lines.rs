//! Events as JSON lines: a file that takes its name only when it is whole, or standard output.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Failure, Result};

/// The path that means standard output.
pub const STDOUT: &str = "-";

/// A destination of lines, each `{"topic": ..., "event": ...}`.
pub struct Lines {
    out: Box<dyn Write + Send>,
    count: u64,
    name: String,
    unfinished: Option<Unfinished>,
}

/// A file under another name until it is whole; goes when it is dropped before that.
struct Unfinished {
    partial: PathBuf,
    path: PathBuf,
}

impl Lines {
    /// Opens the file beside its place, as `FILE.partial`, so that a failure on the way leaves what stood there before.
    pub fn open(path: &Path) -> Result<Self> {
        if path == Path::new(STDOUT) {
            let out = Box::new(BufWriter::new(std::io::stdout()));
            return Ok(Self { out, count: 0, name: "standard output".to_owned(), unfinished: None });
        }
        // A link is followed, so that it still points there afterwards.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        // A pipe or a device cannot be replaced and is written as it is.
        let in_place = path.metadata().is_ok_and(|found| !found.is_file());
        let unfinished = (!in_place).then(|| {
            let mut partial = OsString::from(&path);
            partial.push(".partial");
            Unfinished { partial: partial.into(), path: path.clone() }
        });
        let written = unfinished.as_ref().map_or(&path, |unfinished| &unfinished.partial);
        let file = File::create(written)
            .map_err(|error| Failure::user(format!("cannot write {}: {error}", path.display())))?;
        Ok(Self { out: Box::new(BufWriter::new(file)), count: 0, name: path.display().to_string(), unfinished })
    }

    /// Writes one event.
    pub fn send(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        self.count += 1;
        let written = write!(self.out, "{{\"topic\":\"{topic}\",\"event\":")
            .and_then(|()| self.out.write_all(payload))
            .and_then(|()| self.out.write_all(b"}\n"));
        written.map_err(|error| self.failed(error))
    }

    /// Gives the file its name; the number of lines.
    pub fn finish(mut self) -> Result<u64> {
        let flushed = self.out.flush();
        flushed.map_err(|error| self.failed(error))?;
        if let Some(unfinished) = self.unfinished.take() {
            let named = std::fs::rename(&unfinished.partial, &unfinished.path);
            named.map_err(|error| self.failed(error))?;
        }
        Ok(self.count)
    }

    fn failed(&self, error: std::io::Error) -> Failure {
        // `weir replay ... --out - | head`: the reader has had enough, which is no failure.
        if error.kind() == ErrorKind::BrokenPipe && self.unfinished.is_none() {
            std::process::exit(0);
        }
        Failure::outside(format!("cannot write events to {}: {error}", self.name))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename there is nothing of this name any more.
        let _absent = std::fs::remove_file(&self.partial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_as_it_was_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, "earlier\n").unwrap();
        let mut broken_off = Lines::open(&path).unwrap();
        broken_off.send("requests", b"{}").unwrap();
        drop(broken_off);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "earlier\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "half a file was left behind");

        let mut whole = Lines::open(&path).unwrap();
        whole.send("requests", b"{}").unwrap();
        assert_eq!(whole.finish().unwrap(), 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"topic\":\"requests\",\"event\":{}}\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_a_device_stays_a_device() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "earlier\n").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(Lines::open(&link).unwrap().finish().unwrap(), 0);
        assert!(link.is_symlink() && std::fs::read(&file).unwrap().is_empty());
        assert_eq!(Lines::open(Path::new("/dev/null")).unwrap().finish().unwrap(), 0);
        assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
    }
}
