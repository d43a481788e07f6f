//! Logistic regression with a ridge, by Newton's method.

use crate::error::{LearnError, Result};
use crate::linear::solve;

/// Rows of columns, shape `[rows, width]`, row-major.
pub(super) struct Design {
    pub width: usize,
    pub values: Vec<f32>,
}

impl Design {
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..(row + 1) * self.width]
    }
}

/// Log odds are `bias + weights · x`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Logistic {
    pub weights: Vec<f64>,
    pub bias: f64,
}

impl Logistic {
    pub fn probability(&self, row: &[f32]) -> f64 {
        let logit: f64 = row.iter().zip(&self.weights).map(|(x, w)| f64::from(*x) * w).sum::<f64>() + self.bias;
        1.0 / (1.0 + (-logit).exp())
    }
}

/// Least mean cross entropy against `good` in [0, 1] plus `Σ ridge_j weight_j² / 2`; the bias is free. A share is as good as a label: the
/// score equations are those of quasi-likelihood (Papke and Wooldridge 1996). Each step costs rows times width².
///
/// # Errors
/// When no step leads on before the least is reached, as numbers that are not finite cause it.
pub(super) fn fit(design: &Design, good: &[f64], rows: &[usize], ridges: &[f64]) -> Result<Logistic> {
    const STEPS_MAX: usize = 100;
    const HALVINGS_MAX: usize = 40;
    let width = design.width + 1;
    let mut at = Logistic { weights: vec![0.0; design.width], bias: 0.0 };
    let mut loss = mean_loss(design, good, rows, ridges, &at);
    for _ in 0..STEPS_MAX {
        let (gradient, mut curvature) = derivatives(design, good, rows, ridges, &at);
        let step = solve(&mut curvature, &gradient, width, 1);
        let decrement: f64 = step.iter().zip(&gradient).map(|(s, g)| s * g).sum();
        if decrement < 1e-14 {
            return Ok(at);
        }
        let mut share = 1.0;
        let moved = (0..HALVINGS_MAX).find_map(|_| {
            let tried = Logistic {
                weights: at.weights.iter().zip(&step).map(|(w, s)| w - share * s).collect(),
                bias: at.bias - share * step[design.width],
            };
            let found = mean_loss(design, good, rows, ridges, &tried);
            share /= 2.0;
            (found < loss).then_some((tried, found))
        });
        match moved {
            Some((tried, found)) => (at, loss) = (tried, found),
            // As near as rounding lets it come.
            None if decrement < 1e-9 => return Ok(at),
            None => break,
        }
    }
    Err(LearnError::NoCascade(
        "the accept score's fit does not settle: look for absurd values in the features".to_owned(),
    ))
}

fn mean_loss(design: &Design, good: &[f64], rows: &[usize], ridges: &[f64], at: &Logistic) -> f64 {
    let cross_entropy = |row: &usize| {
        let logit: f64 =
            design.row(*row).iter().zip(&at.weights).map(|(x, w)| f64::from(*x) * w).sum::<f64>() + at.bias;
        // ln(1 + exp(z)) - y z, without overflow.
        logit.max(0.0) + (-logit.abs()).exp().ln_1p() - good[*row] * logit
    };
    let penalty: f64 = at.weights.iter().zip(ridges).map(|(w, ridge)| ridge * w * w).sum();
    rows.iter().map(cross_entropy).sum::<f64>() / rows.len() as f64 + penalty / 2.0
}

/// Gradient, shape `[width]`, and curvature, shape `[width, width]`, bias last.
fn derivatives(design: &Design, good: &[f64], rows: &[usize], ridges: &[f64], at: &Logistic) -> (Vec<f64>, Vec<f64>) {
    let width = design.width + 1;
    let (mut gradient, mut curvature) = (vec![0.0; width], vec![0.0; width * width]);
    let mut filled: Vec<(usize, f64)> = Vec::with_capacity(width);
    for &row in rows {
        let columns = design.row(row);
        let p = at.probability(columns);
        let (error, weight) = ((p - good[row]) / rows.len() as f64, p * (1.0 - p) / rows.len() as f64);
        // Most columns of a category are zero.
        filled.clear();
        filled.extend(columns.iter().enumerate().filter(|(_, x)| **x != 0.0).map(|(at, x)| (at, f64::from(*x))));
        filled.push((design.width, 1.0));
        for &(i, x) in &filled {
            gradient[i] += error * x;
            for &(j, y) in &filled {
                curvature[i * width + j] += weight * x * y;
            }
        }
    }
    for (at, (w, ridge)) in at.weights.iter().zip(ridges).enumerate() {
        gradient[at] += ridge * w;
        curvature[at * width + at] += ridge;
    }
    (gradient, curvature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flag_gives_the_log_odds_of_its_cells() {
        // 8 rows without it, 2 good; 4 rows with it, 3 good: bias ln(2 / 6), weight ln(3 / 1) - ln(2 / 6).
        let flags = [0.0; 8].into_iter().chain([1.0; 4]).collect::<Vec<f32>>();
        let mut good = vec![0.0; 12];
        [0, 1, 8, 9, 10].into_iter().for_each(|row: usize| good[row] = 1.0);
        let design = Design { width: 1, values: flags };
        let rows: Vec<usize> = (0..12).collect();
        let found = fit(&design, &good, &rows, &[0.0]).unwrap();
        assert!((found.bias - (1.0_f64 / 3.0).ln()).abs() < 1e-6, "{found:?}");
        assert!((found.weights[0] - 9.0_f64.ln()).abs() < 1e-6, "{found:?}");
        // The same shares, told as shares.
        let shares: Vec<f64> = (0..12).map(|row| if row < 8 { 0.25 } else { 0.75 }).collect();
        assert!((fit(&design, &shares, &rows, &[0.0]).unwrap().weights[0] - 9.0_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn at_the_least_the_gradient_is_zero() {
        let values: Vec<f32> = (0..200).map(|n| ((n * 37 % 101) as f32 - 50.0) / 25.0).collect();
        let design = Design { width: 4, values };
        let good: Vec<f64> = (0..50).map(|n| f64::from(u8::from(n * 13 % 7 < 4))).collect();
        let rows: Vec<usize> = (0..50).collect();
        let found = fit(&design, &good, &rows, &[0.01; 4]).unwrap();
        let (gradient, _) = derivatives(&design, &good, &rows, &[0.01; 4], &found);
        assert!(gradient.iter().all(|slope| slope.abs() < 1e-6), "{gradient:?}");
        assert!(found.weights.iter().any(|weight| weight.abs() > 0.01));
    }
}
