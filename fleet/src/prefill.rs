//! Prefill in chunks.
//!
//! An iteration computes at most `chunk_tokens` prompt tokens, first come first served, beside the decoding batch. With a
//! batch whose own iteration takes `base_ms` and leaves `slack_ms` of the compute units unused while memory is read, a
//! chunk that needs `f` ms of compute makes the iteration
//!
//! ```text
//! base_ms + max(0, f - slack_ms)
//! ```
//!
//! A prompt's last, partly filled chunk is alone in its iteration when no other prompt waits, and shares it when one
//! does. [`own_ms`] is the first (the latency of a prompt that nothing delays); [`shared_ms`] charges the partial chunk
//! its share of a full one (the time that a prompt takes from a busy prefill queue). The excess `max(0, f - slack)` is
//! convex in the chunk's tokens and zero at zero, so the second never undercounts.

use crate::{Cell, GpuProfile};

/// The decoding batch, as prefill meets it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    /// Duration of an iteration without prefill, ms.
    pub base_ms: f64,
    /// Part of it in which the compute units wait for memory, ms.
    pub slack_ms: f64,
}

/// A prompt cut into chunks: `full` whole ones, then `rest` tokens.
#[derive(Debug, Clone, Copy)]
struct Chunks {
    full: f64,
    rest: f64,
    cached: f64,
    size: f64,
}

impl Chunks {
    fn of(profile: &GpuProfile, cell: &Cell) -> Self {
        let size = profile.chunk_tokens.value;
        let cached = cell.cached_tokens();
        let tokens = cell.prompt_tokens - cached;
        let full = (tokens / size).floor();
        Self { full, rest: tokens - full * size, cached, size }
    }

    fn history_of_rest(&self) -> f64 {
        self.cached + self.full * self.size
    }

    /// Compute beyond the slack over the whole chunks: an arithmetic series from the first that exceeds it.
    fn excess_of_full_ms(&self, profile: &GpuProfile, slack_ms: f64) -> f64 {
        let first = profile.chunk_compute_ms(self.size, self.cached) - slack_ms;
        let step = profile.compute_ms_per_pair() * self.size * self.size;
        let skipped = if first >= 0.0 {
            0.0
        } else if step > 0.0 {
            (-first / step).ceil().min(self.full)
        } else {
            self.full
        };
        let counted = self.full - skipped;
        counted * first + step * counted * (skipped + self.full - 1.0) / 2.0
    }
}

/// Time from the first chunk's start to the first token when no other prompt is in progress, ms.
pub(crate) fn own_ms(profile: &GpuProfile, cell: &Cell, batch: Batch) -> f64 {
    let chunks = Chunks::of(profile, cell);
    let mut time = chunks.full * batch.base_ms + chunks.excess_of_full_ms(profile, batch.slack_ms);
    if chunks.rest > 0.0 {
        let compute = profile.chunk_compute_ms(chunks.rest, chunks.history_of_rest());
        time += batch.base_ms + (compute - batch.slack_ms).max(0.0);
    }
    time
}

/// Time that a prompt takes from a busy prefill queue, ms: its partial chunk shares an iteration.
pub(crate) fn shared_ms(profile: &GpuProfile, cell: &Cell, batch: Batch) -> f64 {
    let chunks = Chunks::of(profile, cell);
    let share = chunks.rest / chunks.size;
    let compute = profile.chunk_compute_ms(chunks.size, chunks.history_of_rest());
    (chunks.full + share) * batch.base_ms
        + chunks.excess_of_full_ms(profile, batch.slack_ms)
        + share * (compute - batch.slack_ms).max(0.0)
}

/// The mean of [`shared_ms`] over all requests as a function of the batch, in constant time.
///
/// Compute of a full chunk is linear in its history, so chunks are counted by history (in quarters of a chunk) and the
/// expected excess over any slack is read from two suffix sums.
#[derive(Debug, Clone)]
pub(crate) struct PrefillTable {
    /// Chunks in a request, on average, partial ones by their share.
    pub chunks_mean: f64,
    first_ms: f64,
    step_ms: f64,
    weight_from: Vec<f64>,
    index_weight_from: Vec<f64>,
}

const HISTORY_BINS_PER_CHUNK: f64 = 4.0;

