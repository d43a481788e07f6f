//! Which pool a request goes to, by what the router knows when it arrives.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Cell;

/// Prompt bins per doubling, for predicting a completion from its prompt.
const PROMPT_BINS_PER_OCTAVE: f64 = 2.0;

/// What the router knows of a request's length at arrival, and how often it is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Knowledge {
    /// The prompt's length, and this quantile (0 to 1) of the completions seen with prompts of about that length. Its
    /// errors are then those that the observed distribution implies.
    PromptAndQuantile(f64),
    /// The total length, wrong for this share of requests of either kind: for routers with a predictor of their own.
    TotalWithErrorShare(f64),
}

impl Default for Knowledge {
    fn default() -> Self {
        Self::PromptAndQuantile(0.75)
    }
}

/// The two streams behind a router. Their weights add up to those of the input, cell by cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Requests sent to the short pool.
    pub short: Vec<Cell>,
    /// Requests sent to the long pool.
    pub long: Vec<Cell>,
    /// Share of requests in the pool that their true length does not belong to.
    pub misrouted_share: f64,
}

/// Sends requests with a predicted total of at most `boundary_tokens` to the short pool.
pub fn split(cells: &[Cell], boundary_tokens: f64, knowledge: Knowledge) -> Split {
    let predicted = predicted_totals(cells, knowledge);
    let error = match knowledge {
        Knowledge::TotalWithErrorShare(share) => share,
        Knowledge::PromptAndQuantile(_) => 0.0,
    };
    let mut split = Split { short: Vec::new(), long: Vec::new(), misrouted_share: 0.0 };
    let (mut misrouted, mut total) = (0.0, 0.0);
    for (cell, predicted_tokens) in cells.iter().zip(predicted) {
        let to_short = if predicted_tokens <= boundary_tokens { 1.0 - error } else { error };
        for (pool, share) in [(&mut split.short, to_short), (&mut split.long, 1.0 - to_short)] {
            if share > 0.0 {
                pool.push(Cell { weight: cell.weight * share, ..*cell });
            }
        }
        let truly_short = cell.total_tokens() <= boundary_tokens;
        misrouted += cell.weight * if truly_short { 1.0 - to_short } else { to_short };
        total += cell.weight;
    }
    split.misrouted_share = misrouted / total;
    split
}

fn predicted_totals(cells: &[Cell], knowledge: Knowledge) -> Vec<f64> {
    match knowledge {
        Knowledge::TotalWithErrorShare(_) => cells.iter().map(Cell::total_tokens).collect(),
        Knowledge::PromptAndQuantile(quantile) => {
            let bin = |cell: &Cell| (cell.prompt_tokens.max(1.0).log2() * PROMPT_BINS_PER_OCTAVE).floor() as i64;
            let mut completions = BTreeMap::<i64, Vec<(f64, f64)>>::new();
            for cell in cells {
                completions.entry(bin(cell)).or_default().push((cell.completion_tokens, cell.weight));
            }
            let expected: BTreeMap<i64, f64> =
                completions.into_iter().map(|(bin, seen)| (bin, weighted_quantile(seen, quantile))).collect();
            cells.iter().map(|cell| cell.prompt_tokens + expected[&bin(cell)]).collect()
        }
    }
}

/// Smallest value with at least this share of the weight at or below it.
pub(crate) fn weighted_quantile(mut values: Vec<(f64, f64)>, quantile: f64) -> f64 {
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wanted = quantile * values.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut seen = 0.0;
    for (value, weight) in &values {
        seen += weight;
        if seen >= wanted {
            return *value;
        }
    }
    values.last().map_or(0.0, |(value, _)| *value)
}

/// Boundaries worth trying: powers of two and the values half way between, that leave 1 % or more on either side.
pub(crate) fn default_boundaries(cells: &[Cell]) -> Vec<u32> {
    let total: f64 = cells.iter().map(|cell| cell.weight).sum();
    (6..=17)
        .flat_map(|power| [1_u32 << power, (1 << power) + (1 << (power - 1))])
        .filter(|boundary| {
            let below: f64 =
                cells.iter().filter(|c| c.total_tokens() <= f64::from(*boundary)).map(|cell| cell.weight).sum();
            (0.01..=0.99).contains(&(below / total))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cells() -> impl Strategy<Value = Vec<Cell>> {
        let cell = (1_u32..60_000, 1_u32..4000, 1_u32..500).prop_map(|(prompt, completion, weight)| Cell {
            prompt_tokens: f64::from(prompt),
            completion_tokens: f64::from(completion),
            cached_share: 0.0,
            weight: f64::from(weight),
        });
        prop::collection::vec(cell, 1..40)
    }

    proptest! {
        /// The defects where mass counted in a pool's rate but not in its service times: off a CDF knot, and past it.
        #[test]
        fn no_request_and_no_token_is_lost_at_any_boundary(
            cells in cells(), boundary in 1.0..70_000.0_f64, error in 0.0..0.5_f64
        ) {
            for knowledge in [Knowledge::default(), Knowledge::TotalWithErrorShare(error)] {
                let split = split(&cells, boundary, knowledge);
                let sum = |cells: &[Cell], value: fn(&Cell) -> f64| cells.iter().map(value).sum::<f64>();
                for value in [|c: &Cell| c.weight, |c: &Cell| c.weight * c.total_tokens()] {
                    let both = sum(&split.short, value) + sum(&split.long, value);
                    prop_assert!((both / sum(&cells, value) - 1.0).abs() < 1e-9);
                }
            }
        }

        #[test]
        fn a_router_that_knows_the_total_misroutes_exactly_its_error_share(
            cells in cells(), boundary in 1.0..70_000.0_f64, error in 0.0..0.5_f64
        ) {
            let split = split(&cells, boundary, Knowledge::TotalWithErrorShare(error));
            prop_assert!((split.misrouted_share - error).abs() < 1e-9);
        }
    }
}
