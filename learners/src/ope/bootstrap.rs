//! Resamples of whole clusters.
//!
//! Each cluster enters a resample as often as a Poisson draw of mean 1 says, independently of the others: what drawing with
//! replacement comes to for many clusters (Hanley and MacGibbon 2006; Chamandy et al. 2012), and what one pass over blocks of clusters
//! that stay in the cache can do for all resamples together. Estimators are ratios, so the resample's size need not be fixed.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rand::RngCore;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::sheet::Sheet;

/// Clusters of a block: with sixteen columns they take 64 KiB.
const BLOCK: usize = 512;
/// The blocks are dealt to so many sums, whatever the machine, so that rounding is the same everywhere.
const SHARDS: usize = 8;

/// The totals of each resample, one row of the sheet's width for each.
pub(super) fn resampled(sheet: &Sheet, bootstraps: usize, seed: u64) -> Vec<f64> {
    let width = sheet.width();
    let blocks: Vec<&[f64]> = sheet.values().chunks(BLOCK * width).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut shards = Vec::new();
        loop {
            let shard = next.fetch_add(1, Ordering::Relaxed);
            if shard >= SHARDS {
                return shards;
            }
            let mut sums = vec![0.0; bootstraps * width];
            for (index, block) in blocks.iter().enumerate().skip(shard).step_by(SHARDS) {
                add_block(block, width, seed, index as u64, &mut sums);
            }
            shards.push((shard, sums));
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(SHARDS).min(blocks.len().max(1));
    let mut shards: Vec<(usize, Vec<f64>)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("adding up does not panic")).collect()
    });
    shards.sort_by_key(|(shard, _)| *shard);
    let mut totals = vec![0.0; bootstraps * width];
    for (_, sums) in shards {
        totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    totals
}

fn add_block(block: &[f64], width: usize, seed: u64, index: u64, sums: &mut [f64]) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index);
    let mut bytes = [0_u8; 4 * BLOCK];
    let clusters = block.len() / width;
    for sums in sums.chunks_exact_mut(width) {
        rng.fill_bytes(&mut bytes[..4 * clusters]);
        let uniforms = bytes.chunks_exact(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        match width {
            5 => add_rows::<5>(block, uniforms, sums),
            16 => add_rows::<16>(block, uniforms, sums),
            _ => {
                for (row, uniform) in block.chunks_exact(width).zip(uniforms) {
                    let times = poisson(uniform);
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += times * value);
                }
            }
        }
    }
}

/// With the width known, the sums stay in registers.
fn add_rows<const WIDTH: usize>(block: &[f64], uniforms: impl Iterator<Item = u32>, sums: &mut [f64]) {
    let (rows, _) = block.as_chunks::<WIDTH>();
    let mut added = [0.0; WIDTH];
    for (row, uniform) in rows.iter().zip(uniforms) {
        let times = poisson(uniform);
        for (sum, value) in added.iter_mut().zip(row) {
            *sum += times * value;
        }
    }
    sums.iter_mut().zip(added).for_each(|(sum, added)| *sum += added);
}

/// `2^32 P(X ≤ k)` for a Poisson variable of mean 1, k = 0, 1, ...
const UP_TO: [u32; 12] = {
    const INVERSE_E: f64 = 0.367_879_441_171_442_33;
    let mut up_to = [0; 12];
    let (mut k, mut mass, mut sum) = (0, INVERSE_E, 0.0);
    while k < 12 {
        sum += mass;
        // The last one rounds up to 2^32, which a u32 cannot hold; the cast saturates one below.
        up_to[k] = (sum * 4_294_967_296.0) as u32;
        k += 1;
        mass /= k as f64;
    }
    up_to
};

/// The Poisson draw of mean 1 that belongs to a uniform one. Two in a hundred exceed 3.
fn poisson(uniform: u32) -> f64 {
    let low = u32::from(uniform >= UP_TO[0]) + u32::from(uniform >= UP_TO[1]) + u32::from(uniform >= UP_TO[2]);
    if uniform < UP_TO[3] {
        return f64::from(low);
    }
    f64::from(4 + UP_TO[4..].iter().map(|up_to| u32::from(uniform >= *up_to)).sum::<u32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_moments_of_a_poisson_variable_of_mean_one() {
        // At the midpoints of an even grid; the factorial moments E[X], E[X(X-1)], E[X(X-1)(X-2)] are all 1.
        let (grid, mut moments) = (1 << 20, [0.0; 3]);
        for step in 0..grid {
            let x = poisson((step << 12) + (1 << 11));
            moments[0] += x / f64::from(grid);
            moments[1] += x * (x - 1.0) / f64::from(grid);
            moments[2] += x * (x - 1.0) * (x - 2.0) / f64::from(grid);
        }
        assert!(moments.iter().all(|moment| (moment - 1.0).abs() < 1e-3), "{moments:?}");
    }

    #[test]
    fn any_width_and_any_number_of_threads_give_the_same_resamples() {
        let clusters = 3 * BLOCK + 17;
        let sheet = |width: usize| {
            Sheet::new(clusters, width, |values| {
                for (cluster, row) in values.chunks_exact_mut(width).enumerate() {
                    row[0] = 1.0;
                    row[1] = cluster as f64;
                }
            })
        };
        let firsts = |width: usize| -> Vec<(f64, f64)> {
            resampled(&sheet(width), 20, 7).chunks_exact(width).map(|sums| (sums[0], sums[1])).collect()
        };
        assert_eq!(firsts(5), firsts(3));
        assert_eq!(firsts(16), firsts(3));
        let sizes: Vec<f64> = firsts(16).iter().map(|(size, _)| *size).collect();
        let mean = sizes.iter().sum::<f64>() / 20.0;
        // Each size is Poisson of mean and variance `clusters`: five standard errors.
        assert!((mean - clusters as f64).abs() < 5.0 * (clusters as f64 / 20.0).sqrt(), "{sizes:?}");
    }
}
