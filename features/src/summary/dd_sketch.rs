//! Quantiles within a stated relative error, by buckets fixed in advance.
//!
//! DDSketch: Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
//! PVLDB 12(12), 2019. With `gamma = (1 + alpha) / (1 - alpha)` a value `x > 0` goes to bucket
//! `ceil(log_gamma x)`; answering `2 gamma^i / (gamma + 1)` for bucket `i` is off by at most `alpha x`. This one never
//! collapses buckets (2,200 of them span all 64-bit integers), so the guarantee holds for every quantile.

use std::collections::BTreeMap;

use super::Summary;
use super::log_edges::{Bucket, ONE_PERCENT};
use super::varint::{Reader, put};

/// A quantile sketch over non-negative integers (µs, tokens), with exact count, sum, minimum and maximum.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DdSketch {
    zeros: u64,
    buckets: BTreeMap<Bucket, u64>,
    sum: u128,
    /// Smallest and largest value seen.
    range: Option<(u64, u64)>,
}

impl DdSketch {
    /// Every quantile is within this relative error of the exact nearest-rank quantile.
    pub const RELATIVE_ERROR: f64 = 0.01;

    /// Sees one value.
    pub fn insert(&mut self, value: u64) {
        self.insert_times(value, 1);
    }

    /// Sees one value `times` times.
    pub(crate) fn insert_times(&mut self, value: u64, times: u64) {
        if times == 0 {
            return;
        }
        let count =
            if value == 0 { &mut self.zeros } else { self.buckets.entry(ONE_PERCENT.bucket(value)).or_default() };
        *count = count.saturating_add(times);
        self.sum = self.sum.saturating_add(u128::from(value).saturating_mul(u128::from(times)));
        self.range = Some(self.range.map_or((value, value), |(min, max)| (min.min(value), max.max(value))));
    }

    /// Number of values seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.values().fold(self.zeros, |total, count| total.saturating_add(*count))
    }

    /// Exact sum of the values.
    #[must_use]
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// Exact smallest value; `None` when empty.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        self.range.map(|(min, _)| min)
    }

    /// Exact largest value; `None` when empty.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.range.map(|(_, max)| max)
    }

    /// Mean of the values, from the exact sum; `None` when empty.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.sum as f64 / self.count() as f64)
    }

    /// The value of rank `ceil(q n)` (nearest rank, at least 1), within [`Self::RELATIVE_ERROR`]; `None` when empty or
    /// when `q` is not in 0..=1. `q` is the decimal that was written.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let (min, max) = self.range?;
        if !(0.0..=1.0).contains(&q) {
            return None;
        }
        let rank = rank(q, self.count());
        let mut seen = self.zeros;
        if rank <= seen {
            return Some(0.0);
        }
        for (&bucket, &count) in &self.buckets {
            seen = seen.saturating_add(count);
            if rank <= seen {
                return Some(ONE_PERCENT.estimate(bucket).clamp(min as f64, max as f64));
            }
        }
        Some(max as f64)
    }

    /// The share of values of at most `limit`; `None` when empty. A value within [`Self::RELATIVE_ERROR`] of the limit may
    /// count on either side: a bucket counts whole, on the side of the number that stands for it.
    #[must_use]
    pub fn share_to(&self, limit: f64) -> Option<f64> {
        let (min, max) = self.range?;
        if limit.is_nan() {
            return None;
        }
        if limit >= max as f64 {
            return Some(1.0);
        }
        if limit < min as f64 {
            return Some(0.0);
        }
        let below = self.buckets.iter().take_while(|(bucket, _)| ONE_PERCENT.estimate(**bucket) <= limit);
        let seen = below.fold(self.zeros, |total, (_, count)| total.saturating_add(*count));
        Some(seen as f64 / self.count() as f64)
    }

    fn range_fits_buckets(&self) -> bool {
        let Some((min, max)) = self.range else { return self.is_empty() };
        let (first, last) = (self.buckets.keys().next(), self.buckets.keys().next_back());
        let min_fits = if self.zeros > 0 { min == 0 } else { min > 0 && Some(&ONE_PERCENT.bucket(min)) == first };
        let max_fits = if max == 0 { last.is_none() } else { Some(&ONE_PERCENT.bucket(max)) == last };
        min_fits && max_fits && min <= max && self.sum >= u128::from(max)
    }
}

impl Summary for DdSketch {
    const NAME: &'static str = "ddsketch";

    fn merge(&mut self, other: &Self) {
        self.zeros = self.zeros.saturating_add(other.zeros);
        for (&bucket, &count) in &other.buckets {
            let mine = self.buckets.entry(bucket).or_default();
            *mine = mine.saturating_add(count);
        }
        self.sum = self.sum.saturating_add(other.sum);
        self.range = match (self.range, other.range) {
            (Some(mine), Some(theirs)) => Some((mine.0.min(theirs.0), mine.1.max(theirs.1))),
            (mine, theirs) => mine.or(theirs),
        };
    }

