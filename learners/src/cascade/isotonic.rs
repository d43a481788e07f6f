//! Monotone regression: the probabilities nearest to what happened, of those that never fall as the score rises.

/// A stretch of equal fitted values.
#[derive(Clone, Copy)]
struct Block {
    weight: f64,
    /// Sums over the stretch.
    x: f64,
    y: f64,
}

impl Block {
    fn height(&self) -> f64 {
        self.y / self.weight
    }
}

/// Least squares fit of `y` among all functions of `x` that never fall, by pooling adjacent violators (Ayer, Brunk, Ewing, Reid and
/// Silverman 1955); in the order of `points`, (x, y) each. Takes n log n steps.
#[must_use]
pub fn isotonic(points: &[(f64, f64)]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| points[*a].0.total_cmp(&points[*b].0));
    let mut fitted = vec![0.0; points.len()];
    let mut places = order.into_iter();
    for block in pooled(points) {
        for place in places.by_ref().take(block.weight as usize) {
            fitted[place] = block.height();
        }
    }
    fitted
}

/// The same fit as corners of a line that rises: each stretch of equal values stands at its mean place, and in between is a straight line
/// (centred isotonic regression, Oron and Flournoy 2017), so that scores that differ stay apart. `points` are (score, outcome), both in
/// [0, 1].
#[must_use]
pub fn calibration_corners(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let corner = |block: Block| ((block.x / block.weight).clamp(0.0, 1.0), block.height().clamp(0.0, 1.0));
    let mut corners: Vec<(f64, f64)> = pooled(points).into_iter().map(corner).collect();
    // Scores nearer than rounding fall on one place.
    corners.dedup_by(|next, kept| next.0 <= kept.0);
    corners
}

/// Stretches from left to right, each higher than the one before.
fn pooled(points: &[(f64, f64)]) -> Vec<Block> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut blocks: Vec<Block> = Vec::new();
    // Equal places have one value, whatever their order.
    for ties in sorted.chunk_by(|a, b| a.0 == b.0) {
        let sums = ties.iter().fold((0.0, 0.0), |sums, point| (sums.0 + point.0, sums.1 + point.1));
        let mut block = Block { weight: ties.len() as f64, x: sums.0, y: sums.1 };
        while let Some(last) = blocks.last()
            && last.height() >= block.height()
        {
            block = Block { weight: block.weight + last.weight, x: block.x + last.x, y: block.y + last.y };
            blocks.pop();
        }
        blocks.push(block);
    }
    blocks
}
