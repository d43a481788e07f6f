//! Members that no column takes: how many, and the first names, so that a renamed field is noticed.

/// Names that are kept of one run of rows.
const NAMES_MAX: usize = 8;
/// Bytes that are kept of a name.
const NAME_BYTES_MAX: usize = 64;

/// Counts of good rows; what a bad row had is forgotten with it.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    count: u64,
    names: Vec<String>,
    /// How far they were before the row at hand.
    before: (u64, usize),
}

impl Unknown {
    pub(super) fn begin_row(&mut self) {
        self.before = (self.count, self.names.len());
    }

    pub(super) fn forget_row(&mut self) {
        self.count = self.before.0;
        self.names.truncate(self.before.1);
    }

    /// Counts a member; true when its name is wanted.
    #[inline]
    pub(super) fn meet(&mut self) -> bool {
        self.count += 1;
        self.names.len() < NAMES_MAX
    }

    pub(super) fn name(&mut self, name: &[u8]) {
        let mut end = name.len().min(NAME_BYTES_MAX);
        // Not within a character.
        while end > 0 && name.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
            end -= 1;
        }
        let name = String::from_utf8_lossy(&name[..end]);
        if !self.names.iter().any(|known| *known == name) {
            self.names.push(name.into_owned());
        }
    }

    /// The count and the names; empty afterwards.
    pub(super) fn take(&mut self) -> (u64, Vec<String>) {
        self.before = (0, 0);
        (std::mem::take(&mut self.count), std::mem::take(&mut self.names))
    }
}