    // version, zeros, number of buckets, (gap to the bucket before, count)*, then sum, min, max - min unless empty
    fn put(&self, out: &mut Vec<u8>) {
        put(out, u128::from(self.zeros));
        put(out, self.buckets.len() as u128);
        let mut next: Bucket = 0;
        for (&bucket, &count) in &self.buckets {
            put(out, u128::from(bucket - next));
            put(out, u128::from(count));
            next = bucket + 1;
        }
        if let Some((min, max)) = self.range {
            put(out, self.sum);
            put(out, u128::from(min));
            put(out, u128::from(max - min));
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        read(reader).filter(Self::range_fits_buckets)
    }

    fn is_empty(&self) -> bool {
        self.zeros == 0 && self.buckets.is_empty()
    }

    fn heap_bytes(&self) -> usize {
        self.buckets.len() * 16
    }
}

/// `ceil(q n)`, at least 1, for the `q` that was written: 0.07 of 100 values is the seventh, although the nearest 64-bit
/// float is a little above 0.07. Reading `q` and multiplying are each off by half a unit in the last place at most, so a
/// product within two units of a whole number is that number.
fn rank(q: f64, n: u64) -> u64 {
    let product = q * n as f64;
    let whole = product.round();
    let rank = if (product - whole).abs() <= 2.0 * f64::EPSILON * product { whole } else { product.ceil() };
    (rank as u64).clamp(1, n.max(1))
}

fn read(reader: &mut Reader<'_>) -> Option<DdSketch> {
    let mut sketch = DdSketch { zeros: reader.u64()?, ..DdSketch::default() };
    let length = reader.u64()?;
    let mut next = 0u64;
    for _ in 0..length {
        let bucket = next.checked_add(reader.u64()?)?;
        if bucket >= ONE_PERCENT.len() as u64 {
            return None;
        }
        let count = reader.u64().filter(|count| *count > 0)?;
        sketch.buckets.insert(bucket as Bucket, count);
        next = bucket + 1;
    }
    if !sketch.is_empty() {
        sketch.sum = reader.u128()?;
        let min = reader.u64()?;
        sketch.range = Some((min, min.checked_add(reader.u64()?)?));
    }
    Some(sketch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sketch_of(values: &[u64]) -> DdSketch {
        let mut sketch = DdSketch::default();
        values.iter().for_each(|value| sketch.insert(*value));
        sketch
    }

    /// Ten thousandths, so that the rank is a quotient of whole numbers.
    fn nearest_rank(sorted: &[u64], q_e4: u64) -> u64 {
        let rank = (q_e4 * sorted.len() as u64).div_ceil(10_000).max(1);
        sorted[rank as usize - 1]
    }

    #[test]
    fn a_quantile_has_the_rank_of_the_decimal_that_was_written() {
        // 0.07 * 100 is 7.000000000000001 in floating point.
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(sketch_of(&values).quantile(0.07), Some(7.0));
    }

    #[test]
    fn small_integers_come_back_exactly() {
        // Buckets below about 50 hold one integer each, so the sketch is exact there.
        let values: Vec<u64> = (0..50).collect();
        let sketch = sketch_of(&values);
        assert_eq!(sketch.quantile(0.5), Some(24.0));
        assert_eq!(sketch.quantile(0.0), Some(0.0));
        assert_eq!(sketch.quantile(1.0), Some(49.0));
        assert_eq!((sketch.count(), sketch.sum()), (50, 49 * 50 / 2));
    }

    #[test]
    fn an_empty_sketch_has_no_quantile() {
        assert_eq!(DdSketch::default().quantile(0.5), None);
        assert_eq!(sketch_of(&[1]).quantile(1.5), None);
        assert_eq!(sketch_of(&[1]).quantile(f64::NAN), None);
    }

    #[test]
    fn the_share_up_to_a_limit_counts_the_limit_and_ends_with_the_range() {
        let sketch = sketch_of(&[0, 0, 3, 5, 8_000]);
        let shares =
            [-1.0, 0.0, 2.9, 3.0, 7_000.0, 7_999.0, 8_000.0, f64::INFINITY].map(|limit| sketch.share_to(limit));
        assert_eq!(shares, [0.0, 0.4, 0.4, 0.6, 0.8, 0.8, 1.0, 1.0].map(Some));
        assert_eq!((sketch.share_to(f64::NAN), DdSketch::default().share_to(1.0)), (None, None));
    }

    #[test]
    fn a_value_seen_many_times_is_as_many_values() {
        let mut at_once = sketch_of(&[7]);
        at_once.insert_times(0, 3);
        at_once.insert_times(9, 2);
        at_once.insert_times(1_000, 0);
        assert_eq!(at_once, sketch_of(&[9, 0, 7, 0, 9, 0]));
    }

    proptest! {
        #[test]
        fn the_rank_is_the_quotient_of_whole_numbers(q_e4 in 0u64..=10_000, n in 1u64..1_000_000_000) {
            let (written, exact) = (q_e4 as f64 / 1e4, (q_e4 * n).div_ceil(10_000).max(1));
            prop_assert_eq!(rank(written, n), exact);
        }

        // The exact nearest-rank quantile of the sorted values is the other implementation here.
        #[test]
        fn quantiles_are_within_one_percent_of_nearest_rank(
            mut values in prop::collection::vec(prop_oneof![0u64..100, 0u64..10_000_000, any::<u64>()], 1..400),
            q_e4 in 0u64..=10_000,
        ) {
            let q = q_e4 as f64 / 1e4;
            let estimate = sketch_of(&values).quantile(q).expect("not empty");
            values.sort_unstable();
            let exact = nearest_rank(&values, q_e4) as f64;
            prop_assert!((estimate - exact).abs() <= 0.010_000_001 * exact, "q {q}: {estimate} for {exact}");
        }
    }
}
