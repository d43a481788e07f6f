//! What the answer would be if one input were different.

use serde::Serialize;

use crate::interval::gpus_of;
use crate::recommend::{Options, Topology};
use crate::sizing::Slo;
use crate::{Cell, GpuProfile, PoolModel, RatePlan};

/// One changed input and the GPUs it leads to, with the chosen topology kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SensitivityRow {
    /// What was changed.
    pub change: String,
    /// GPUs then; `None` if no fleet keeps the objectives.
    pub gpus: Option<u32>,
}

/// Shifts of rate and output that are tried.
const FACTORS: [f64; 2] = [0.8, 1.25];
/// Shifts of the prefix-cache share of all prompt tokens that are tried.
const CACHED_SHIFTS: [f64; 2] = [-0.2, 0.2];

pub(crate) fn sensitivity(
    profile: &GpuProfile,
    cells: &[Cell],
    rate: &RatePlan,
    slo: &Slo,
    options: &Options,
    topology: Topology,
) -> Vec<SensitivityRow> {
    let mut rows = Vec::new();
    let row = |change: String, gpus: Option<u32>| SensitivityRow { change, gpus };
    for factor in FACTORS {
        let gpus = gpus_of(profile, cells, &rate.scaled(factor), slo, options, topology);
        rows.push(row(format!("arrival rate x {factor}"), gpus));
    }
    for factor in FACTORS {
        let changed: Vec<Cell> = cells
            .iter()
            .map(|cell| Cell { completion_tokens: (cell.completion_tokens * factor).max(1.0), ..*cell })
            .collect();
        rows.push(row(
            format!("completion tokens x {factor}"),
            gpus_of(profile, &changed, rate, slo, options, topology),
        ));
    }
    for shift in CACHED_SHIFTS {
        let changed = with_cached_shift(cells, shift);
        if changed != cells {
            rows.push(row(
                format!("prefix-cache share {shift:+}"),
                gpus_of(profile, &changed, rate, slo, options, topology),
            ));
        }
    }
    rows
}

/// Cells whose mean cached share differs by `shift`, as far as there is room: less shrinks what is cached of each prompt,
/// more shrinks what is not, so cold prompts stay cold when caches get worse.
fn with_cached_shift(cells: &[Cell], shift: f64) -> Vec<Cell> {
    let prompt_tokens: f64 = cells.iter().map(|cell| cell.weight * cell.prompt_tokens).sum();
    let cached =
        cells.iter().map(|cell| cell.weight * cell.prompt_tokens * cell.cached_share).sum::<f64>() / prompt_tokens;
    let shifted = |share: f64| {
        if shift < 0.0 {
            share * (cached + shift).max(0.0) / cached.max(f64::MIN_POSITIVE)
        } else {
            1.0 - (1.0 - share) * (1.0 - cached - shift).max(0.0) / (1.0 - cached).max(f64::MIN_POSITIVE)
        }
    };
    cells.iter().map(|cell| Cell { cached_share: shifted(cell.cached_share).clamp(0.0, 1.0), ..*cell }).collect()
}

impl PoolModel<'_> {
    /// Share of all tokens that are completion: the strongest lever on the size of a fleet.
    pub(crate) fn output_share(&self) -> f64 {
        let sum = |value: fn(&Cell) -> f64| self.cells.iter().map(|cell| cell.weight * value(cell)).sum::<f64>();
        sum(|cell| cell.completion_tokens) / sum(Cell::total_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::with_cached_shift;
    use crate::Cell;
    use crate::workload::weighted_mean;

    #[test]
    fn a_shift_of_the_cache_moves_the_share_of_all_prompt_tokens() {
        let cell =
            |prompt_tokens, cached_share| Cell { prompt_tokens, completion_tokens: 9.0, cached_share, weight: 3.0 };
        let cells = [cell(100.0, 0.0), cell(900.0, 0.6), cell(400.0, 0.9)];
        let cached = |cells: &[Cell]| weighted_mean(cells, |c| c.prompt_tokens * c.cached_share);
        let prompt = weighted_mean(&cells, |c| c.prompt_tokens);
        for shift in [-0.2, 0.2] {
            let moved = (cached(&with_cached_shift(&cells, shift)) - cached(&cells)) / prompt;
            assert!((moved - shift).abs() < 1e-9, "{shift}: {moved}");
        }
        assert_eq!(with_cached_shift(&cells, -0.2)[0].cached_share, 0.0);
        assert!(with_cached_shift(&cells, -1.0).iter().all(|cell| cell.cached_share == 0.0));
        assert!(with_cached_shift(&cells, 1.0).iter().all(|cell| cell.cached_share == 1.0));
    }
}
