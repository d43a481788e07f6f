//! Throughput of one instance as a function of concurrency, and the operating point at a given rate.
//!
//! Let `d` sequences decode at once, each with `Lbar` tokens in context. A decoding sequence gets one token an
//! iteration, so long requests are seen more often: `Lbar = E[L * l] / E[l]` over the `l` decode steps of a request, with
//! `L` the mean context during them. With `m(d)` the iteration without prefill, `e(d)` the mean prefill time a request
//! adds beyond it (see `prefill`), `E` the mean number of decode steps, and `lambda` requests per ms:
//!
//! ```text
//! T = m / (1 - lambda e)          mean iteration: prefill takes the share lambda e of all time
//! d = lambda E T                  Little's law for decoding sequences
//! =>  lambda(d) = d / (E m(d) + d e(d))
//! ```
//!
//! `E m/d` and `e` both fall as `d` grows, so `lambda(d)` rises strictly: a rate below the capacity has exactly one root,
//! it is stable, and one above has none. The capacity is where the first of three limits binds: sequences in memory,
//! `max_num_seqs`, or the prefill channel `lambda x <= 1`, with `x` the iteration time that a prompt takes.

use serde::Serialize;

use crate::prefill::{Batch, PrefillTable, own_ms, shared_ms};
use crate::queue::{InFlight, Wait, in_flight};
use crate::workload::total_weight;
use crate::{Cell, GpuProfile, KvAdmission};

const CURVE_POINTS_MAX: usize = 512;
const BISECTIONS: usize = 50;

/// What limits an instance's throughput.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Saturation {
    /// All iterations carry a full chunk of prompts.
    PrefillCompute,
    /// Keys and values fill the memory at the chosen quantile.
    KvMemory,
    /// The engine's own limit on running sequences.
    MaxNumSeqs,
}

impl Saturation {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::PrefillCompute => "prefill compute",
            Self::KvMemory => "KV memory",
            Self::MaxNumSeqs => "the engine's limit on running sequences",
        }
    }
}

/// No stable operating point: the rate is at or above the capacity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overload {
    /// What ran out.
    pub by: Saturation,
    /// Highest sustainable rate of one instance, requests a second.
    pub capacity_per_s: f64,
}

/// One kind of instance serving one distribution of requests.
#[derive(Debug, Clone)]
pub struct PoolModel<'a> {
    pub(crate) profile: &'a GpuProfile,
    pub(crate) cells: Vec<Cell>,
    pub(crate) weight: f64,
    /// Share of requests that are longer than the engine accepts; they miss every objective.
    pub rejected_share: f64,
    /// Mean decode iterations of a request (completion tokens after the first).
    pub decode_steps_mean: f64,
    /// Mean context of a decoding sequence, tokens (`Lbar`).
    pub context_tokens: f64,
    /// Sequences that one instance runs at once at most.
    pub slots: f64,
    /// What the capacity is limited by.
    pub saturation: Saturation,
    /// Highest sustainable rate of one instance, requests a second.
    pub capacity_per_s: f64,
    pub(crate) service_cv2: f64,
    kv_per_sequence: f64,
    /// What an engine that reserves sets aside for a sequence, tokens.
    reserved_tokens: f64,
    decoding_max: f64,
    table: PrefillTable,
    curve_per_ms: Vec<f64>,
}

/// State of each instance of a pool at a given load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operating {
    pub rate_per_ms: f64,
    pub batch: Batch,
    pub decoding: f64,
    pub in_flight: f64,
    /// Mean iteration, prefill included: the mean TPOT.
    pub iteration_ms: f64,
    /// Moments of the prefill time that a request adds beyond the decoding batch's own iterations.
    pub excess_ms: f64,
    pub excess_square_ms: f64,
    /// Mean iteration that carries a full chunk.
    pub full_iteration_ms: f64,
    pub prefill_utilisation: f64,
    pub utilisation: f64,
    pub in_flight_deviation: f64,
    pub slot_wait: Wait,
    pub prefill_wait: Wait,
}

impl<'a> PoolModel<'a> {
    /// `cells` as observed; `kv_quantile` (0 to 1) is how often all sequences of a full batch must fit in memory.
    ///
    /// `None` if every request is longer than the engine accepts.
    pub fn new(profile: &'a GpuProfile, cells: &[Cell], kv_quantile: f64) -> Option<Self> {
        Self::reserving(profile, cells, kv_quantile, profile.max_model_tokens.value)
    }

