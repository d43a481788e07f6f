//! A router that others have built, as a baseline: factors of models.

use super::data::Matrix;
use super::policies::Guesses;
use crate::linear::solve;

/// Quality as a product of a query's factors, linear in its embedding, and a model's: reduced-rank ridge regression on all scores of
/// the training queries (Izenman 1975), the linear form of RouteLLM's matrix factorisation. Costs are each model's mean.
pub(super) struct Factored {
    /// Mean quality and cost of each model.
    means: Vec<f64>,
    costs: Vec<f64>,
    /// Embeddings of all queries minus their mean over the training queries, shape `[queries, width]`.
    centred: Vec<Vec<f64>>,
    /// XᵀX and XᵀY over the training queries.
    gram: Vec<f64>,
    cross: Vec<f64>,
    train: Vec<usize>,
}

impl Factored {
    pub(super) fn new(matrix: &Matrix, train: &[usize], embeddings: &[Vec<f32>]) -> Self {
        let models = matrix.models.len();
        let width = embeddings.first().map_or(0, Vec::len);
        let means = matrix.means(&matrix.quality, train);
        let mut centre = vec![0.0; width];
        for &query in train {
            centre.iter_mut().zip(&embeddings[query]).for_each(|(sum, x)| *sum += f64::from(*x) / train.len() as f64);
        }
        let centre_one = |embedding: &Vec<f32>| -> Vec<f64> {
            embedding.iter().zip(&centre).map(|(x, mean)| f64::from(*x) - mean).collect()
        };
        let centred: Vec<Vec<f64>> = embeddings.iter().map(centre_one).collect();
        let (mut gram, mut cross) = (vec![0.0; width * width], vec![0.0; width * models]);
        for &query in train {
            let x = &centred[query];
            for (row, x_row) in x.iter().enumerate() {
                for (slot, x_column) in gram[row * width..(row + 1) * width].iter_mut().zip(x) {
                    *slot += x_row * x_column;
                }
                for model in 0..models {
                    cross[row * models + model] += x_row * (matrix.quality[matrix.cell(query, model)] - means[model]);
                }
            }
        }
        Self { costs: matrix.mean_costs(train), means, centred, gram, cross, train: train.to_vec() }
    }

    /// Guesses for every query with so many factors, `ridge` a query.
    pub(super) fn guesses(&self, rank: usize, ridge: f64) -> Guesses {
        let models = self.means.len();
        let width = self.centred.first().map_or(0, Vec::len);
        // Normal equations: (XᵀX + λ n I) B = XᵀY.
        let mut gram = self.gram.clone();
        for at in 0..width {
            gram[at * width + at] += ridge * self.train.len() as f64;
        }
        let coefficients = solve(&mut gram, &self.cross, width, models);
        let fitted: Vec<Vec<f64>> = self.centred.iter().map(|x| product(x, &coefficients, models)).collect();
        // Keep the directions among models that the fitted values move along most.
        let mut spread = vec![0.0; models * models];
        for &query in &self.train {
            for (row, value) in fitted[query].iter().enumerate() {
                for (column, other) in fitted[query].iter().enumerate() {
                    spread[row * models + column] += value * other;
                }
            }
        }
        let factors = leading_directions(spread, models, rank.min(models));
        let mut guesses = Guesses::default();
        for fitted in &fitted {
            let mut kept = self.means.clone();
            for factor in &factors {
                let along: f64 = fitted.iter().zip(factor).map(|(x, y)| x * y).sum();
                kept.iter_mut().zip(factor).for_each(|(value, y)| *value += along * y);
            }
            guesses.quality.extend(kept);
            guesses.cost_usd.extend_from_slice(&self.costs);
        }
        guesses
    }
}

fn product(x: &[f64], coefficients: &[f64], models: usize) -> Vec<f64> {
    let mut out = vec![0.0; models];
    for (x, row) in x.iter().zip(coefficients.chunks_exact(models)) {
        out.iter_mut().zip(row).for_each(|(sum, b)| *sum += x * b);
    }
    out
}

