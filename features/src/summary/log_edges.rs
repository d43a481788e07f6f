//! Log-spaced bucket boundaries over the non-negative integers.
//!
//! Bucket `i` holds the integers in `(gamma^(i-1), gamma^i]`; zero has a bucket of its own, outside this table. The
//! powers come from repeated multiplication, which IEEE 754 defines to the bit, so every machine has the same table
//! (a logarithm from a maths library would not promise that).

use std::sync::LazyLock;

pub(crate) struct LogEdges {
    gamma: f64,
    /// `gamma^i`.
    powers: Vec<f64>,
    /// `floor(gamma^i)`: the largest integer of bucket `i`. The last one is `u64::MAX`.
    upper: Vec<u64>,
}

/// A bucket's number. No table has more than `u16::MAX` buckets.
pub(crate) type Bucket = u16;

impl LogEdges {
    pub(crate) fn new(gamma: f64) -> Self {
        let (mut powers, mut upper, mut power) = (Vec::new(), Vec::new(), 1.0f64);
        while power < u64::MAX as f64 {
            powers.push(power);
            upper.push(power as u64);
            power *= gamma;
        }
        powers.push(power);
        upper.push(u64::MAX);
        assert!(upper.len() <= usize::from(Bucket::MAX), "gamma {gamma} is too close to 1");
        Self { gamma, powers, upper }
    }

    pub(crate) fn len(&self) -> usize {
        self.upper.len()
    }

    /// The bucket of a positive integer: the first one whose largest integer is not below it.
    pub(crate) fn bucket(&self, value: u64) -> Bucket {
        debug_assert!(value > 0, "zero has its own bucket");
        self.upper.partition_point(|&largest| largest < value) as Bucket
    }

    /// Smallest and largest integer of a bucket.
    pub(crate) fn bounds(&self, bucket: Bucket) -> (u64, u64) {
        let index = usize::from(bucket);
        let below = if index == 0 { 0 } else { self.upper[index - 1] };
        (below + 1, self.upper[index])
    }

    /// The number that stands for a bucket with the least worst relative error: `2 gamma^i / (gamma + 1)`
    /// (DDSketch, lemma 2), or the integer itself where the bucket holds only one.
    pub(crate) fn estimate(&self, bucket: Bucket) -> f64 {
        let (low, high) = self.bounds(bucket);
        if low == high { low as f64 } else { 2.0 * self.powers[usize::from(bucket)] / (self.gamma + 1.0) }
    }
}

/// Boundaries of [`super::DdSketch`]: relative error 1 %.
pub(crate) static ONE_PERCENT: LazyLock<LogEdges> = LazyLock::new(|| {
    let alpha = super::DdSketch::RELATIVE_ERROR;
    LogEdges::new((1.0 + alpha) / (1.0 - alpha))
});

/// Boundaries of [`super::JointHistogram`]: each bucket is at most 10 % wide.
pub(crate) static TEN_PERCENT_WIDE: LazyLock<LogEdges> = LazyLock::new(|| LogEdges::new(1.1));

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket_and_its_estimate_is_within_alpha(value in 1u64..=u64::MAX) {
            let bucket = ONE_PERCENT.bucket(value);
            let (low, high) = ONE_PERCENT.bounds(bucket);
            prop_assert!(low <= value && value <= high);
            let error = (ONE_PERCENT.estimate(bucket) - value as f64).abs() / value as f64;
            prop_assert!(error <= 0.01 + 1e-9, "{value}: {error}");
        }

        #[test]
        fn joint_buckets_are_at_most_ten_percent_wide(value in 1u64..u64::MAX / 2) {
            let (low, high) = TEN_PERCENT_WIDE.bounds(TEN_PERCENT_WIDE.bucket(value));
            // low - 1 is below gamma^(i-1) and high at most gamma^i; whole numbers round that by less than one.
            prop_assert!(high as f64 <= 1.1 * low as f64, "{low}..={high}");
        }
    }
}
