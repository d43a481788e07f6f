//! Routers that others have built, as baselines: clusters of queries, and factors of models.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::data::Matrix;
use super::policies::Guesses;
use crate::linear::solve;

/// Means by cluster of the queries' embeddings, all scores of the training queries seen: k-means (Lloyd 1982) from distant starts
/// (k-means++, Arthur and Vassilvitskii 2007). What Avengers does, arXiv 2505.19797.
pub(super) fn cluster_means(
    matrix: &Matrix,
    train: &[usize],
    embeddings: &[Vec<f32>],
    clusters: usize,
    seed: u64,
) -> Guesses {
    let centres = k_means(train, embeddings, clusters, seed);
    let nearest = |query: usize| nearest(&embeddings[query], &centres).0;
    let mut members = vec![Vec::new(); centres.len()];
    train.iter().for_each(|&query| members[nearest(query)].push(query));
    let overall = (matrix.means(&matrix.quality, train), matrix.mean_costs(train));
    let means: Vec<(Vec<f64>, Vec<f64>)> = members
        .iter()
        .map(|queries| match queries.is_empty() {
            true => overall.clone(),
            false => (matrix.means(&matrix.quality, queries), matrix.mean_costs(queries)),
        })
        .collect();
    let mut guesses = Guesses { quality: Vec::new(), cost_usd: Vec::new(), ..Guesses::default() };
    for query in 0..matrix.queries.len() {
        let (quality, cost_usd) = &means[nearest(query)];
        guesses.quality.extend_from_slice(quality);
        guesses.cost_usd.extend_from_slice(cost_usd);
    }
    guesses
}

fn k_means(train: &[usize], embeddings: &[Vec<f32>], clusters: usize, seed: u64) -> Vec<Vec<f32>> {
    const PASSES: usize = 50;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut centres = vec![embeddings[train[rng.random_range(0..train.len())]].clone()];
    while centres.len() < clusters.min(train.len()) {
        let distances: Vec<f64> =
            train.iter().map(|&query| f64::from(nearest(&embeddings[query], &centres).1)).collect();
        let mut left = rng.random::<f64>() * distances.iter().sum::<f64>();
        let drawn = distances.iter().position(|distance| {
            left -= distance;
            left < 0.0
        });
        let Some(drawn) = drawn else { break };
        centres.push(embeddings[train[drawn]].clone());
    }
    let mut assigned = vec![usize::MAX; train.len()];
    for _ in 0..PASSES {
        let mut moved = false;
        for (slot, &query) in assigned.iter_mut().zip(train) {
            let (centre, _) = nearest(&embeddings[query], &centres);
            moved |= *slot != centre;
            *slot = centre;
        }
        if !moved {
            break;
        }
        for (at, centre) in centres.iter_mut().enumerate() {
            let members: Vec<usize> =
                assigned.iter().zip(train).filter(|(slot, _)| **slot == at).map(|(_, query)| *query).collect();
            if members.is_empty() {
                continue;
            }
            for (dimension, value) in centre.iter_mut().enumerate() {
                *value = members.iter().map(|&query| embeddings[query][dimension]).sum::<f32>() / members.len() as f32;
            }
        }
    }
    centres
}

/// The nearest centre, and its squared distance.
fn nearest(embedding: &[f32], centres: &[Vec<f32>]) -> (usize, f32) {
    let distance = |centre: &Vec<f32>| embedding.iter().zip(centre).map(|(x, y)| (x - y).powi(2)).sum::<f32>();
    let distances = centres.iter().map(distance).enumerate();
    distances.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.0))
}

/// Quality as a product of a query's factors, linear in its embedding, and a model's: reduced-rank ridge regression on all scores of
/// the training queries (Izenman 1975), the linear form of RouteLLM's matrix factorisation. Costs are each model's mean.
pub(super) fn factored(matrix: &Matrix, train: &[usize], embeddings: &[Vec<f32>], rank: usize, ridge: f64) -> Guesses {
    let models = matrix.models.len();
    let width = embeddings.first().map_or(0, Vec::len);
    let means = matrix.means(&matrix.quality, train);
    let mut centre = vec![0.0; width];
    for &query in train {
        centre.iter_mut().zip(&embeddings[query]).for_each(|(sum, x)| *sum += f64::from(*x) / train.len() as f64);
    }
    let centred = |query: usize| -> Vec<f64> {
        embeddings[query].iter().zip(&centre).map(|(x, mean)| f64::from(*x) - mean).collect()
    };
    // Normal equations: (XᵀX + λ n I) B = XᵀY.
    let (mut gram, mut cross) = (vec![0.0; width * width], vec![0.0; width * models]);
    for &query in train {
        let x = centred(query);
        for (row, x_row) in x.iter().enumerate() {
            if *x_row == 0.0 {
                continue;
            }
            for (slot, x_column) in gram[row * width..(row + 1) * width].iter_mut().zip(&x) {
                *slot += x_row * x_column;
            }
            for model in 0..models {
                cross[row * models + model] += x_row * (matrix.quality[matrix.cell(query, model)] - means[model]);
            }
        }
    }
    for at in 0..width {
        gram[at * width + at] += ridge * train.len() as f64;
    }
    let coefficients = solve(&mut gram, &cross, width, models);
    // Keep the directions among models that the fitted values move along most.
    let mut spread = vec![0.0; models * models];
    for &query in train {
        let fitted = product(&centred(query), &coefficients, models);
        for (row, value) in fitted.iter().enumerate() {
            for (column, other) in fitted.iter().enumerate() {
                spread[row * models + column] += value * other;
            }
        }
    }
    let factors = leading_directions(spread, models, rank.min(models));
    let costs = matrix.mean_costs(train);
    let mut guesses = Guesses { quality: Vec::new(), cost_usd: Vec::new(), ..Guesses::default() };
    for query in 0..matrix.queries.len() {
        let fitted = product(&centred(query), &coefficients, models);
        let mut kept = means.clone();
        for factor in &factors {
            let along: f64 = fitted.iter().zip(factor).map(|(x, y)| x * y).sum();
            kept.iter_mut().zip(factor).for_each(|(value, y)| *value += along * y);
        }
        guesses.quality.extend(kept);
        guesses.cost_usd.extend_from_slice(&costs);
    }
    guesses
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
        for guesses in
            [cluster_means(&matrix, &train, &embeddings, 2, 1), factored(&matrix, &train, &embeddings, 1, 1e-3)]
        {
            for query in 40..60 {
                assert_eq!(guesses.choices(&matrix, &[query], 0.0), [query % 2], "query {query}");
            }
        }
    }
}
