//! Arrivals per second, for rates and for the index of dispersion.

use std::collections::BTreeMap;

use super::varint::{Reader, put, put_signed};
use super::{DdSketch, Summary};

/// How many events arrived in each second that had any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecondCounts {
    /// Seconds since the Unix epoch to arrivals.
    counts: BTreeMap<i64, u64>,
}

impl SecondCounts {
    /// Sees one arrival, in milliseconds since the Unix epoch.
    pub fn insert(&mut self, arrival_ms: i64) {
        let count = self.counts.entry(arrival_ms.div_euclid(1000)).or_default();
        *count = count.saturating_add(1);
    }

    /// Arrivals in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.values().fold(0, |total, count| total.saturating_add(*count))
    }

    /// Seconds with arrivals, in order: (second since the Unix epoch, arrivals).
    pub fn seconds(&self) -> impl Iterator<Item = (i64, u64)> + '_ {
        self.counts.iter().map(|(second, count)| (*second, *count))
    }

    /// Second of the first arrival and of the last, since the Unix epoch; `None` when empty.
    #[must_use]
    pub fn first_and_last_s(&self) -> Option<(i64, i64)> {
        Some((*self.counts.keys().next()?, *self.counts.keys().next_back()?))
    }

    /// Seconds from the first arrival's to the last arrival's, both included; 0 when empty.
    #[must_use]
    pub fn span_s(&self) -> u64 {
        self.first_and_last_s().map_or(0, |(first, last)| last.abs_diff(first).saturating_add(1))
    }

    /// Index of dispersion for counts: variance over mean of arrivals per second, silent seconds between the first
    /// arrival's and the last arrival's included. `None` with fewer than two seconds.
    #[must_use]
    pub fn dispersion(&self) -> Option<f64> {
        self.dispersion_at(1)
    }

    /// Index of dispersion of the counts in windows of `window_s` seconds.
    ///
    /// `I = s^2 / m` with the mean `m` and the sample variance `s^2` (n - 1) over the `n` whole windows between the first
    /// arrival and the last, silent ones included (Cox and Lewis, "The Statistical Analysis of Series of Events", 1966,
    /// section 4.5). A Poisson process has 1 at every length; bursts and a changing rate push it up. `None` with fewer
    /// than two such windows, or when all are silent.
    #[must_use]
    pub fn dispersion_at(&self, window_s: i64) -> Option<f64> {
        let (n, counts) = self.whole_windows(window_s)?;
        let arrivals = counts.iter().fold(0u64, |total, count| total.saturating_add(*count));
        if n < 2 || arrivals == 0 {
            return None;
        }
        let mean = arrivals as f64 / n as f64;
        let silent = (n - counts.len() as u64) as f64 * mean * mean;
        let squares: f64 = counts.iter().map(|count| (*count as f64 - mean).powi(2)).sum();
        Some((squares + silent) / (n - 1) as f64 / mean)
    }

    /// How many arrivals the whole windows of `window_s` seconds had, silent ones included; empty where none is whole.
    #[must_use]
    pub fn by_window(&self, window_s: i64) -> DdSketch {
        let mut arrivals = DdSketch::default();
        if let Some((n, counts)) = self.whole_windows(window_s) {
            arrivals.insert_times(0, n - counts.len() as u64);
            counts.into_iter().for_each(|count| arrivals.insert(count));
        }
        arrivals
    }

    /// The windows of `window_s` seconds that lie wholly between the first arrival's second and the last arrival's: how
    /// many there are, and what came in each that was not silent. Windows begin at multiples of their length since the
    /// Unix epoch, so that a late event moves none.
    fn whole_windows(&self, window_s: i64) -> Option<(u64, Vec<u64>)> {
        let (first_s, last_s) = self.first_and_last_s()?;
        if window_s < 1 {
            return None;
        }
        let from = first_s.div_euclid(window_s) + i64::from(first_s.rem_euclid(window_s) > 0);
        let to = last_s.checked_add(1)?.div_euclid(window_s);
        let n = u64::try_from(to.checked_sub(from)?).ok().filter(|n| *n > 0)?;
        let mut counts = BTreeMap::<i64, u64>::new();
        for (second, arrivals) in self.seconds() {
            let window = second.div_euclid(window_s);
            if (from..to).contains(&window) {
                let count = counts.entry(window).or_default();
                *count = count.saturating_add(arrivals);
            }
        }
        Some((n, counts.into_values().collect()))
    }
}

