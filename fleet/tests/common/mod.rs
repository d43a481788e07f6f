//! Workloads that several tests share.

use weir_fleet::Cell;

/// A log-normal grid: medians and spreads (of the natural logarithm) of prompt and completion, independent.
pub fn lognormal_cells(prompt: (f64, f64), completion: (f64, f64)) -> Vec<Cell> {
    // Mid-points of 16 equally likely slices of a normal, to three digits (standard normal tables).
    const Z: [f64; 8] = [0.078, 0.237, 0.402, 0.579, 0.776, 1.010, 1.318, 1.863];
    let points = || Z.iter().flat_map(|z| [-z, *z]);
    points()
        .flat_map(|z_prompt| {
            points().map(move |z_completion| Cell {
                prompt_tokens: (prompt.0.ln() + prompt.1 * z_prompt).exp().round(),
                completion_tokens: (completion.0.ln() + completion.1 * z_completion).exp().round().max(1.0),
                cached_share: 0.0,
                weight: 40.0,
            })
        })
        .collect()
}

/// Short questions, medium answers.
#[allow(dead_code)]
pub fn chat() -> Vec<Cell> {
    lognormal_cells((300.0, 1.0), (180.0, 0.8))
}

/// Long documents, short answers.
#[allow(dead_code)]
pub fn rag() -> Vec<Cell> {
    lognormal_cells((4000.0, 0.7), (150.0, 0.7))
}

/// Very long contexts, short steps, most of the context cached.
#[allow(dead_code)]
pub fn agent() -> Vec<Cell> {
    lognormal_cells((12_000.0, 0.8), (250.0, 0.9)).into_iter().map(|cell| Cell { cached_share: 0.6, ..cell }).collect()
}

/// Short prompts, very long answers.
#[allow(dead_code)]
pub fn reasoning() -> Vec<Cell> {
    lognormal_cells((200.0, 0.8), (2500.0, 0.6))
}
