//! Linear equations.

/// Solves `A B = C` for a symmetric positive definite `A`, by Cholesky: `a` of shape `[n, n]`, which is overwritten, `c` of shape
/// `[n, columns]`, both row-major.
pub(crate) fn solve(a: &mut [f64], c: &[f64], n: usize, columns: usize) -> Vec<f64> {
    for j in 0..n {
        for k in 0..j {
            let l = a[j * n + k];
            for i in j..n {
                a[i * n + j] -= a[i * n + k] * l;
            }
        }
        let pivot = a[j * n + j].max(1e-12).sqrt();
        for i in j..n {
            a[i * n + j] /= pivot;
        }
    }
    let mut b = c.to_vec();
    for column in 0..columns {
        for i in 0..n {
            let known: f64 = (0..i).map(|k| a[i * n + k] * b[k * columns + column]).sum();
            b[i * columns + column] = (b[i * columns + column] - known) / a[i * n + i];
        }
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|k| a[k * n + i] * b[k * columns + column]).sum();
            b[i * columns + column] = (b[i * columns + column] - known) / a[i * n + i];
        }
    }
    b
}
