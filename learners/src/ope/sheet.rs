//! Sums by cluster, and estimators as sums of ratios of them.
//!
//! Every estimator here is `Σ_k N_k / D_k`, where each numerator and denominator adds up over decisions: so clusters enter as their
//! sums, and one pass over the rows serves all estimators, their intervals and every resample.

use super::interval::Estimate;
use crate::stats::student_t_quantile;

/// One row of sums for each cluster, in one piece of memory.
#[derive(Debug, Clone)]
pub(super) struct Sheet {
    width: usize,
    values: Vec<f64>,
    totals: Vec<f64>,
}

impl Sheet {
    /// A sheet of `clusters` rows of `width` columns, filled by `fill`, which adds each decision to the row of its cluster.
    /// Clusters to which it adds nothing to column 0, the number of decisions, are left out.
    pub(super) fn new(clusters: usize, width: usize, fill: impl FnOnce(&mut [f64])) -> Self {
        let mut values = vec![0.0; clusters * width];
        fill(&mut values);
        let mut kept = 0;
        for cluster in 0..clusters {
            if values[cluster * width] != 0.0 {
                values.copy_within(cluster * width..(cluster + 1) * width, kept * width);
                kept += 1;
            }
        }
        values.truncate(kept * width);
        let mut totals = vec![0.0; width];
        for row in values.chunks_exact(width) {
            totals.iter_mut().zip(row).for_each(|(total, value)| *total += value);
        }
        Self { width, values, totals }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn clusters(&self) -> usize {
        self.values.len() / self.width
    }

    pub(super) fn totals(&self) -> &[f64] {
        &self.totals
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.width)
    }

    pub(super) fn values(&self) -> &[f64] {
        &self.values
    }
}

/// A numerator, columns with their signs, over a column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ratio {
    pub(super) numerator: Vec<(usize, f64)>,
    pub(super) denominator: usize,
}

impl Ratio {
    fn numerator_of(&self, row: &[f64]) -> f64 {
        self.numerator.iter().map(|(column, sign)| sign * row[*column]).sum()
    }
}

/// An estimator: the sum of its ratios.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Formula(pub(super) Vec<Ratio>);

impl Formula {
    /// One ratio of columns.
    pub(super) fn ratio(numerator: &[(usize, f64)], denominator: usize) -> Self {
        Self(vec![Ratio { numerator: numerator.to_vec(), denominator }])
    }

    /// Its value for these sums; a part of which nothing was seen counts as nothing.
    pub(super) fn of(&self, sums: &[f64]) -> f64 {
        let part = |ratio: &Ratio| match sums[ratio.denominator] {
            0.0 => 0.0,
            denominator => ratio.numerator_of(sums) / denominator,
        };
        self.0.iter().map(part).sum()
    }

    /// The cluster-robust t interval: linearised, `se² = C/(C-1) Σ_c (Σ_k (N_kc - θ_k D_kc) / D_k)²`, and a t quantile of C - 1
    /// degrees of freedom.
    pub(super) fn cluster_t(&self, sheet: &Sheet, confidence: f64) -> Estimate {
        let value = self.of(&sheet.totals);
        let Some(standard_error) = self.standard_error(sheet) else {
            return Estimate { value, low: f64::NEG_INFINITY, high: f64::INFINITY };
        };
        let degrees = (sheet.clusters() as f64 - 1.0).max(1.0);
        let half = student_t_quantile(f64::midpoint(1.0, confidence), degrees) * standard_error;
        Estimate { value, low: value - half, high: value + half }
    }

    /// Of the estimate; `None` with fewer than two clusters.
    pub(super) fn standard_error(&self, sheet: &Sheet) -> Option<f64> {
        let count = sheet.clusters() as f64;
        if count < 2.0 {
            return None;
        }
        let scales: Vec<(f64, f64)> = self
            .0
            .iter()
            .map(|ratio| (ratio.numerator_of(&sheet.totals), sheet.totals[ratio.denominator]))
            .filter(|(_, denominator)| *denominator != 0.0)
            .map(|(numerator, denominator)| (numerator / denominator, denominator))
            .collect();
        let parts: Vec<&Ratio> = self.0.iter().filter(|ratio| sheet.totals[ratio.denominator] != 0.0).collect();
        let influence = |row: &[f64]| -> f64 {
            let part = |(ratio, (theta, scale)): (&&Ratio, &(f64, f64))| {
                (ratio.numerator_of(row) - theta * row[ratio.denominator]) / scale
            };
            parts.iter().zip(&scales).map(part).sum()
        };
        let squares: f64 = sheet.rows().map(|row| influence(row).powi(2)).sum();
        Some((count / (count - 1.0) * squares).sqrt())
    }
}
