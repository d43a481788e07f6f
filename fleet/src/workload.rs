//! What was observed: the joint distribution of lengths, and the arrivals.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Arrivals, FleetError};

/// More cells than this are merged on a logarithmic grid before anything is computed.
const CELLS_MAX: usize = 1024;
/// Bins per doubling of a length in the finest grid of that merge; each coarser one has half as many. A bin of the finest
/// is 9 % wide, of the next 19 %.
const BINS_PER_OCTAVE: f64 = 8.0;
const CACHED_SHARE_BINS: f64 = 10.0;

/// A group of requests with the same (or nearly the same) lengths.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Prompt tokens of one request, cached ones included.
    pub prompt_tokens: f64,
    /// Completion tokens of one request, reasoning included. A request that produced none counts as one.
    pub completion_tokens: f64,
    /// Share of the prompt found in the prefix cache, 0 to 1: it is not computed again, but it still occupies memory.
    #[serde(default)]
    pub cached_share: f64,
    /// Number of requests observed. The bootstrap reads it as a count, so don't normalise it.
    pub weight: f64,
}

impl Cell {
    /// Prompt and completion together.
    pub fn total_tokens(&self) -> f64 {
        self.prompt_tokens + self.completion_tokens
    }

    pub(crate) fn cached_tokens(&self) -> f64 {
        // The last prompt token is always computed: its output is the first completion token.
        (self.prompt_tokens * self.cached_share).min(self.prompt_tokens - 1.0).max(0.0)
    }
}

/// What the fleet must serve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The joint (prompt, completion) distribution.
    pub cells: Vec<Cell>,
    /// When requests come.
    pub arrivals: Arrivals,
}

impl Workload {
    /// One cell a request, merged where lengths coincide.
    pub fn from_requests(requests: impl IntoIterator<Item = (u32, u32)>, arrivals: Arrivals) -> Self {
        let mut counts = BTreeMap::<(u32, u32), f64>::new();
        for lengths in requests {
            *counts.entry(lengths).or_default() += 1.0;
        }
        let cells = counts
            .into_iter()
            .map(|((prompt, completion), weight)| Cell {
                prompt_tokens: f64::from(prompt),
                completion_tokens: f64::from(completion),
                cached_share: 0.0,
                weight,
            })
            .collect();
        Self { cells, arrivals }
    }

    /// Checked, empty cells dropped, lengths of at least one token, and few enough cells to compute with.
    pub(crate) fn prepared(&self) -> Result<Vec<Cell>, FleetError> {
        let mut cells = Vec::with_capacity(self.cells.len());
        for (index, cell) in self.cells.iter().enumerate() {
            let lengths_ok = [cell.prompt_tokens, cell.completion_tokens, cell.weight]
                .iter()
                .all(|value| value.is_finite() && *value >= 0.0);
            if !lengths_ok || !(0.0..=1.0).contains(&cell.cached_share) {
                return Err(FleetError::Workload(format!(
                    "cell {index} has a negative or non-finite length or weight, or a cached share outside 0 to 1"
                )));
            }
            if cell.weight > 0.0 {
                cells.push(Cell {
                    prompt_tokens: cell.prompt_tokens.max(1.0),
                    completion_tokens: cell.completion_tokens.max(1.0),
                    ..*cell
                });
            }
        }
        if cells.is_empty() {
            return Err(FleetError::Workload("it holds no request; widen the time range that it is read from".into()));
        }
        self.arrivals.check()?;
        Ok(few(cells))
    }
}

/// At most [`CELLS_MAX`] cells, on the finest grid that has no more. A grid with one bin for all lengths has as many cells as
/// there are bins of the cached share, so there is such a grid.
fn few(mut cells: Vec<Cell>) -> Vec<Cell> {
    let mut bins_per_octave = BINS_PER_OCTAVE;
    while cells.len() > CELLS_MAX {
        cells = merged(&cells, bins_per_octave);
        bins_per_octave /= 2.0;
    }
    cells
}