    /// Where the engine reserves memory, it sets aside `reserved_tokens` for every sequence, at most what it accepts.
    pub(crate) fn reserving(
        profile: &'a GpuProfile,
        cells: &[Cell],
        kv_quantile: f64,
        reserved_tokens: f64,
    ) -> Option<Self> {
        let reserved_tokens = reserved_tokens.min(profile.max_model_tokens.value);
        let longest = profile.longest_request_tokens();
        let served: Vec<Cell> = cells.iter().copied().filter(|cell| cell.total_tokens() <= longest).collect();
        if served.is_empty() {
            return None;
        }
        let weight = total_weight(&served);
        let mean = |value: &dyn Fn(&Cell) -> f64| served.iter().map(|c| c.weight * value(c)).sum::<f64>() / weight;

        // Time-sampled moments: a sequence is met in memory in proportion to its completion tokens.
        let completion_mean = mean(&|c| c.completion_tokens);
        let sampled = |value: &dyn Fn(&Cell) -> f64| mean(&|c| c.completion_tokens * value(c)) / completion_mean;
        let context_tokens = sampled(&|c| c.prompt_tokens + c.completion_tokens / 2.0);
        let kv_per_sequence = context_tokens + profile.block_tokens.value / 2.0;
        let kv_square = sampled(&|c| {
            let middle = c.prompt_tokens + c.completion_tokens / 2.0 + profile.block_tokens.value / 2.0;
            middle * middle + c.completion_tokens * c.completion_tokens / 12.0
        });
        let kv_deviation = (kv_square - kv_per_sequence * kv_per_sequence).max(0.0).sqrt();
        let in_memory = match profile.kv_admission {
            KvAdmission::Accounted => {
                sequences_that_fit(profile.kv_tokens.value, kv_per_sequence, kv_deviation, kv_quantile)
            }
            KvAdmission::Reserved => profile.reserved_slots(reserved_tokens),
        };
        let slots = in_memory.floor().min(profile.max_num_seqs.value).max(1.0);
        let slots_by =
            if in_memory < profile.max_num_seqs.value { Saturation::KvMemory } else { Saturation::MaxNumSeqs };

        let mut model = Self {
            profile,
            weight,
            rejected_share: 1.0 - weight / total_weight(cells),
            decode_steps_mean: completion_mean - 1.0,
            context_tokens,
            slots,
            saturation: slots_by,
            capacity_per_s: 0.0,
            service_cv2: mean(&|c| c.completion_tokens.powi(2)) / completion_mean.powi(2) - 1.0,
            kv_per_sequence,
            reserved_tokens,
            decoding_max: 0.0,
            table: PrefillTable::of(profile, &served, weight),
            curve_per_ms: Vec::new(),
            cells: served,
        };
        model.find_capacity();
        model.tabulate_curve();
        Some(model)
    }

    fn find_capacity(&mut self) {
        let sustainable = |model: &Self, decoding: f64| {
            let rate = model.rate_at(decoding);
            let prefill = rate * model.table.shared_ms(model.batch_of(decoding));
            (decoding + prefill <= model.slots, prefill <= 1.0)
        };
        if self.decode_steps_mean > 0.0 {
            let (mut low, mut high) = (0.0, self.slots);
            for _ in 0..BISECTIONS {
                let middle = (low + high) / 2.0;
                if sustainable(self, middle) == (true, true) { low = middle } else { high = middle }
            }
            self.decoding_max = low;
            if !sustainable(self, high).1 {
                self.saturation = Saturation::PrefillCompute;
            }
            self.capacity_per_s = self.rate_at(low) * 1000.0;
        } else {
            // Completions of one token never decode: the prefill channel is all there is.
            self.saturation = Saturation::PrefillCompute;
            self.capacity_per_s = 1000.0 / self.table.shared_ms(self.batch_of(0.0));
        }
    }

