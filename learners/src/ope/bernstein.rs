//! An interval that holds for any number of clusters, not only for many: empirical Bernstein.

use super::interval::Estimate;

/// The mean of `values`, each within `range`, with probability `confidence`:
/// `mean ± (√(2 V log(4/α) / n) + 7 (b - a) log(4/α) / (3 (n - 1)))`, cut to the range. Maurer and Pontil 2009, arXiv 0907.3740, theorem
/// 4, on both sides. Needs independent values of one law, and a range that was known beforehand: one that was read off the values
/// promises nothing.
///
/// `None` with fewer than two values.
#[must_use]
pub fn empirical_bernstein(values: &[f64], range: (f64, f64), confidence: f64) -> Option<Estimate> {
    let n = values.len() as f64;
    if n < 2.0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let log = (4.0 / (1.0 - confidence)).ln();
    let (low, high) = range;
    let half = (2.0 * variance * log / n).sqrt() + 7.0 * (high - low) * log / (3.0 * (n - 1.0));
    Some(Estimate { value: mean, low: (mean - half).max(low), high: (mean + half).min(high) })
}

#[cfg(test)]
mod tests {
    use super::empirical_bernstein;

    #[test]
    fn the_half_width_is_that_of_the_theorem() {
        // 100 values, half of them 1: V = 25/99; with α = 0.05, log(4/α) = 4.382027; by hand √(2 · 0.252525 · 4.382027 / 100) = 0.148766
        // and 7 · 4.382027 / 297 = 0.103280.
        let values: Vec<f64> = (0..100).map(|n| f64::from(n % 2)).collect();
        let found = empirical_bernstein(&values, (0.0, 1.0), 0.95).unwrap();
        assert!((found.value - 0.5).abs() < 1e-12);
        assert!((found.high - 0.5 - 0.252_046).abs() < 1e-5, "{found:?}");
        assert!(empirical_bernstein(&values[..1], (0.0, 1.0), 0.95).is_none());
    }
}
