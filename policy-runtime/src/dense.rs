//! A matrix times a vector, on the vector instructions that the processor has.
//!
//! A dot product is the same to the bit with all of them, so a decision replays on any machine: sixteen partial sums, over every sixteenth
//! element each, of products that are added without being rounded first (fused), then the partial sums in halves. A processor without
//! fused instructions (x86 before 2013) computes the same more slowly.

use pulp::{Arch, NullaryFnOnce, Simd, WithSimd};

/// Partial sums of a dot product.
const LANES: usize = 16;

/// Rows that are multiplied side by side: one row's sums wait for each other, and eight registers of them keep two units of four
/// cycles' latency busy.
const SIDE_BY_SIDE: usize = 4;

/// `out[i] = bias[i] + weight[i] . input`, for `weight` \[outputs, inputs\] (row-major).
pub(crate) fn affine(weight: &[f32], bias: &[f32], input: &[f32], out: &mut [f32]) {
    Arch::new().dispatch(Affine { weight, bias, input, out });
}

/// `Σ (row . [input, 1])²` over the rows of `factor`, \[rows, inputs + 1\] (row-major).
pub(crate) fn squared_norm(factor: &[f32], input: &[f32]) -> f64 {
    Arch::new().dispatch(SquaredNorm { factor, input })
}

struct Affine<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
    input: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Affine<'_> {
    type Output = ();

    // Only what is inlined is compiled for the instructions that were found.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match LANES / S::F32_LANES {
            2 => self.by_fours::<S, 2>(simd),
            4 => self.by_fours::<S, 4>(simd),
            _ => self.one_by_one(),
        }
    }
}

impl Affine<'_> {
    /// With `REGISTERS` vector registers for a row's sixteen partial sums.
    #[inline(always)]
    fn by_fours<S: Simd, const REGISTERS: usize>(self, simd: S) {
        let width = self.input.len();
        let together = SIDE_BY_SIDE * width;
        let (fours, rest) = self.weight.split_at(self.weight.len() / together * together);
        let (fours_bias, rest_bias) = self.bias.as_chunks::<SIDE_BY_SIDE>();
        let (fours_out, rest_out) = self.out.as_chunks_mut::<SIDE_BY_SIDE>();
        for ((rows, bias), out) in fours.chunks_exact(together).zip(fours_bias).zip(fours_out) {
            let rows: [&[f32]; SIDE_BY_SIDE] = std::array::from_fn(|i| &rows[i * width..(i + 1) * width]);
            let products = dots::<S, REGISTERS>(simd, rows, self.input);
            for i in 0..SIDE_BY_SIDE {
                out[i] = bias[i] + products[i];
            }
        }
        Affine { weight: rest, bias: rest_bias, input: self.input, out: rest_out }.one_by_one();
    }

    #[inline(always)]
    fn one_by_one(self) {
        for ((row, bias), out) in self.weight.chunks_exact(self.input.len()).zip(self.bias).zip(self.out) {
            *out = bias + dot(row, self.input);
        }
    }
}

struct SquaredNorm<'a> {
    factor: &'a [f32],
    input: &'a [f32],
}

impl NullaryFnOnce for SquaredNorm<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let mut norm = 0.0;
        for row in self.factor.chunks_exact(self.input.len() + 1) {
            let (bias, weights) = row.split_last().expect("a row is at least one wide");
            let projected = f64::from(bias + dot(weights, self.input));
            norm += projected * projected;
        }
        norm
    }
}

/// One dot product. What is left over of the last sixteen elements counts as if zeros followed it.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut partial = [0.0f32; LANES];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        add_products(&mut partial, x, y);
    }
    if !a_rest.is_empty() {
        let padded = |rest: &[f32]| std::array::from_fn(|lane| rest.get(lane).copied().unwrap_or_default());
        add_products(&mut partial, &padded(a_rest), &padded(b_rest));
    }
    total(partial)
}