    /// Throughput per ms with `k` in flight, on an even grid over `0..=slots`.
    fn tabulate_curve(&mut self) {
        let points = (self.slots as usize).min(CURVE_POINTS_MAX);
        let mut curve = vec![0.0; points + 1];
        let mut floor = 0.0;
        for (point, value) in curve.iter_mut().enumerate().skip(1) {
            let in_flight = self.slots * point as f64 / points as f64;
            let (mut low, mut high) = (floor, self.decoding_max);
            for _ in 0..BISECTIONS / 2 {
                let middle = (low + high) / 2.0;
                let rate = self.rate_at(middle);
                let total = middle + rate * self.table.shared_ms(self.batch_of(middle));
                if total <= in_flight { low = middle } else { high = middle }
            }
            floor = low;
            *value = self.rate_at(high);
        }
        if self.decode_steps_mean <= 0.0 {
            curve.iter_mut().skip(1).for_each(|value| *value = self.capacity_per_s / 1000.0);
        }
        self.curve_per_ms = curve;
    }

    /// Throughput of one instance with `in_flight` sequences, requests a second.
    pub fn throughput_per_s(&self, in_flight: f64) -> f64 {
        self.curve_at(in_flight) * 1000.0
    }

    fn curve_at(&self, in_flight: f64) -> f64 {
        let last = self.curve_per_ms.len() - 1;
        let position = (in_flight / self.slots * last as f64).clamp(0.0, last as f64);
        let below = (position as usize).min(last - 1);
        let share = position - below as f64;
        self.curve_per_ms[below] * (1.0 - share) + self.curve_per_ms[below + 1] * share
    }

    pub(crate) fn batch_of(&self, decoding: f64) -> Batch {
        let memory_ms = self.profile.memory_ms(decoding, self.context_tokens);
        let compute_ms = self.profile.compute_ms_per_token() * decoding;
        Batch { base_ms: memory_ms.max(compute_ms), slack_ms: (memory_ms - compute_ms).max(0.0) }
    }

    /// `lambda(d)`, requests per ms.
    fn rate_at(&self, decoding: f64) -> f64 {
        if decoding <= 0.0 {
            return 0.0;
        }
        let batch = self.batch_of(decoding);
        decoding / (self.decode_steps_mean * batch.base_ms + decoding * self.table.excess_ms(batch.slack_ms))
    }

    /// Decoding sequences at `rate_per_ms`: the only root of `lambda(d) = rate`.
    fn decoding_at(&self, rate_per_ms: f64) -> f64 {
        let (mut low, mut high) = (0.0, self.decoding_max);
        for _ in 0..BISECTIONS {
            let middle = (low + high) / 2.0;
            if self.rate_at(middle) < rate_per_ms { low = middle } else { high = middle }
        }
        (low + high) / 2.0
    }

    /// Mean time from admission to the last token at 70 % of one instance's capacity, s: the time scale on which a
    /// sustained rate fills the pool. It depends on lengths and profile alone, not on the load.
    pub fn residence_s(&self) -> f64 {
        let rate_per_ms = 0.7 * self.capacity_per_s / 1000.0;
        let decoding = self.decoding_at(rate_per_ms);
        let batch = self.batch_of(decoding);
        (decoding / rate_per_ms + self.table.shared_ms(batch)) / 1000.0
    }

