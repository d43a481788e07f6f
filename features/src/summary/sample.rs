//! A sample of events that does not depend on order, split or restart, and the frequent names in it.
//!
//! Of all events the ones with the smallest hashes of their ids are kept (bottom-k: Cohen and Kaplan, "Summarizing data using
//! bottom-k sketches", PODC 2007). Ids are unlike their hashes, so that is a uniform sample without replacement; the union's
//! smallest are among the parts' smallest, so that it merges exactly. The usual sketches of frequent items (Misra and
//! Gries, `SpaceSaving`) merge within their error and not down to the bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::Summary;
use super::text::{hash, heap_bytes, put_text};
use super::varint::{Reader, put};

/// The `K` smallest pairs of an id's hash and a text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct BottomK<const K: usize>(BTreeSet<(u64, String)>);

impl<const K: usize> BottomK<K> {
    fn add(&mut self, hash: u64, text: &str) {
        let is_full = self.0.len() == K;
        if is_full && self.0.last().is_some_and(|(highest, last)| (*highest, last.as_str()) <= (hash, text)) {
            return;
        }
        let is_new = self.0.insert((hash, text.to_owned()));
        if is_new && is_full {
            self.0.pop_last();
        }
    }

    fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(hash, text)| self.add(*hash, text));
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, text)| text.as_str())
    }

    // number of pairs, (gap of the hash, text)* by rising pair
    fn put(&self, out: &mut Vec<u8>) {
        put(out, self.0.len() as u128);
        let mut before = 0;
        for (hash, text) in &self.0 {
            put(out, u128::from(hash - before));
            put_text(out, text);
            before = *hash;
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let length = reader.u64().filter(|length| *length <= K as u64)?;
        let (mut pairs, mut before) = (BTreeSet::new(), 0u64);
        for _ in 0..length {
            let hash = before.checked_add(reader.u64()?)?;
            let pair = (hash, reader.text()?);
            if pairs.last().is_some_and(|last| *last >= pair) {
                return None;
            }
            pairs.insert(pair);
            before = hash;
        }
        Some(Self(pairs))
    }

    fn heap_bytes(&self) -> usize {
        self.texts().map(|text| heap_bytes(text) + 8).sum()
    }
}

/// Ids kept in a [`Sample`].
const SAMPLE_MAX: usize = 64;

/// Up to 64 ids, a uniform sample of the different ones seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample(BottomK<SAMPLE_MAX>);

impl Sample {
    /// Sees one id.
    pub fn insert(&mut self, id: &str) {
        self.0.add(hash(id), id);
    }

    /// The ids, in the order of their hashes: the first n are a sample of n.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.texts()
    }
}

impl Summary for Sample {
    const NAME: &'static str = "sample";

    fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    // version, bottom-k whose texts are the ids
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let sample = BottomK::read(reader)?;
        let are_hashes = sample.0.iter().all(|(hashed, id)| *hashed == hash(id));
        are_hashes.then_some(Self(sample))
    }

    fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }

    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

/// Events kept by [`HeavyHitters`].
const EVENTS_MAX: usize = 512;

/// Which names are frequent, from a uniform sample of 512 events: exact up to so many, and above a name's share `p` has the
/// standard error `sqrt(p (1 - p) / 512)`, 2.2 points at most. A name with a share above 1.8 % is missing with a
/// probability below one in ten thousand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeavyHitters {
    events: u64,
    sample: BottomK<EVENTS_MAX>,
}

impl HeavyHitters {
    /// Sees the name that one event has. Each event's id is seen once.
    pub fn insert(&mut self, name: &str, event_id: &str) {
        self.events = self.events.saturating_add(1);
        self.sample.add(hash(event_id), name);
    }

    /// Events seen.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The most frequent names with how many events had them, estimated, most frequent first.
    #[must_use]
    pub fn top(&self, names: usize) -> Vec<(&str, f64)> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        self.sample.texts().for_each(|name| *counts.entry(name).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().collect();
        // The sort is stable: names of the same count stay in their order.
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let events_of_one = self.events as f64 / self.sample.0.len().max(1) as f64;
        counts.into_iter().take(names).map(|(name, count)| (name, count as f64 * events_of_one)).collect()
    }
}

impl Summary for HeavyHitters {
    const NAME: &'static str = "heavy hitters";

    fn merge(&mut self, other: &Self) {
        self.events = self.events.saturating_add(other.events);
        self.sample.merge(&other.sample);
    }

    // version, events, bottom-k whose texts are names
    fn put(&self, out: &mut Vec<u8>) {
        put(out, u128::from(self.events));
        self.sample.put(out);
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let hitters = Self { events: reader.u64()?, sample: BottomK::read(reader)? };
        let kept = hitters.sample.0.len() as u64;
        (kept <= hitters.events && (kept > 0) == (hitters.events > 0)).then_some(hitters)
    }

    fn is_empty(&self) -> bool {
        self.events == 0
    }

    fn heap_bytes(&self) -> usize {
        self.sample.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_512_events_are_counted_exactly() {
        let mut hitters = HeavyHitters::default();
        (0..400).for_each(|n| hitters.insert(["a", "b", "a", "c"][n % 4], &n.to_string()));
        assert_eq!(hitters.top(2), [("a", 200.0), ("b", 100.0)]);
    }

    #[test]
    fn shares_of_many_events_are_within_four_standard_errors() {
        let mut hitters = HeavyHitters::default();
        for n in 0..200_000u32 {
            let name = if n % 10 < 3 { "often".to_owned() } else { format!("once-{n}") };
            hitters.insert(&name, &format!("request-{n}"));
        }
        let (name, events) = hitters.top(1)[0];
        let error = (0.3f64 * 0.7 / 512.0).sqrt();
        assert_eq!((name, hitters.events()), ("often", 200_000));
        assert!((events / 200_000.0 - 0.3).abs() < 4.0 * error, "{events}");
    }

    #[test]
    fn a_sample_is_as_likely_to_hold_a_late_id_as_an_early_one() {
        let mut sample = Sample::default();
        (0..10_000).for_each(|n| sample.insert(&format!("request-{n:05}")));
        let late = sample.ids().filter(|id| *id >= "request-05000").count();
        // Of 64, 32 are expected, with a standard deviation of 4; the ids are fixed.
        assert!((16..=48).contains(&late), "{late}");
        assert_eq!(sample.ids().count(), 64);
    }
}
