//! Mean, variance and extremes of whole numbers, exactly.
//!
//! Sums of values and of squares are integers, so nothing cancels before the last division, and the order of events changes
//! nothing: the usual running formulas (Welford, 1962) are more exact than sums of floats and still depend on their order.

use arrow::datatypes::i256;

use super::Summary;
use super::varint::{Reader, put, put_signed};

/// Count, sum and sum of squares of signed 64-bit numbers, with the smallest and the largest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Moments {
    count: u64,
    /// Fits: at most 2^64 values of at most 2^63.
    sum: i128,
    squares: u128,
    range: Option<(i64, i64)>,
}

impl Moments {
    /// Sees one value.
    pub fn insert(&mut self, value: i64) {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(i128::from(value));
        self.squares = self.squares.saturating_add(u128::from(value.unsigned_abs()).pow(2));
        self.range = Some(self.range.map_or((value, value), |(min, max)| (min.min(value), max.max(value))));
    }

    /// Number of values seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Smallest and largest value; `None` when empty.
    #[must_use]
    pub fn range(&self) -> Option<(i64, i64)> {
        self.range
    }

    /// Mean; `None` when empty.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// Sample variance, `(n Σx² - (Σx)²) / (n (n - 1))`; `None` below two values.
    #[must_use]
    pub fn variance(&self) -> Option<f64> {
        if self.count < 2 {
            return None;
        }
        let (n, sum) = (i256::from_parts(u128::from(self.count), 0), i256::from_i128(self.sum));
        let spread = n.wrapping_mul(i256::from_parts(self.squares, 0)).wrapping_sub(sum.wrapping_mul(sum));
        let (low, high) = spread.to_parts();
        let spread = high as f64 * 2f64.powi(128) + low as f64;
        let n = self.count as f64;
        Some(spread.max(0.0) / n / (n - 1.0))
    }

    /// Squared coefficient of variation, variance over squared mean: 1 for the gaps of a Poisson process. `None` below two
    /// values and at mean 0.
    #[must_use]
    pub fn squared_cv(&self) -> Option<f64> {
        let mean = self.mean().filter(|mean| *mean != 0.0)?;
        Some(self.variance()? / (mean * mean))
    }

    /// Could these figures be of some values?
    fn is_possible(&self) -> bool {
        let Some((min, max)) = self.range else { return self.count == 0 && self.sum == 0 && self.squares == 0 };
        let n = i128::from(self.count);
        let bound = |edge: i64| n.saturating_mul(i128::from(edge));
        self.count > 0 && min <= max && (bound(min)..=bound(max)).contains(&self.sum)
    }
}

impl Summary for Moments {
    const NAME: &'static str = "moments";

    fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.squares = self.squares.saturating_add(other.squares);
        self.range = match (self.range, other.range) {
            (Some(mine), Some(theirs)) => Some((mine.0.min(theirs.0), mine.1.max(theirs.1))),
            (mine, theirs) => mine.or(theirs),
        };
    }

    // version, count, then unless empty: min, max - min, sum above count times min, sum of squares
    fn put(&self, out: &mut Vec<u8>) {
        put(out, u128::from(self.count));
        if let Some((min, max)) = self.range {
            put_signed(out, min);
            put(out, u128::from(max.abs_diff(min)));
            put(out, self.sum.wrapping_sub(i128::from(self.count).wrapping_mul(i128::from(min))) as u128);
            put(out, self.squares);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        read(reader).filter(Self::is_possible)
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

fn read(reader: &mut Reader<'_>) -> Option<Moments> {
    let count = reader.u64()?;
    if count == 0 {
        return Some(Moments::default());
    }
    let min = reader.signed()?;
    let max = min.checked_add_unsigned(reader.u64()?)?;
    let above = i128::try_from(reader.u128()?).ok()?;
    let sum = i128::from(count).checked_mul(i128::from(min))?.checked_add(above)?;
    Some(Moments { count, sum, squares: reader.u128()?, range: Some((min, max)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[i64]) -> Moments {
        let mut moments = Moments::default();
        values.iter().for_each(|value| moments.insert(*value));
        moments
    }

    #[test]
    fn a_small_spread_on_a_large_value_is_exact() {
        // Deviations -1, 0, 1 around 2^62: sample variance 1, which a sum of 64-bit floats loses.
        let middle = 1i64 << 62;
        assert_eq!(of(&[middle - 1, middle, middle + 1]).variance(), Some(1.0));
    }

    #[test]
    fn the_gaps_of_a_clock_do_not_vary() {
        assert_eq!(of(&[50; 9]).squared_cv(), Some(0.0));
        // Mean 2, variance 2: 1, 1, 4 has deviations 1, 1, 4 squared, over two 3.
        assert_eq!(of(&[1, 1, 4]).squared_cv(), Some(3.0 / 4.0));
        assert_eq!(of(&[7]).variance(), None);
        assert_eq!(of(&[-1, 1]).squared_cv(), None);
    }
}