/// Unit vectors along which a symmetric matrix is largest, by power iteration with deflation.
fn leading_directions(mut a: Vec<f64>, n: usize, count: usize) -> Vec<Vec<f64>> {
    const STEPS: usize = 500;
    let mut found = Vec::new();
    for at in 0..count {
        let mut v: Vec<f64> = (0..n).map(|i| if i == at { 1.0 } else { 0.1 }).collect();
        for _ in 0..STEPS {
            let next: Vec<f64> = a.chunks_exact(n).map(|row| row.iter().zip(&v).map(|(x, y)| x * y).sum()).collect();
            let length = next.iter().map(|x| x * x).sum::<f64>().sqrt();
            if length < 1e-15 {
                return found;
            }
            v = next.into_iter().map(|x| x / length).collect();
        }
        let value: f64 =
            a.chunks_exact(n).zip(&v).map(|(row, x)| x * row.iter().zip(&v).map(|(r, y)| r * y).sum::<f64>()).sum();
        for row in 0..n {
            for column in 0..n {
                a[row * n + column] -= value * v[row] * v[column];
            }
        }
        found.push(v);
    }
    found
}

#[cfg(test)]
mod tests {
    use weir_policy_runtime::Action;

    use super::super::policies::{Seen, cluster_means, nearest_means};
    use super::super::similar::{Neighbours, clusters_of};
    use super::*;
    use crate::matrix::MatrixQuery;

    #[test]
    fn a_linear_system_is_solved() {
        // By hand: [[4, 2], [2, 3]] x = [8, 7] at x = (5/4, 3/2).
        let solved = solve(&mut [4.0, 2.0, 2.0, 3.0], &[8.0, 7.0], 2, 1);
        assert!((solved[0] - 1.25).abs() < 1e-12 && (solved[1] - 1.5).abs() < 1e-12, "{solved:?}");
    }

    #[test]
    fn directions_are_eigenvectors_largest_first() {
        // [[2, 1], [1, 2]]: 3 along (1, 1), 1 along (1, -1).
        let found = leading_directions(vec![2.0, 1.0, 1.0, 2.0], 2, 2);
        let r = 0.5_f64.sqrt();
        assert!((found[0][0] - r).abs() < 1e-9 && (found[0][1] - r).abs() < 1e-9, "{found:?}");
        assert!((found[1][0] * found[1][1] + 0.5).abs() < 1e-9, "{found:?}");
    }

    /// Two kinds of queries far apart, of which each model answers one.
    fn two_kinds() -> (Matrix, Vec<Vec<f32>>) {
        let action =
            |model: &str| Action { model: model.to_owned(), input_usd_per_mtok: None, output_usd_per_mtok: None };
        let mut matrix = Matrix {
            name: "two kinds".to_owned(),
            queries: Vec::new(),
            models: vec![action("a"), action("b")],
            quality: Vec::new(),
            cost_usd: Vec::new(),
            cost_note: String::new(),
            answer_chars: None,
            encoded: None,
        };
        let mut embeddings = Vec::new();
        for n in 0..60 {
            let is_first = n % 2 == 0;
            let near = (n % 5) as f32 / 10.0;
            matrix.queries.push(MatrixQuery { id: n.to_string(), text: n.to_string(), domain: "d".to_owned() });
            matrix.quality.extend(if is_first { [1.0, 0.0] } else { [0.0, 1.0] });
            matrix.cost_usd.extend([1.0, 2.0]);
            embeddings.push(if is_first { vec![1.0, near] } else { vec![-1.0, near] });
        }
        (matrix, embeddings)
    }

    #[test]
    fn clusters_and_factors_tell_two_kinds_of_queries_apart() {
        let (matrix, embeddings) = two_kinds();
        let train: Vec<usize> = (0..40).collect();
        let clusters = clusters_of(&train, &embeddings, 2, 1);
        let clustered = cluster_means(&matrix, &train, &clusters, &Seen::all(&matrix));
        let factored = Factored::new(&matrix, &train, &embeddings).guesses(1, 1e-3);
        let neighbours = Neighbours::new(&embeddings);
        let nearest = nearest_means(&matrix, &train, &[40, 41, 58, 59], (&neighbours, 5), &Seen::all(&matrix));
        for query in [40, 41, 58, 59] {
            assert_eq!(nearest.choices(&matrix, &[query], 0.0), [query % 2], "query {query}");
        }
        for guesses in [clustered, factored] {
            for query in 40..60 {
                assert_eq!(guesses.choices(&matrix, &[query], 0.0), [query % 2], "query {query}");
            }
        }
    }
}
