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
/// Shifts of the prefix-cache share that are tried.
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
        let changed: Vec<Cell> = cells
            .iter()
            .map(|cell| Cell { cached_share: (cell.cached_share + shift).clamp(0.0, 1.0), ..*cell })
            .collect();
        if changed != cells {
            rows.push(row(
                format!("prefix-cache share {shift:+}"),
                gpus_of(profile, &changed, rate, slo, options, topology),
            ));
        }
    }
    rows
}

impl PoolModel<'_> {
    /// Share of all tokens that are completion: the strongest lever on the size of a fleet.
    pub(crate) fn output_share(&self) -> f64 {
        let sum = |value: fn(&Cell) -> f64| self.cells.iter().map(|cell| cell.weight * value(cell)).sum::<f64>();
        sum(|cell| cell.completion_tokens) / sum(Cell::total_tokens)
    }
}
