//! Mergeable summaries: values with an associative, commutative merge, an identity and one byte form.
//!
//! Any split of the events, any order of the merges and any restart gives the same bytes. That rests on three habits:
//! bucket boundaries are fixed before the first event, everything that is added is an integer (float sums depend on
//! their order), and the encoding writes sorted keys with the shortest varints, so equal values have equal bytes.

mod dd_sketch;
mod joint_histogram;
mod log_edges;
mod second_counts;
mod varint;

#[cfg(test)]
mod laws;

pub use dd_sketch::DdSketch;
pub use joint_histogram::{JointCell, JointHistogram};
pub use second_counts::SecondCounts;

use crate::FeaturesError;

/// A commutative monoid with a canonical byte form. [`Default`] is its identity.
///
/// Laws, checked by property tests down to the bytes: `merge` is associative and commutative, merging the identity
/// changes nothing, and `from_bytes(to_bytes(x)) == x`.
pub trait Summary: Clone + Default + PartialEq + Eq + std::fmt::Debug + Send + Sync + 'static {
    /// Name of this summary in error messages.
    const NAME: &'static str;

    /// Adds everything that `other` has seen.
    fn merge(&mut self, other: &Self);

    /// The canonical bytes: equal summaries give equal bytes. The first byte is the format's version.
    fn to_bytes(&self) -> Vec<u8>;

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// [`FeaturesError::BadSummary`] on a wrong version, truncated, trailing or non-canonical bytes. Never panics.
    fn from_bytes(bytes: &[u8]) -> Result<Self, FeaturesError>;

    /// Has it seen nothing?
    fn is_empty(&self) -> bool;

    /// Bytes that it holds on the heap, roughly: what the accumulators report to the query engine, which charges a query's
    /// memory limit with it.
    fn heap_bytes(&self) -> usize;
}

/// Shorthand for the one error that reading a summary gives.
pub(crate) fn bad<S: Summary>(why: &'static str) -> FeaturesError {
    FeaturesError::BadSummary { kind: S::NAME, why }
}