#[inline(always)]
fn add_products(partial: &mut [f32; LANES], x: &[f32; LANES], y: &[f32; LANES]) {
    for lane in 0..LANES {
        partial[lane] = x[lane].mul_add(y[lane], partial[lane]);
    }
}

/// The sum of the partial sums: the second half is added to the first, until one is left.
#[inline(always)]
fn total(mut partial: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            partial[lane] += partial[lane + half];
        }
        half /= 2;
    }
    partial[0]
}

/// The dot products of four rows with one input, each as [`dot`] has it.
#[inline(always)]
fn dots<S: Simd, const REGISTERS: usize>(simd: S, rows: [&[f32]; SIDE_BY_SIDE], input: &[f32]) -> [f32; SIDE_BY_SIDE] {
    let [a, b, c, d] = rows.map(blocks::<S, REGISTERS>);
    let mut sums = [[simd.splat_f32s(0.0); REGISTERS]; SIDE_BY_SIDE];
    for ((((x, a), b), c), d) in blocks::<S, REGISTERS>(input).iter().zip(a).zip(b).zip(c).zip(d) {
        for (sums, row) in sums.iter_mut().zip([a, b, c, d]) {
            for r in 0..REGISTERS {
                sums[r] = simd.mul_add_f32s(row[r], x[r], sums[r]);
            }
        }
    }
    let whole = input.len() / LANES * LANES;
    if whole < input.len() {
        let x = padded::<S, REGISTERS>(simd, &input[whole..]);
        for (sums, row) in sums.iter_mut().zip(rows) {
            let row = padded::<S, REGISTERS>(simd, &row[whole..]);
            for r in 0..REGISTERS {
                sums[r] = simd.mul_add_f32s(row[r], x[r], sums[r]);
            }
        }
    }
    sums.map(|sums| {
        let mut partial = [0.0; LANES];
        S::as_mut_simd_f32s(&mut partial).0.copy_from_slice(&sums);
        total(partial)
    })
}

/// Blocks of sixteen numbers, in vector registers; what is left over is not among them.
#[inline(always)]
fn blocks<S: Simd, const REGISTERS: usize>(row: &[f32]) -> &[[S::f32s; REGISTERS]] {
    S::as_simd_f32s(row).0.as_chunks::<REGISTERS>().0
}

/// Fewer than sixteen numbers and zeros after them.
#[inline(always)]
fn padded<S: Simd, const REGISTERS: usize>(simd: S, rest: &[f32]) -> [S::f32s; REGISTERS] {
    std::array::from_fn(|r| {
        let from = (r * S::F32_LANES).min(rest.len());
        let to = (from + S::F32_LANES).min(rest.len());
        simd.partial_load_f32s(&rest[from..to])
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is multiplied side by side, and by which instructions: each output is its own dot product, to the bit.
        #[test]
        fn rows_side_by_side_are_dot_products(
            (inputs, outputs, numbers) in (1..70usize, 1..12usize)
                .prop_flat_map(|(i, o)| (Just(i), Just(o), prop::collection::vec(-1e3..1e3f32, i * o + o + i)))
        ) {
            let (weight, rest) = numbers.split_at(inputs * outputs);
            let (bias, input) = rest.split_at(outputs);
            let mut out = vec![0.0; outputs];
            affine(weight, bias, input, &mut out);
            let one_by_one = weight.chunks_exact(inputs).zip(bias).map(|(row, bias)| bias + dot(row, input));
            prop_assert_eq!(out, one_by_one.collect::<Vec<f32>>());
        }
    }

    #[test]
    fn a_dot_product_longer_than_the_lanes_counts_every_element_once() {
        // sum of i^2 for i in 0..n is (n-1)n(2n-1)/6; exact in f32 for these n
        for n in [1usize, 15, 16, 17, 31, 32, 33, 50] {
            let v: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(dot(&v, &v), ((n - 1) * n * (2 * n - 1) / 6) as f32, "{n}");
        }
    }
}
