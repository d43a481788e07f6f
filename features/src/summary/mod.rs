//! Mergeable summaries: values with an associative, commutative merge, an identity and one byte form.
//!
//! Any split of the events, any order of the merges and any restart gives the same bytes. That rests on three habits:
//! bucket boundaries are fixed before the first event, everything that is added is an integer (float sums depend on
//! their order), and the encoding writes sorted keys with the shortest varints, so equal values have equal bytes.

mod beta_counts;
mod counts;
mod dd_sketch;
mod decayed_sum;
mod distinct;
mod first_last;
mod fixed_histogram;
mod joint_histogram;
mod log_edges;
mod moments;
mod sample;
mod second_counts;
mod setting;
mod text;
mod varint;

#[cfg(test)]
mod laws;

pub use beta_counts::BetaCounts;
pub use counts::{Counted, Counts, NameCounts, TransitionCounts};
pub use dd_sketch::DdSketch;
pub use decayed_sum::DecayedSum;
pub use distinct::Distinct;
pub use first_last::FirstLast;
pub use fixed_histogram::FixedHistogram;
pub use joint_histogram::{JointCell, JointHistogram};
pub use moments::Moments;
pub use sample::{HeavyHitters, Sample};
pub use second_counts::SecondCounts;

use self::varint::Reader;
use crate::FeaturesError;

/// A commutative monoid with a canonical byte form. [`Default`] is its identity.
///
/// Laws, checked by property tests down to the bytes: `merge` is associative and commutative, merging the identity
/// changes nothing, and `from_bytes(to_bytes(x)) == x`.
pub trait Summary: Clone + Default + PartialEq + Eq + std::fmt::Debug + Send + Sync + 'static {
    /// Name of this summary in error messages.
    const NAME: &'static str;
    /// Version of its bytes.
    const VERSION: u8 = 1;

    /// Adds everything that `other` has seen.
    fn merge(&mut self, other: &Self);

    /// The canonical bytes: equal summaries give equal bytes. The first byte is the format's version.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![Self::VERSION];
        self.put(&mut out);
        out
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// [`FeaturesError::BadSummary`] on a wrong version, truncated, trailing or non-canonical bytes. Never panics.
    fn from_bytes(bytes: &[u8]) -> Result<Self, FeaturesError> {
        let bad = |why| FeaturesError::BadSummary { kind: Self::NAME, why };
        let mut reader = Reader(bytes);
        if reader.byte() != Some(Self::VERSION) {
            return Err(bad("its version is another one"));
        }
        let summary = Self::read(&mut reader).ok_or_else(|| bad("it is truncated or contradicts itself"))?;
        if reader.at_end() { Ok(summary) } else { Err(bad("bytes follow its end")) }
    }

    #[doc(hidden)]
    fn put(&self, out: &mut Vec<u8>);

    /// `None` for what no [`Self::put`] writes.
    #[doc(hidden)]
    fn read(reader: &mut Reader<'_>) -> Option<Self>;

    /// Has it seen nothing?
    fn is_empty(&self) -> bool;

    /// Bytes that it holds on the heap, roughly: what the accumulators report to the query engine, which charges a query's
    /// memory limit with it.
    fn heap_bytes(&self) -> usize;
}
