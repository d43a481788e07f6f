//! The joint distribution of prompt and completion tokens, fine enough to size a fleet from.
//!
//! A fleet's cost depends on both lengths of the same request, so two marginal sketches will not do. Cells are 10 %
//! wide on each axis. Up to 32 requests are kept as they are: small cells dominate in number, and stay exact.

use std::collections::BTreeMap;

use super::Summary;
use super::log_edges::{Bucket, TEN_PERCENT_WIDE};
use super::varint::{Reader, put};

/// Above this many requests values become cells.
const VALUES_MAX: usize = 32;

/// Counts of (prompt tokens, completion tokens) pairs, with both sums exact.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JointHistogram {
    pairs: Pairs,
    prompt_sum: u128,
    completion_sum: u128,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pairs {
    /// At most [`VALUES_MAX`] pairs, sorted.
    Values(Vec<(u64, u64)>),
    /// More than [`VALUES_MAX`] pairs in all.
    Cells(BTreeMap<(Cell, Cell), u64>),
}

/// 0 for zero tokens, 1 + bucket otherwise.
type Cell = Bucket;

impl Default for Pairs {
    fn default() -> Self {
        Self::Values(Vec::new())
    }
}

/// One cell of the joint distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JointCell {
    /// Prompt tokens that stand for the cell: the value itself, or the middle of at most 10 %.
    pub prompt_tokens: f64,
    /// Completion tokens that stand for the cell.
    pub completion_tokens: f64,
    /// Requests in the cell.
    pub count: u64,
}

impl JointHistogram {
    /// Sees one request.
    pub fn insert(&mut self, prompt_tokens: u64, completion_tokens: u64) {
        self.prompt_sum = self.prompt_sum.saturating_add(u128::from(prompt_tokens));
        self.completion_sum = self.completion_sum.saturating_add(u128::from(completion_tokens));
        self.pairs.add(prompt_tokens, completion_tokens);
    }

    /// Number of requests seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        match &self.pairs {
            Pairs::Values(values) => values.len() as u64,
            Pairs::Cells(cells) => cells.values().fold(0, |total, count| total.saturating_add(*count)),
        }
    }

    /// The share of requests of at most `limit` tokens, prompt and completion together; `None` when empty. A request
    /// within 5 % of the limit may count on either side: a cell counts whole, on the side of its middle.
    #[must_use]
    pub fn share_to(&self, limit: f64) -> Option<f64> {
        let cells = self.cells();
        let fits = |cell: &&JointCell| cell.prompt_tokens + cell.completion_tokens <= limit;
        // Counted whole: a sum of no floats would be -0.0.
        let fitting = cells.iter().filter(fits).fold(0u64, |total, cell| total.saturating_add(cell.count));
        (!cells.is_empty() && !limit.is_nan()).then(|| fitting as f64 / self.count() as f64)
    }

    /// Exact sums of prompt and completion tokens.
    #[must_use]
    pub fn sums(&self) -> (u128, u128) {
        (self.prompt_sum, self.completion_sum)
    }

    /// The cells, in order of prompt then completion tokens.
    #[must_use]
    pub fn cells(&self) -> Vec<JointCell> {
        match &self.pairs {
            Pairs::Values(values) => values
                .chunk_by(|a, b| a == b)
                .map(|same| JointCell {
                    prompt_tokens: same[0].0 as f64,
                    completion_tokens: same[0].1 as f64,
                    count: same.len() as u64,
                })
                .collect(),
            Pairs::Cells(cells) => cells
                .iter()
                .map(|(&(prompt, completion), &count)| JointCell {
                    prompt_tokens: middle(prompt),
                    completion_tokens: middle(completion),
                    count,
                })
                .collect(),
        }
    }
}

impl Pairs {
    fn add(&mut self, prompt: u64, completion: u64) {
        match self {
            Self::Cells(cells) => add_to(cells, (cell(prompt), cell(completion)), 1),
            Self::Values(values) => {
                let at = values.partition_point(|pair| *pair <= (prompt, completion));
                values.insert(at, (prompt, completion));
                if values.len() > VALUES_MAX {
                    *self = Self::Cells(binned(values));
                }
            }
        }
    }

    fn add_cells(&mut self, others: &BTreeMap<(Cell, Cell), u64>) {
        let mut cells = match std::mem::take(self) {
            Self::Cells(cells) => cells,
            Self::Values(values) => binned(&values),
        };
        others.iter().for_each(|(&key, &count)| add_to(&mut cells, key, count));
        *self = Self::Cells(cells);
    }
}

fn add_to(cells: &mut BTreeMap<(Cell, Cell), u64>, key: (Cell, Cell), count: u64) {
    let mine = cells.entry(key).or_default();
    *mine = mine.saturating_add(count);
}

fn binned(values: &[(u64, u64)]) -> BTreeMap<(Cell, Cell), u64> {
    let mut cells = BTreeMap::new();
    values.iter().for_each(|&(prompt, completion)| add_to(&mut cells, (cell(prompt), cell(completion)), 1));
    cells
}

fn cell(tokens: u64) -> Cell {
    if tokens == 0 { 0 } else { 1 + TEN_PERCENT_WIDE.bucket(tokens) }
}

