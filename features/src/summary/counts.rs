//! How often each name came, and each pair of names in a row.
//!
//! Every name is kept, so these are for vocabularies that somebody chose: models, tools, classes. For names that callers
//! make up, [`super::HeavyHitters`] and [`super::Distinct`] are bounded.

use std::collections::BTreeMap;

use super::Summary;
use super::text::{heap_bytes, put_text};
use super::varint::{Reader, put};

/// What is counted: one name, or one after another.
pub trait Counted: Clone + Ord + std::fmt::Debug + Send + Sync + 'static {
    /// Name of the summary in error messages.
    const NAME: &'static str;
    #[doc(hidden)]
    fn put(&self, out: &mut Vec<u8>);
    #[doc(hidden)]
    fn read(reader: &mut Reader<'_>) -> Option<Self>;
    #[doc(hidden)]
    fn bytes(&self) -> usize;
}

/// Counts by key, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts<K: Counted> {
    counts: BTreeMap<K, u64>,
}

/// How often each name came.
pub type NameCounts = Counts<String>;

/// How often the second name followed the first: model to model, tool to tool.
pub type TransitionCounts = Counts<(String, String)>;

impl<K: Counted> Default for Counts<K> {
    fn default() -> Self {
        Self { counts: BTreeMap::new() }
    }
}

impl<K: Counted> Counts<K> {
    /// Sees one.
    pub fn insert(&mut self, key: K) {
        self.add(key, 1);
    }

    fn add(&mut self, key: K, count: u64) {
        let mine = self.counts.entry(key).or_default();
        *mine = mine.saturating_add(count);
    }

    /// How often this one came.
    #[must_use]
    pub fn of(&self, key: &K) -> u64 {
        self.counts.get(key).copied().unwrap_or(0)
    }

    /// How often any came.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().fold(0, |total, count| total.saturating_add(*count))
    }

    /// All of them, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&K, u64)> {
        self.counts.iter().map(|(key, count)| (key, *count))
    }
}

impl Counted for String {
    const NAME: &'static str = "name counts";

    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, self);
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.text()
    }

    fn bytes(&self) -> usize {
        heap_bytes(self)
    }
}

impl Counted for (String, String) {
    const NAME: &'static str = "transition counts";

    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, &self.0);
        put_text(out, &self.1);
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some((reader.text()?, reader.text()?))
    }

    fn bytes(&self) -> usize {
        heap_bytes(&self.0) + heap_bytes(&self.1)
    }
}

impl<K: Counted> Summary for Counts<K> {
    const NAME: &'static str = K::NAME;

    fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|(key, count)| self.add(key.clone(), *count));
    }

    // version, number of keys, (key, count)* by rising key; a name is its length and its bytes
    fn put(&self, out: &mut Vec<u8>) {
        put(out, self.counts.len() as u128);
        for (key, count) in &self.counts {
            key.put(out);
            put(out, u128::from(*count));
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        read(reader).map(|counts| Self { counts })
    }

    fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn heap_bytes(&self) -> usize {
        self.counts.keys().map(|key| key.bytes() + 8).sum()
    }
}

fn read<K: Counted>(reader: &mut Reader<'_>) -> Option<BTreeMap<K, u64>> {
    let mut counts = BTreeMap::new();
    for _ in 0..reader.u64()? {
        let key = K::read(reader)?;
        let rises = counts.last_key_value().is_none_or(|(before, _)| *before < key);
        let count = reader.u64().filter(|count| *count > 0 && rises)?;
        counts.insert(key, count);
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_and_the_way_back_are_two_transitions() {
        let mut counts = TransitionCounts::default();
        let models = ["small", "large", "small", "large"];
        models.windows(2).for_each(|two| counts.insert((two[0].to_owned(), two[1].to_owned())));
        let of = |from: &str, to: &str| counts.of(&(from.to_owned(), to.to_owned()));
        assert_eq!((of("small", "large"), of("large", "small"), of("small", "small")), (2, 1, 0));
        assert_eq!(counts.total(), 3);
    }

    #[test]
    fn bytes_in_another_order_are_refused() {
        let (rising, falling) = ([1, 2, 1, b'a', 1, 1, b'b', 1], [1, 2, 1, b'b', 1, 1, b'a', 1]);
        assert!(NameCounts::from_bytes(&rising).is_ok());
        assert!(NameCounts::from_bytes(&falling).is_err());
    }
}