    /// `instances` share `rate_per_s`; `dispersion` is the index of dispersion of arrivals within a window.
    ///
    /// Balance: the router picks the least loaded instance, so slots count as one pool, and each instance's prefill
    /// queue is its own but gets its arrivals nearly in turn.
    pub(crate) fn operate(&self, instances: u32, rate_per_s: f64, dispersion: f64) -> Result<Operating, Overload> {
        let instances = f64::from(instances);
        let rate_per_ms = rate_per_s / 1000.0 / instances;
        let utilisation = rate_per_ms * 1000.0 / self.capacity_per_s;
        if utilisation >= 1.0 - 1e-9 {
            return Err(Overload { by: self.saturation, capacity_per_s: self.capacity_per_s });
        }
        let decoding = self.decoding_at(rate_per_ms);
        let batch = self.batch_of(decoding);
        let excess_ms = self.table.excess_ms(batch.slack_ms);
        let shared_mean_ms = self.table.shared_ms(batch);
        let iteration_ms = batch.base_ms / (1.0 - rate_per_ms * excess_ms);
        let (mut shared_square_ms, mut excess_square_ms) = (0.0, 0.0);
        for cell in &self.cells {
            let shared = shared_ms(self.profile, cell, batch);
            let chunks = (cell.prompt_tokens - cell.cached_tokens()) / self.profile.chunk_tokens.value;
            shared_square_ms += cell.weight / self.weight * shared * shared;
            excess_square_ms += cell.weight / self.weight * (shared - chunks * batch.base_ms).powi(2);
        }
        // Dealt in turn, each of N instances gets every N-th arrival: Erlang-N gaps have 1/N of the variability. Simulated
        // least-in-flight dealing to 1 to 64 instances smooths about as much: this P99 TTFT is 0.86 to 1.6 times the
        // simulated one, too high for long prompts, where 1 instead of 1/N would make it up to 3.2 times as high.
        let dispersion_each = dispersion / instances;
        excess_square_ms -= (1.0 - dispersion_each.min(1.0)) * excess_ms * excess_ms;

        let states = self.in_flight_states(instances, rate_per_ms);
        let slot_wait = if self.saturation == Saturation::PrefillCompute || states.full < 1e-12 {
            Wait::NONE
        } else {
            let capacity = self.capacity_per_s / 1000.0 * instances;
            Wait::for_slots(states.full, capacity, rate_per_ms * instances, dispersion, self.service_cv2)
        };
        Ok(Operating {
            rate_per_ms,
            batch,
            decoding,
            in_flight: decoding + rate_per_ms * shared_mean_ms,
            iteration_ms,
            excess_ms,
            excess_square_ms,
            full_iteration_ms: batch.base_ms + excess_ms / self.table.chunks_mean,
            prefill_utilisation: rate_per_ms * shared_mean_ms,
            utilisation,
            in_flight_deviation: states.deviation / instances,
            slot_wait,
            prefill_wait: Wait::for_servers(1, rate_per_ms, shared_mean_ms, shared_square_ms, dispersion_each),
        })
    }

    fn in_flight_states(&self, instances: f64, rate_per_ms: f64) -> InFlight {
        let slots = (self.slots * instances) as usize;
        in_flight(slots, rate_per_ms * instances, |k| instances * self.curve_at(k / instances)).unwrap_or(InFlight {
            full: 1.0,
            mean: slots as f64,
            deviation: 0.0,
        })
    }

    /// Mean share of the KV memory in use.
    pub(crate) fn kv_share(&self, operating: &Operating) -> f64 {
        match self.profile.kv_admission {
            KvAdmission::Accounted => operating.in_flight * self.kv_per_sequence / self.profile.kv_tokens.value,
            KvAdmission::Reserved => operating.in_flight * self.reserved_tokens / self.profile.kv_tokens.value,
        }
    }

    /// Prefill of a cell on an instance in this state, when no other prompt waits, ms.
    pub(crate) fn own_prefill_ms(&self, cell: &Cell, batch: Batch) -> f64 {
        own_ms(self.profile, cell, batch)
    }
}

/// Largest `n` with `n mean + z sqrt(n) deviation <= memory`: the sum of `n` independent holdings, normal approximation.
fn sequences_that_fit(memory: f64, mean: f64, deviation: f64, quantile: f64) -> f64 {
    let spread = normal_quantile(quantile) * deviation;
    let root = (-spread + (spread * spread + 4.0 * mean * memory).sqrt()) / (2.0 * mean);
    root * root
}

/// Abramowitz and Stegun, 26.2.23; absolute error below 4.5e-4.
pub(crate) fn normal_quantile(probability: f64) -> f64 {
    let tail = probability.min(1.0 - probability).max(1e-300);
    let t = (-2.0 * tail.ln()).sqrt();
    let magnitude = t
        - (2.515_517 + 0.802_853 * t + 0.010_328 * t * t)
            / (1.0 + 1.432_788 * t + 0.189_269 * t * t + 0.001_308 * t * t * t);
    if probability < 0.5 { -magnitude } else { magnitude }
}