/// Cells of one bin become one cell with their mean lengths, so token rates are unchanged.
fn merged(cells: &[Cell], bins_per_octave: f64) -> Vec<Cell> {
    let bin = |tokens: f64| (tokens.log2() * bins_per_octave).floor() as i64;
    let mut bins = BTreeMap::<(i64, i64, i64), Vec<Cell>>::new();
    for cell in cells {
        let cached_bin = (cell.cached_share * CACHED_SHARE_BINS).round() as i64;
        bins.entry((bin(cell.prompt_tokens), bin(cell.completion_tokens), cached_bin)).or_default().push(*cell);
    }
    bins.into_values()
        .map(|members| {
            let weight = total_weight(&members);
            let prompt_tokens = weighted_mean(&members, |cell| cell.prompt_tokens);
            let cached_tokens = weighted_mean(&members, |cell| cell.prompt_tokens * cell.cached_share);
            Cell {
                prompt_tokens,
                completion_tokens: weighted_mean(&members, |cell| cell.completion_tokens),
                cached_share: (cached_tokens / prompt_tokens).min(1.0),
                weight,
            }
        })
        .collect()
}

pub(crate) fn total_weight(cells: &[Cell]) -> f64 {
    cells.iter().map(|cell| cell.weight).sum()
}

pub(crate) fn weighted_mean(cells: &[Cell], value: impl Fn(&Cell) -> f64) -> f64 {
    cells.iter().map(|cell| cell.weight * value(cell)).sum::<f64>() / total_weight(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_cells_keeps_token_rates() {
        let requests =
            (0_u32..60_000).map(|i| (i.wrapping_mul(2_654_435_761) % 7919 + 1, i.wrapping_mul(40_503) % 887));
        let workload = Workload::from_requests(requests, Arrivals::PoissonPerS(1.0));
        let cells = workload.prepared().unwrap();
        assert!(workload.cells.len() > CELLS_MAX && cells.len() < workload.cells.len() / 10);
        let before = |value: fn(&Cell) -> f64| weighted_mean(&workload.cells, value);
        let after = |value: fn(&Cell) -> f64| weighted_mean(&cells, value);
        assert!((after(|c| c.prompt_tokens) / before(|c| c.prompt_tokens) - 1.0).abs() < 1e-9);
        assert!((after(|c| c.completion_tokens) / before(|c| c.completion_tokens.max(1.0)) - 1.0).abs() < 1e-9);
        assert!((total_weight(&cells) - 60_000.0).abs() < 1e-6);
    }

    /// A store's joint histogram has cells 10 % wide, finer than the finest grid could merge; cold and warm ones double it.
    #[test]
    fn cells_of_a_real_log_are_merged_until_there_are_few() {
        let steps = |to: i32| (0..to).map(|step| 1.1_f64.powi(step));
        let cells: Vec<Cell> = steps(110)
            .flat_map(|prompt| steps(80).map(move |completion| (prompt, completion)))
            .flat_map(|(prompt_tokens, completion_tokens)| {
                [0.0, 0.8].map(|cached_share| Cell { prompt_tokens, completion_tokens, cached_share, weight: 1.0 })
            })
            .collect();
        let workload = Workload { cells, arrivals: Arrivals::PoissonPerS(1.0) };
        let few = workload.prepared().unwrap();
        assert!((CELLS_MAX / 8..=CELLS_MAX).contains(&few.len()), "{}", few.len());
        assert!(few.iter().all(|cell| cell.cached_share < 1e-9 || (cell.cached_share - 0.8).abs() < 1e-9));
        let prompts = |cells: &[Cell]| weighted_mean(cells, |c| c.prompt_tokens);
        assert!((prompts(&few) / prompts(&workload.cells) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_empty_or_impossible_workload_is_refused_with_one_sentence() {
        let empty = Workload { cells: vec![], arrivals: Arrivals::PoissonPerS(1.0) };
        assert!(empty.prepared().unwrap_err().to_string().contains("no request"));
        let cell = Cell { prompt_tokens: f64::NAN, completion_tokens: 1.0, cached_share: 0.0, weight: 1.0 };
        let broken = Workload { cells: vec![cell], arrivals: Arrivals::PoissonPerS(1.0) };
        assert!(broken.prepared().unwrap_err().to_string().contains("cell 0"));
        let no_rate =
            Workload { cells: vec![Cell { prompt_tokens: 9.0, ..cell }], arrivals: Arrivals::PoissonPerS(-1.0) };
        assert!(no_rate.prepared().is_err());
    }
}