fn middle(cell: Cell) -> f64 {
    let Some(bucket) = cell.checked_sub(1) else { return 0.0 };
    let (low, high) = TEN_PERCENT_WIDE.bounds(bucket);
    low as f64 + (high - low) as f64 / 2.0
}

impl Summary for JointHistogram {
    const NAME: &'static str = "joint histogram";

    fn merge(&mut self, other: &Self) {
        self.prompt_sum = self.prompt_sum.saturating_add(other.prompt_sum);
        self.completion_sum = self.completion_sum.saturating_add(other.completion_sum);
        match &other.pairs {
            Pairs::Values(values) => values.iter().for_each(|&(prompt, completion)| self.pairs.add(prompt, completion)),
            Pairs::Cells(cells) => self.pairs.add_cells(cells),
        }
    }

    // version, number of values, (gap in prompt, completion or its gap)*, or
    // version, VALUES_MAX + number of cells, (gap in prompt cell, completion cell or its gap, count)*, both sums
    fn put(&self, out: &mut Vec<u8>) {
        let mut before = (0u64, 0u64);
        let mut put_pair = |out: &mut Vec<u8>, pair: (u64, u64)| {
            let same_prompt = pair.0 == before.0;
            put(out, u128::from(pair.0 - before.0));
            put(out, u128::from(if same_prompt { pair.1 - before.1 } else { pair.1 }));
            before = pair;
        };
        match &self.pairs {
            Pairs::Values(values) => {
                put(out, values.len() as u128);
                values.iter().for_each(|pair| put_pair(out, *pair));
            }
            Pairs::Cells(cells) => {
                put(out, (VALUES_MAX + cells.len()) as u128);
                for (&(prompt, completion), &count) in cells {
                    put_pair(out, (u64::from(prompt), u64::from(completion)));
                    put(out, u128::from(count));
                }
                put(out, self.prompt_sum);
                put(out, self.completion_sum);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        read(reader)
    }

    fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn heap_bytes(&self) -> usize {
        match &self.pairs {
            Pairs::Values(values) => values.capacity() * 16,
            Pairs::Cells(cells) => cells.len() * 24,
        }
    }
}

fn read(reader: &mut Reader<'_>) -> Option<JointHistogram> {
    let length = reader.u64()?;
    let mut before = (0u64, 0u64);
    let mut read_pair = |reader: &mut Reader<'_>| {
        let gap = reader.u64()?;
        let prompt = before.0.checked_add(gap)?;
        let completion = reader.u64()?;
        before = (prompt, if gap == 0 { before.1.checked_add(completion)? } else { completion });
        Some(before)
    };
    let mut histogram = JointHistogram::default();
    if length <= VALUES_MAX as u64 {
        for _ in 0..length {
            let (prompt, completion) = read_pair(reader)?;
            histogram.insert(prompt, completion);
        }
        return Some(histogram);
    }
    let mut cells = BTreeMap::new();
    for _ in 0..length - VALUES_MAX as u64 {
        let (prompt, completion) = read_pair(reader)?;
        let known = |cell: u64| (cell <= TEN_PERCENT_WIDE.len() as u64).then_some(cell as Cell);
        let count = reader.u64().filter(|count| *count > 0)?;
        let repeated = cells.insert((known(prompt)?, known(completion)?), count).is_some();
        if repeated {
            return None;
        }
    }
    (histogram.prompt_sum, histogram.completion_sum) = (reader.u128()?, reader.u128()?);
    histogram.pairs = Pairs::Cells(cells);
    (histogram.count() > VALUES_MAX as u64).then_some(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_up_to_a_limit_is_of_both_lengths_together() {
        let mut histogram = JointHistogram::default();
        assert_eq!(histogram.share_to(100.0), None);
        [(10, 90), (10, 91), (100, 0), (0, 1)]
            .iter()
            .for_each(|&(prompt, completion)| histogram.insert(prompt, completion));
        assert_eq!(histogram.share_to(100.0), Some(0.75));
        assert_eq!(histogram.share_to(0.5).map(f64::to_bits), Some(0.0f64.to_bits()));
    }

    #[test]
    fn up_to_32_requests_are_kept_exactly() {
        let mut histogram = JointHistogram::default();
        (0..32).for_each(|i| histogram.insert(1000 + i / 2, 7));
        let cells = histogram.cells();
        assert_eq!(cells.len(), 16);
        assert_eq!(cells[3], JointCell { prompt_tokens: 1003.0, completion_tokens: 7.0, count: 2 });
    }

    #[test]
    fn above_32_requests_a_cell_is_within_five_percent_and_sums_stay_exact() {
        let mut histogram = JointHistogram::default();
        (0..33).for_each(|_| histogram.insert(12_345, 678));
        let cells = histogram.cells();
        assert_eq!((cells.len(), cells[0].count), (1, 33));
        assert!((cells[0].prompt_tokens / 12_345.0 - 1.0).abs() <= 0.05, "{cells:?}");
        assert!((cells[0].completion_tokens / 678.0 - 1.0).abs() <= 0.05, "{cells:?}");
        assert_eq!(histogram.sums(), (33 * 12_345, 33 * 678));
    }
}
