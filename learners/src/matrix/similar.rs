//! What embeddings say alone: which queries are near each other, and which belong together. No score is looked at here.

use burn::tensor::{Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::backend::Compute;

/// Neighbours listed for a query: enough that a list still holds the largest neighbourhood after folds are taken out of it.
const LISTED: usize = 512;
/// Rows of a block of products.
const BLOCK_ROWS: usize = 512;

/// The queries nearest to each, by cosine of their embeddings.
pub(super) struct Neighbours(Vec<Vec<u32>>);

impl Neighbours {
    pub(super) fn new(embeddings: &[Vec<f32>]) -> Self {
        let all: Vec<&[f32]> = embeddings.iter().map(Vec::as_slice).collect();
        let mut lists = Vec::with_capacity(all.len());
        for block in all.chunks(BLOCK_ROWS) {
            for similarities in products(block, &all).chunks_exact(all.len()) {
                let own = lists.len() as u32;
                let mut others: Vec<u32> = (0..all.len() as u32).filter(|other| *other != own).collect();
                let nearer =
                    |a: &u32, b: &u32| similarities[*b as usize].total_cmp(&similarities[*a as usize]).then(a.cmp(b));
                if others.len() > LISTED {
                    others.select_nth_unstable_by(LISTED, nearer);
                    others.truncate(LISTED);
                }
                others.sort_unstable_by(nearer);
                lists.push(others);
            }
        }
        Self(lists)
    }

    /// The `count` nearest that may be asked, nearest first; the query itself is none of them.
    pub(super) fn of<'a>(
        &'a self,
        query: usize,
        may_ask: &'a [bool],
        count: usize,
    ) -> impl Iterator<Item = usize> + 'a {
        self.0[query].iter().map(|other| *other as usize).filter(|other| may_ask[*other]).take(count)
    }
}

/// The cluster of every query: k-means (Lloyd 1982) on the training queries from distant starts (k-means++, Arthur and Vassilvitskii
/// 2007).
pub(super) fn clusters_of(train: &[usize], embeddings: &[Vec<f32>], clusters: usize, seed: u64) -> Vec<usize> {
    const PASSES: usize = 20;
    let points: Vec<&[f32]> = train.iter().map(|&query| embeddings[query].as_slice()).collect();
    let mut centres = distant_starts(&points, clusters, seed);
    let mut assigned = vec![usize::MAX; points.len()];
    for _ in 0..PASSES {
        let found = nearest_centres(&points, &centres);
        if found == assigned {
            break;
        }
        assigned = found;
        let mut counts = vec![0.0_f32; centres.len()];
        let mut sums: Vec<Vec<f32>> = centres.iter().map(|centre| vec![0.0; centre.len()]).collect();
        for (point, &cluster) in points.iter().zip(&assigned) {
            counts[cluster] += 1.0;
            sums[cluster].iter_mut().zip(*point).for_each(|(sum, x)| *sum += x);
        }
        // An empty cluster stays where it is.
        for ((centre, sum), count) in centres.iter_mut().zip(sums).zip(counts).filter(|(_, count)| *count > 0.0) {
            *centre = sum.into_iter().map(|sum| sum / count).collect();
        }
    }
    let all: Vec<&[f32]> = embeddings.iter().map(Vec::as_slice).collect();
    nearest_centres(&all, &centres)
}

fn distant_starts(points: &[&[f32]], clusters: usize, seed: u64) -> Vec<Vec<f32>> {
    let distance = |a: &[f32], b: &[f32]| f64::from(a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f32>());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn = rng.random_range(0..points.len());
    let mut centres = vec![points[drawn].to_vec()];
    let mut distances = vec![f64::INFINITY; points.len()];
    while centres.len() < clusters.min(points.len()) {
        for (least, point) in distances.iter_mut().zip(points) {
            *least = least.min(distance(point, points[drawn]));
        }
        let mut left = rng.random::<f64>() * distances.iter().sum::<f64>();
        let next = distances.iter().position(|distance| {
            left -= distance;
            left < 0.0
        });
        // No point is left that is not a centre already.
        let Some(next) = next else { break };
        drawn = next;
        centres.push(points[drawn].to_vec());
    }
    centres
}

fn nearest_centres(points: &[&[f32]], centres: &[Vec<f32>]) -> Vec<usize> {
    let columns: Vec<&[f32]> = centres.iter().map(Vec::as_slice).collect();
    let squares: Vec<f32> = centres.iter().map(|centre| centre.iter().map(|x| x * x).sum()).collect();
    let nearest = |products: &[f32]| {
        let distances = products.iter().zip(&squares).map(|(product, square)| square - 2.0 * product).enumerate();
        distances.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(at, _)| at)
    };
    let blocks = points.chunks(BLOCK_ROWS).map(|block| products(block, &columns));
    blocks.flat_map(|block| block.chunks_exact(columns.len()).map(nearest).collect::<Vec<_>>()).collect()
}

/// Inner products of all rows with all columns, shape `[rows, columns]`.
fn products(rows: &[&[f32]], columns: &[&[f32]]) -> Vec<f32> {
    let tensor = |vectors: &[&[f32]]| {
        let shape = [vectors.len(), vectors.first().map_or(0, |vector| vector.len())];
        Tensor::<Compute, 2>::from_data(
            TensorData::new(vectors.concat(), shape),
            &burn::tensor::Device::<Compute>::default(),
        )
    };
    let found = tensor(rows).matmul(tensor(columns).transpose());
    found.into_data().to_vec().unwrap_or_else(|_| vec![0.0; rows.len() * columns.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_the_nearest_that_may_be_asked() {
        // On the unit circle at 0, 10, 30 and 90 degrees.
        let at = |degrees: f32| vec![degrees.to_radians().cos(), degrees.to_radians().sin()];
        let neighbours = Neighbours::new(&[0.0, 10.0, 30.0, 90.0].map(at));
        let of = |query, may_ask: &[bool], count| neighbours.of(query, may_ask, count).collect::<Vec<_>>();
        assert_eq!(of(0, &[true; 4], 2), [1, 2]);
        assert_eq!(of(1, &[true; 4], 9), [0, 2, 3], "10 degrees are nearer than 20");
        assert_eq!(of(0, &[true, false, true, true], 1), [2]);
    }

    #[test]
    fn clusters_are_groups_that_lie_apart() {
        let mut embeddings: Vec<Vec<f32>> = (0..20).map(|n| vec![1.0, n as f32 / 100.0]).collect();
        embeddings.extend((0..20).map(|n| vec![-1.0, n as f32 / 100.0]));
        let train: Vec<usize> = (0..40).filter(|query| query % 2 == 0).collect();
        let assigned = clusters_of(&train, &embeddings, 2, 1);
        assert!(assigned[..20].iter().all(|cluster| *cluster == assigned[0]));
        assert!(assigned[20..].iter().all(|cluster| *cluster == 1 - assigned[0]));
    }
}
