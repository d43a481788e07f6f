//! Segment files: their names, their header, and what a crash left of them.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::record::{self, Decoded, HEADER_BYTES, MAGIC};

/// A segment as far as it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its place in the order.
    pub(super) number: u64,
    /// Random, so that positions of another life of this folder are not taken for ours.
    pub(super) id: u64,
    /// Length up to the last durable record.
    pub(super) durable_bytes: u64,
    /// Durable records.
    pub(super) records: u64,
    /// Nothing more is appended to it.
    pub(super) sealed: bool,
}

pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.segment"))
}

/// The buffer holds what senders sent: only its owner may read it.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// A new, empty segment; its file and its name are durable.
pub(super) fn create(folder: &Path, number: u64) -> io::Result<(File, Segment)> {
    let id: u64 = rand::random();
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(path(folder, number))?;
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&id.to_le_bytes());
    file.write_all(&header)?;
    file.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok((file, Segment { number, id, durable_bytes: HEADER_BYTES, records: 0, sealed: false }))
}

/// The segments of a folder, oldest first, each cut after its last whole record; and how many bytes were cut off.
pub(super) fn recover(folder: &Path) -> io::Result<(VecDeque<Segment>, u64)> {
    let mut numbers: Vec<u64> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(".segment")).and_then(|name| name.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    let mut segments = VecDeque::new();
    let mut torn_bytes = 0;
    for number in numbers {
        let path = path(folder, number);
        let mut bytes = Vec::new();
        File::open(&path)?.read_to_end(&mut bytes)?;
        let segment = scan(number, &bytes);
        let kept = segment.as_ref().map_or(0, |segment| segment.durable_bytes);
        torn_bytes += bytes.len() as u64 - kept;
        match segment {
            Some(segment) if segment.records > 0 => {
                if kept < bytes.len() as u64 {
                    let file = File::options().write(true).open(&path)?;
                    file.set_len(kept)?;
                    file.sync_all()?;
                }
                segments.push_back(segment);
            }
            // A crash came between making the file and its first record.
            _ => std::fs::remove_file(&path)?,
        }
    }
    Ok((segments, torn_bytes))
}

/// The segment up to its last whole record; `None` when not even its header is whole.
fn scan(number: u64, bytes: &[u8]) -> Option<Segment> {
    let id = bytes.strip_prefix(MAGIC)?.first_chunk::<8>()?;
    let mut at = usize::try_from(HEADER_BYTES).ok()?;
    let mut records = 0;
    while let Decoded::Record(_, used) = record::decode(&bytes[at..]) {
        at += used;
        records += 1;
    }
    Some(Segment { number, id: u64::from_le_bytes(*id), durable_bytes: at as u64, records, sealed: true })
}