impl Summary for SecondCounts {
    const NAME: &'static str = "second counts";

    fn merge(&mut self, other: &Self) {
        for (&second, &count) in &other.counts {
            let mine = self.counts.entry(second).or_default();
            *mine = mine.saturating_add(count);
        }
    }

    // version, number of seconds, first second, its count, (gap - 1, count)*
    fn put(&self, out: &mut Vec<u8>) {
        put(out, self.counts.len() as u128);
        let mut before = None;
        for (&second, &count) in &self.counts {
            match before {
                None => put_signed(out, second),
                Some(before) => put(out, u128::from(second.abs_diff(before) - 1)),
            }
            put(out, u128::from(count));
            before = Some(second);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        read(reader).map(|counts| Self { counts })
    }

    fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn heap_bytes(&self) -> usize {
        self.counts.len() * 24
    }
}

fn read(reader: &mut Reader<'_>) -> Option<BTreeMap<i64, u64>> {
    let mut counts = BTreeMap::new();
    let mut before: Option<i64> = None;
    for _ in 0..reader.u64()? {
        let second = match before {
            None => reader.signed()?,
            Some(before) => before.checked_add_unsigned(reader.u64()?.checked_add(1)?)?,
        };
        counts.insert(second, reader.u64().filter(|count| *count > 0)?);
        before = Some(second);
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispersion_counts_silent_seconds() {
        let mut arrivals = SecondCounts::default();
        // Counts per second 2, 0, 0, 2: mean 1, squared deviations 4, sample variance 4/3.
        [0, 1, 3000, 3999].iter().for_each(|ms| arrivals.insert(*ms));
        assert_eq!(arrivals.dispersion(), Some(4.0 / 3.0));
    }

    #[test]
    fn a_steady_clock_has_no_dispersion_and_one_second_has_none_to_tell() {
        let mut arrivals = SecondCounts::default();
        arrivals.insert(500);
        assert_eq!(arrivals.dispersion(), None);
        (1..100).for_each(|second| arrivals.insert(second * 1000));
        assert_eq!(arrivals.dispersion(), Some(0.0));
    }

    #[test]
    fn only_whole_windows_count_and_silent_ones_are_among_them() {
        let mut arrivals = SecondCounts::default();
        // Seconds 5 to 44: of ten seconds the windows from 10, 20 and 30 are whole, with 3, 0 and 1 arrivals.
        [5, 10, 11, 19, 30, 44].iter().for_each(|second| arrivals.insert(second * 1000));
        let by_ten = arrivals.by_window(10);
        assert_eq!((by_ten.count(), by_ten.sum(), by_ten.quantile(0.3), by_ten.max()), (3, 4, Some(0.0), Some(3)));
        // Mean 4/3, squared deviations 25/9 + 16/9 + 1/9 = 14/3, sample variance 7/3.
        assert!((arrivals.dispersion_at(10).unwrap() - 7.0 / 4.0).abs() < 1e-12);
        assert_eq!(arrivals.by_window(1).count(), arrivals.span_s());
        assert_eq!(arrivals.dispersion_at(1), arrivals.dispersion());
        for window_s in [0, -1, 3600] {
            assert_eq!((arrivals.dispersion_at(window_s), arrivals.by_window(window_s).count()), (None, 0));
        }
    }

    #[test]
    fn moments_before_the_epoch_keep_their_second() {
        let mut arrivals = SecondCounts::default();
        arrivals.insert(-1);
        assert_eq!(arrivals.seconds().collect::<Vec<_>>(), [(-1, 1)]);
    }
}
