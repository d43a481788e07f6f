//! Which messages Kafka has acknowledged.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::Position;
use super::segment::Segment;

/// The file that holds how much of the oldest segment is acknowledged. It only saves repetition: without it, or with one
/// that says nothing of the oldest segment, that segment is delivered again.
const FILE: &str = "acknowledged";

/// Acknowledgements by segment.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    segments: BTreeMap<u64, Acknowledged>,
    saved: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Acknowledged {
    id: u64,
    /// A bit for each index.
    bits: Vec<u64>,
    count: u64,
    /// All before this index are acknowledged.
    all_before: u64,
}

impl Acknowledged {
    fn has(&self, index: u64) -> bool {
        let word = usize::try_from(index / 64).ok().and_then(|word| self.bits.get(word));
        word.is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    fn add(&mut self, index: u64) {
        let word = usize::try_from(index / 64).expect("a segment's messages fit into memory");
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        let bit = 1 << (index % 64);
        if self.bits[word] & bit == 0 {
            self.bits[word] |= bit;
            self.count += 1;
        }
        while self.has(self.all_before) {
            self.all_before += 1;
        }
    }
}

impl Ledger {
    /// What was written down of the oldest segment.
    pub(super) fn read(folder: &Path, oldest: Option<&Segment>) -> Self {
        let mut ledger = Self::default();
        let Ok(text) = std::fs::read_to_string(folder.join(FILE)) else { return ledger };
        let Some((id, count)) = text.trim_end().split_once(' ') else { return ledger };
        let (Ok(id), Ok(count)) = (u64::from_str_radix(id, 16), count.parse::<u64>()) else { return ledger };
        if let Some(oldest) = oldest.filter(|oldest| oldest.id == id && count <= oldest.records) {
            for index in 0..count {
                ledger.acknowledge(Position { number: oldest.number, id, index });
            }
        }
        ledger
    }

    /// Writes down how much of the oldest segment is acknowledged, if that has changed.
    pub(super) fn write(&mut self, folder: &Path) -> io::Result<()> {
        let Some(oldest) = self.segments.values().next() else { return Ok(()) };
        let now = (oldest.id, oldest.all_before);
        if self.saved == Some(now) {
            return Ok(());
        }
        let new = folder.join(format!("{FILE}.new"));
        std::fs::write(&new, format!("{:016x} {}\n", now.0, now.1))?;
        std::fs::rename(&new, folder.join(FILE))?;
        self.saved = Some(now);
        Ok(())
    }

    /// Kafka has this message.
    pub(crate) fn acknowledge(&mut self, position: Position) {
        let segment = self.segments.entry(position.number).or_default();
        segment.id = position.id;
        segment.add(position.index);
    }

    /// Has Kafka this message?
    pub(crate) fn has(&self, position: Position) -> bool {
        self.segments.get(&position.number).is_some_and(|segment| segment.has(position.index))
    }

    /// Has Kafka every message of this segment?
    pub(super) fn has_all(&self, segment: &Segment) -> bool {
        self.segments.get(&segment.number).map_or(0, |known| known.count) == segment.records
    }

    /// The segment is gone.
    pub(super) fn forget(&mut self, segment: &Segment) {
        self.segments.remove(&segment.number);
    }

    /// Acknowledged messages of the segments that are still here.
    pub(super) fn acknowledged(&self) -> u64 {
        self.segments.values().map(|segment| segment.count).sum()
    }
}
