//! Linear equations with symmetric positive matrices (Golub and Van Loan, Matrix Computations, algorithms 4.2.1 and 3.1.1).

/// Overwrites the lower triangle of a symmetric positive definite matrix of shape `[n, n]`, row-major, with its Cholesky factor. What stands
/// above the diagonal is neither looked at nor changed.
pub(crate) fn cholesky(a: &mut [f64], n: usize) {
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
}

/// The inverse of a lower triangular matrix of shape `[n, n]`; none where it has none. What stands above the diagonal is not looked at.
pub(crate) fn inverse_of_lower(lower: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut inverse = vec![0.0; n * n];
    for column in 0..n {
        for i in column..n {
            let diagonal = lower[i * n + i];
            if diagonal == 0.0 || !diagonal.is_finite() {
                return None;
            }
            let known: f64 = (column..i).map(|k| lower[i * n + k] * inverse[k * n + column]).sum();
            inverse[i * n + column] = (f64::from(u8::from(i == column)) - known) / diagonal;
        }
    }
    Some(inverse)
}

/// Solves `A B = C` for a symmetric positive definite `A`, by Cholesky: `a` of shape `[n, n]`, which is overwritten, `c` of shape
/// `[n, columns]`, both row-major.
pub(crate) fn solve(a: &mut [f64], c: &[f64], n: usize, columns: usize) -> Vec<f64> {
    cholesky(a, n);
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