/// Abramowitz and Stegun, 26.2.17; absolute error below 7.5e-8.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let poly =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let upper = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly;
    if x >= 0.0 { 1.0 - upper } else { upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(prompt_tokens: f64, completion_tokens: f64, weight: f64) -> Cell {
        Cell { prompt_tokens, completion_tokens, cached_share: 0.0, weight }
    }

    /// Without prefill cost the fixed point is linear and solves by hand: `T = w / (1 - lambda h Lbar E)`.
    #[test]
    fn operating_point_matches_the_closed_form_without_prefill_cost() {
        let mut profile = GpuProfile::named("llama-3.1-70b-bf16-8xh100").unwrap();
        profile.parameters.value = 0.0;
        profile.attention_flops_per_pair.value = 0.0;
        let cells = [cell(900.0, 201.0, 2.0), cell(100.0, 801.0, 1.0)];
        let model = PoolModel::new(&profile, &cells, 0.99).unwrap();
        let steps = (2.0 * 200.0 + 800.0) / 3.0;
        assert!((model.decode_steps_mean - steps).abs() < 1e-9);
        // Length-biased context: (2*201*(900+100.5) + 801*(100+400.5)) / (2*201 + 801).
        let context = (402.0 * 1000.5 + 801.0 * 500.5) / 1203.0;
        assert!((model.context_tokens - context).abs() < 1e-9);
        let rate_per_s = 0.5 * model.capacity_per_s;
        let operating = model.operate(1, rate_per_s, 1.0).unwrap();
        let load = rate_per_s / 1000.0 * profile.memory_ms_per_token() * context * steps;
        let expected_ms = profile.w_ms.value / (1.0 - load);
        assert!((operating.iteration_ms / expected_ms - 1.0).abs() < 1e-6, "{} {expected_ms}", operating.iteration_ms);
    }

    #[test]
    fn a_rate_at_capacity_has_no_operating_point_and_says_what_ran_out() {
        let profile = GpuProfile::named("llama-3.1-70b-bf16-8xh100").unwrap();
        let long_prompts = [cell(20_000.0, 50.0, 1.0)];
        let model = PoolModel::new(&profile, &long_prompts, 0.99).unwrap();
        let overload = model.operate(2, 2.0 * model.capacity_per_s, 1.0).unwrap_err();
        assert_eq!(overload.by, Saturation::PrefillCompute);
        assert!(model.operate(2, 1.99 * model.capacity_per_s, 1.0).is_ok());

        let long_answers = [cell(50.0, 4000.0, 1.0)];
        assert_eq!(PoolModel::new(&profile, &long_answers, 0.99).unwrap().saturation, Saturation::MaxNumSeqs);
        let small = GpuProfile::named("llama-3.1-8b-bf16-1xl40s").unwrap();
        let long_both = [cell(4000.0, 4000.0, 1.0)];
        assert_eq!(PoolModel::new(&small, &long_both, 0.99).unwrap().saturation, Saturation::KvMemory);
    }

    /// The defect where capacity came out as slots times too high: throughput never exceeds the prefill and memory roofs.
    #[test]
    fn throughput_rises_with_concurrency_and_ends_at_the_capacity() {
        let profile = GpuProfile::named("llama-3.1-70b-bf16-8xa100").unwrap();
        let model = PoolModel::new(&profile, &[cell(700.0, 300.0, 1.0), cell(6000.0, 100.0, 0.2)], 0.99).unwrap();
        let curve: Vec<f64> = (0..=model.slots as usize).map(|k| model.throughput_per_s(k as f64)).collect();
        assert!(curve.windows(2).all(|pair| pair[1] >= pair[0] - 1e-12));
        assert!((curve.last().unwrap() / model.capacity_per_s - 1.0).abs() < 1e-6);
    }

    #[test]
    fn memory_holds_fewer_sequences_the_more_they_differ() {
        assert!((sequences_that_fit(1000.0, 10.0, 0.0, 0.99) - 100.0).abs() < 1e-9);
        let spread = sequences_that_fit(1000.0, 10.0, 10.0, 0.99);
        assert!((spread * 10.0 + normal_quantile(0.99) * 10.0 * spread.sqrt() - 1000.0).abs() < 1e-6);
    }

    /// Standard normal tables.
    #[test]
    fn normal_approximations_match_tables() {
        assert!((normal_quantile(0.99) - 2.3263).abs() < 5e-4);
        assert!((normal_quantile(0.05) + 1.6449).abs() < 5e-4);
        assert!((normal_cdf(1.96) - 0.975_002_1).abs() < 1e-6);
        assert!((normal_cdf(-1.0) - 0.158_655_3).abs() < 1e-6);
    }
}
