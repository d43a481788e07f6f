//! A line through points of which some are wild: Theil's and Sen's estimator.
//!
//! The slope is the median of the slopes of all pairs of points whose x differ; up to 29 % of the points may be arbitrarily
//! wrong without moving it far. Its interval is Sen's (Journal of the American Statistical Association 63(324), 1968): the
//! slopes whose ranks lie `z` standard deviations of Kendall's statistic from the middle. The intercept is the median of
//! `y - slope x`.

/// Points that are kept of more: the pairs of 400 are 80,000.
pub const POINTS_MAX: usize = 400;
/// 95 % of a normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A line, and how sure its slope is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Change of y for each unit of x.
    pub slope: f64,
    /// Lower end of the slope's 95 % interval.
    pub slope_low: f64,
    /// Upper end of the slope's 95 % interval.
    pub slope_high: f64,
    /// y where x is 0.
    pub intercept: f64,
}

/// The line through the points; `None` where fewer than three pairs have different x.
#[must_use]
pub fn theil_sen(points: &[(f64, f64)]) -> Option<Line> {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (at, (x, y)) in points.iter().enumerate() {
        let others = points[..at].iter().filter(|(other, _)| other != x);
        slopes.extend(others.map(|(other_x, other_y)| (y - other_y) / (x - other_x)));
    }
    if slopes.len() < 3 {
        return None;
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let (n, pairs) = (points.len() as f64, slopes.len() as f64);
    let deviation = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let half = Z * deviation / 2.0;
    let ranked = |rank: f64| slopes[(rank.clamp(0.0, pairs - 1.0)) as usize];
    let slope = median(&slopes);
    let mut rests: Vec<f64> = points.iter().map(|(x, y)| y - slope * x).collect();
    rests.sort_unstable_by(f64::total_cmp);
    Some(Line {
        slope,
        slope_low: ranked((pairs / 2.0 - half).floor()),
        slope_high: ranked((pairs / 2.0 + half).ceil()),
        intercept: median(&rests),
    })
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], sorted[middle]) } else { sorted[middle] }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_found_although_a_quarter_of_the_points_lie_anywhere() {
        let points: Vec<(f64, f64)> =
            (0..100_u32).map(|n| (f64::from(n), if n % 4 == 3 { 1e6 } else { 20.0 + 0.5 * f64::from(n) })).collect();
        let line = theil_sen(&points).expect("a line");
        assert!((line.slope - 0.5).abs() < 1e-9 && (line.intercept - 20.0).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn median_and_interval_of_five_points() {
        let points = [(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 5.0), (5.0, 4.0)];
        // By hand, slopes in order: -1, -1, 1/3, 1/2, 3/4, 1, 1, 4/3, 2, 3; the middle two are 3/4 and 1.
        let line = theil_sen(&points).expect("a line");
        assert!((line.slope - 0.875).abs() < 1e-12, "{line:?}");
        // Kendall's deviation is sqrt(5 * 4 * 15 / 18) = 4.08, of which 1.96 / 2 lie beyond either end of ten ranks.
        assert_eq!((line.slope_low, line.slope_high), (-1.0, 3.0));
        assert_eq!(theil_sen(&points[..2]), None);
        assert_eq!(theil_sen(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None, "all at one x");
    }

    proptest! {
        #[test]
        fn scale_and_shift_carry_over(ys in prop::collection::vec(-100.0..100.0_f64, 5..40)) {
            let points = |by: f64, shift: f64| -> Vec<_> { (0..).map(f64::from).zip(ys.iter().map(|y| by * y + shift)).collect() };
            let (line, other) = (theil_sen(&points(1.0, 0.0)).unwrap(), theil_sen(&points(4.0, 8.0)).unwrap());
            prop_assert!((other.slope - 4.0 * line.slope).abs() < 1e-6);
            prop_assert!((other.intercept - 4.0 * line.intercept - 8.0).abs() < 1e-6);
            prop_assert!(line.slope_low <= line.slope && line.slope <= line.slope_high);
        }
    }
}