impl PrefillTable {
    pub(crate) fn of(profile: &GpuProfile, cells: &[Cell], total_weight: f64) -> Self {
        let size = profile.chunk_tokens.value;
        let mut weights = Vec::<f64>::new();
        let mut add = |history: f64, weight: f64| {
            let bin = (history / size * HISTORY_BINS_PER_CHUNK).round() as usize;
            if bin >= weights.len() {
                weights.resize(bin + 1, 0.0);
            }
            weights[bin] += weight;
        };
        for cell in cells {
            let chunks = Chunks::of(profile, cell);
            let share_of_requests = cell.weight / total_weight;
            for index in 0..chunks.full as usize {
                add(chunks.cached + index as f64 * size, share_of_requests);
            }
            if chunks.rest > 0.0 {
                add(chunks.history_of_rest(), share_of_requests * chunks.rest / size);
            }
        }
        let mut weight_from = vec![0.0; weights.len() + 1];
        let mut index_weight_from = vec![0.0; weights.len() + 1];
        for bin in (0..weights.len()).rev() {
            weight_from[bin] = weight_from[bin + 1] + weights[bin];
            index_weight_from[bin] = index_weight_from[bin + 1] + weights[bin] * bin as f64;
        }
        Self {
            chunks_mean: weight_from[0],
            first_ms: profile.chunk_compute_ms(size, 0.0),
            step_ms: profile.compute_ms_per_pair() * size * size / HISTORY_BINS_PER_CHUNK,
            weight_from,
            index_weight_from,
        }
    }

    /// Mean compute beyond the slack, ms a request.
    pub(crate) fn excess_ms(&self, slack_ms: f64) -> f64 {
        let short_by = slack_ms - self.first_ms;
        let last = self.weight_from.len() - 1;
        let bin = if short_by <= 0.0 {
            0
        } else if self.step_ms > 0.0 {
            ((short_by / self.step_ms).ceil() as usize).min(last)
        } else {
            last
        };
        self.index_weight_from[bin] * self.step_ms - self.weight_from[bin] * short_by
    }

    /// Mean of [`shared_ms`], ms a request.
    pub(crate) fn shared_ms(&self, batch: Batch) -> f64 {
        self.chunks_mean * batch.base_ms + self.excess_ms(batch.slack_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::total_weight;

    fn profile() -> GpuProfile {
        GpuProfile::named("llama-3.1-70b-bf16-8xh100").unwrap()
    }

    fn cell(prompt_tokens: f64, cached_share: f64) -> Cell {
        Cell { prompt_tokens, completion_tokens: 10.0, cached_share, weight: 3.0 }
    }

    #[test]
    fn closed_form_equals_the_sum_over_chunks() {
        let profile = profile();
        let size = profile.chunk_tokens.value;
        for slack_ms in [0.0, 5.0, 37.0, 45.0, 400.0] {
            let batch = Batch { base_ms: slack_ms + 1.0, slack_ms };
            for prompt in [1.0, 700.0, 1024.0, 5000.0, 100_000.0] {
                for cached_share in [0.0, 0.6] {
                    let cell = cell(prompt, cached_share);
                    let (mut history, mut time) = (cell.cached_tokens(), 0.0);
                    while history < prompt - 1e-9 {
                        let tokens = size.min(prompt - history);
                        let compute = profile.chunk_compute_ms(tokens, history);
                        time += batch.base_ms + (compute - slack_ms).max(0.0);
                        history += tokens;
                    }
                    let closed = own_ms(&profile, &cell, batch);
                    assert!((closed - time).abs() < 1e-6 * time, "{prompt} {cached_share} {slack_ms}: {closed} {time}");
                }
            }
        }
    }

    #[test]
    fn the_table_equals_the_mean_over_cells() {
        let profile = profile();
        let cells = [cell(90.0, 0.0), cell(3000.0, 0.0), cell(40_000.0, 0.0), cell(9000.0, 0.5)];
        let table = PrefillTable::of(&profile, &cells, total_weight(&cells));
        for slack_ms in [0.0, 10.0, 38.0, 60.0, 1000.0] {
            let batch = Batch { base_ms: slack_ms + 2.0, slack_ms };
            let mean = cells.iter().map(|c| shared_ms(&profile, c, batch)).sum::<f64>() / cells.len() as f64;
            let read = table.shared_ms(batch);
            // Exact but for the rounding of a cached prefix to a quarter of a chunk.
            assert!((read / mean - 1.0).abs() < 1e-3, "slack {slack_ms}: {read} {mean}");
        }
    }

    #[test]
    fn sharing_a_chunk_never_undercounts_compute() {
        let profile = profile();
        let batch = Batch { base_ms: 12.0, slack_ms: 11.0 };
        for prompt in [10.0, 300.0, 1500.0, 7000.0] {
            let cell = cell(prompt, 0.0);
            let chunks = (prompt / profile.chunk_tokens.value).ceil();
            let excess_alone = own_ms(&profile, &cell, batch) - chunks * batch.base_ms;
            let excess_shared = shared_ms(&profile, &cell, batch) - prompt / profile.chunk_tokens.value * batch.base_ms;
            assert!(excess_shared >= excess_alone - 1e-9);
        }
    }
}
