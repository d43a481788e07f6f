//! Counts between edges that somebody chose, such as an SLO's.

use super::Summary;
use super::setting::{OfOneSetting, Set};
use super::varint::{Reader, put, put_signed};

/// More edges than this are better served by a quantile sketch.
const EDGES_MAX: usize = 1_000;

/// Counts of whole numbers below the first edge, from each edge to the next, and from the last one on.
pub type FixedHistogram = OfOneSetting<Bins>;

/// Edges and the counts between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bins {
    edges: Vec<i64>,
    /// One more than there are edges.
    counts: Vec<u64>,
}

impl FixedHistogram {
    /// Edges from their text: whole numbers that rise, with commas between them.
    ///
    /// # Errors
    /// A sentence that says how to mend the text.
    pub fn edges(text: &str) -> Result<Vec<i64>, String> {
        let edges: Result<Vec<i64>, _> = text.split(',').map(|edge| edge.trim().parse()).collect();
        let edges = edges.map_err(|_| format!("'{text}' are no edges: write whole numbers, such as '100,250,1000'"))?;
        let rise = edges.windows(2).all(|two| two[0] < two[1]);
        if !rise || edges.len() > EDGES_MAX {
            return Err(format!("'{text}' are no edges: give at most {EDGES_MAX} that rise"));
        }
        Ok(edges)
    }

    /// Sees one value; the edges rise and are the same at every call.
    pub fn insert(&mut self, edges: &[i64], value: i64) {
        match self {
            OfOneSetting::One(bins) if bins.edges == edges => bins.add(value),
            seen => {
                let mut bins = Bins { edges: edges.to_vec(), counts: vec![0; edges.len() + 1] };
                bins.add(value);
                seen.merge(&OfOneSetting::One(bins));
            }
        }
    }

    /// Edges, and counts, of which there is one more; empty when nothing was seen, `None` when edges differed.
    #[must_use]
    pub fn bins(&self) -> Option<(&[i64], &[u64])> {
        match self {
            OfOneSetting::Nothing => Some((&[], &[])),
            OfOneSetting::One(bins) => Some((&bins.edges, &bins.counts)),
            OfOneSetting::Mixed => None,
        }
    }

    /// The share of values below an edge; `None` when it is none of the edges, or nothing was seen.
    #[must_use]
    pub fn share_below(&self, edge: i64) -> Option<f64> {
        let (edges, counts) = self.bins()?;
        let place = edges.binary_search(&edge).ok()?;
        let total: f64 = counts.iter().map(|count| *count as f64).sum();
        Some(counts[..=place].iter().map(|count| *count as f64).sum::<f64>() / total)
    }
}

impl Bins {
    fn add(&mut self, value: i64) {
        let count = &mut self.counts[self.edges.partition_point(|edge| *edge <= value)];
        *count = count.saturating_add(1);
    }
}

impl Set for Bins {
    const NAME: &'static str = "histogram";

    fn has_the_setting_of(&self, other: &Self) -> bool {
        self.edges == other.edges
    }

    fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine = mine.saturating_add(*theirs));
    }

    // number of edges, the first, (gap - 1)*, counts
    fn put(&self, out: &mut Vec<u8>) {
        put(out, self.edges.len() as u128);
        self.edges.first().iter().for_each(|edge| put_signed(out, **edge));
        self.edges.windows(2).for_each(|two| put(out, u128::from(two[1].abs_diff(two[0]) - 1)));
        self.counts.iter().for_each(|count| put(out, u128::from(*count)));
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let length = reader.u64().filter(|length| (1..=EDGES_MAX as u64).contains(length))? as usize;
        let mut edges = vec![reader.signed()?];
        while edges.len() < length {
            let gap = reader.u64()?.checked_add(1)?;
            edges.push(edges[edges.len() - 1].checked_add_unsigned(gap)?);
        }
        let counts = (0..=length).map(|_| reader.u64()).collect::<Option<Vec<_>>>()?;
        // An empty one has no edges.
        counts.iter().any(|count| *count > 0).then_some(Self { edges, counts })
    }

    fn heap_bytes(&self) -> usize {
        8 * (self.edges.len() + self.counts.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_an_edge_is_above_it() {
        let mut histogram = FixedHistogram::default();
        let edges = FixedHistogram::edges("100, 250").unwrap();
        [-5, 99, 100, 249, 250, i64::MAX].iter().for_each(|value| histogram.insert(&edges, *value));
        assert_eq!(histogram.bins(), Some((&[100, 250][..], &[2, 2, 2][..])));
        assert_eq!(histogram.share_below(250), Some(4.0 / 6.0));
        assert_eq!(histogram.share_below(251), None);
    }

    #[test]
    fn other_edges_do_not_add_up_to_a_wrong_number() {
        let mut histogram = FixedHistogram::default();
        histogram.insert(&[1], 0);
        histogram.insert(&[2], 0);
        assert_eq!(histogram.bins(), None);
        assert!(FixedHistogram::edges("5,5").unwrap_err().contains("that rise"));
        assert!(FixedHistogram::edges("").unwrap_err().contains("whole numbers"));
    }
}
