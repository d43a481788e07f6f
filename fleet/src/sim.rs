//! An iteration-by-iteration simulator of one pool under the same iteration law as the model.
//!
//! Continuous batching with chunked prefill, as vLLM schedules: in each iteration every decoding sequence gets one
//! token; the chunk budget goes to prompts in progress, then to waiting ones, first come first served; a prompt is
//! admitted when its tokens fit in the free KV memory; when growing sequences overfill it, the latest admitted is put
//! back to the head of the queue and later recomputed. Unlike the model it knows no averages: batches, contexts and
//! chunks are those of the moment. Time is simulated; the same requests give the same report.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::weighted::WeightedIndex;
use rand_distr::{Distribution, Exp1};

use crate::{Cell, GpuProfile};

/// One request of a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request {
    /// Arrival, ms; requests must come in this order.
    pub arrival_ms: f64,
    /// Prompt, tokens; none counts as one.
    pub prompt_tokens: u32,
    /// Part of the prompt found in the prefix cache, tokens.
    pub cached_tokens: u32,
    /// Completion, tokens; none counts as one.
    pub completion_tokens: u32,
}

/// How requests are spread over instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The instance with the fewest requests in it; ties go round.
    LeastInFlight,
    /// Uniformly at random.
    Random,
}

/// What to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Instances in the pool; without one, every request is refused.
    pub instances: usize,
    /// How requests are spread over them.
    pub balance: Balance,
    /// Requests that may wait at one instance; more are rejected.
    pub queue_max: usize,
    /// Seed of the random balance.
    pub seed: u64,
}

/// One finished request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Served {
    /// Index in the trace.
    pub request: usize,
    /// Arrival, ms.
    pub arrival_ms: f64,
    /// Arrival to first admission into a batch, ms.
    pub queued_ms: f64,
    /// Arrival to first token, ms.
    pub ttft_ms: f64,
    /// Mean time between tokens after the first, ms; `None` for one-token answers.
    pub tpot_ms: Option<f64>,
    /// Arrival to last token, ms.
    pub e2e_ms: f64,
}

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Finished requests, in the order of their end.
    pub served: Vec<Served>,
    /// Requests refused: longer than the engine accepts, or met a full queue. They belong in every denominator.
    pub rejected: u64,
    /// Sequences put back because memory ran out.
    pub preemptions: u64,
    /// Iterations run.
    pub iterations: u64,
    /// Prompt tokens computed.
    pub prefill_tokens: u64,
    /// Completion tokens emitted.
    pub completion_tokens: u64,
    /// First arrival to last completion, ms.
    pub span_ms: f64,
    /// Time in iterations over all instances, ms.
    pub busy_ms: f64,
    /// Integral of the number of requests in the system, request-ms.
    pub in_system_request_ms: f64,
    /// Integral of the number of decoding sequences, request-ms.
    pub decoding_request_ms: f64,
    /// Largest KV use of any instance, tokens.
    pub kv_peak_tokens: f64,
    /// Requests served by each instance.
    pub served_by_instance: Vec<u64>,
    /// Time in which an instance had work but ran no iteration; zero if work is conserved.
    pub idle_with_work_ms: f64,
}

impl Report {
    /// Quantile over served requests that arrived after `warm_up_ms`; NaN if there are none.
    pub fn quantile(&self, quantile: f64, warm_up_ms: f64, value: impl Fn(&Served) -> Option<f64>) -> f64 {
        let mut values: Vec<f64> =
            self.served.iter().filter(|served| served.arrival_ms >= warm_up_ms).filter_map(value).collect();
        if values.is_empty() { f64::NAN } else { crate::arrivals::sample_quantile(&mut values, quantile) }
    }

    /// Mean over the same requests.
    pub fn mean(&self, warm_up_ms: f64, value: impl Fn(&Served) -> Option<f64>) -> f64 {
        let values: Vec<f64> =
            self.served.iter().filter(|served| served.arrival_ms >= warm_up_ms).filter_map(value).collect();
        values.iter().sum::<f64>() / values.len() as f64
    }
}

/// `count` Poisson arrivals at `rate_per_s` with lengths drawn from the cells.
pub fn poisson_requests(cells: &[Cell], rate_per_s: f64, count: usize, seed: u64) -> Vec<Request> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let Ok(index) = WeightedIndex::new(cells.iter().map(|cell| cell.weight)) else {
        return Vec::new();
    };
    let mut now_ms = 0.0;
    (0..count)
        .map(|_| {
            let gap: f64 = rng.sample(Exp1);
            now_ms += gap * 1000.0 / rate_per_s;
            let cell = &cells[index.sample(&mut rng)];
            Request {
                arrival_ms: now_ms,
                prompt_tokens: cell.prompt_tokens.round().max(1.0) as u32,
                cached_tokens: cell.cached_tokens().round() as u32,
                completion_tokens: cell.completion_tokens.round().max(1.0) as u32,
            }
        })
        .collect()
}

/// Runs the trace to its end.
pub fn simulate(profile: &GpuProfile, requests: &[Request], config: &Config) -> Report {
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut report = Report { served_by_instance: vec![0; config.instances], ..Report::default() };
    let mut instances: Vec<Instance<'_>> =
        (0..config.instances).map(|number| Instance::new(number, profile, requests)).collect();
    if instances.is_empty() {
        report.rejected = requests.len() as u64;
        return report;
    }
    let longest = profile.longest_request_tokens();
    let mut next_tie = 0;
    for (request, arriving) in requests.iter().enumerate() {
        for instance in &mut instances {
            instance.run_until(arriving.arrival_ms, &mut report);
        }
        let total = f64::from(arriving.prompt_tokens) + f64::from(arriving.completion_tokens);
        let chosen = match config.balance {
            Balance::Random => rng.random_range(0..config.instances),
            Balance::LeastInFlight => {
                let from_tie = |offset: usize| (next_tie + offset) % config.instances;
                (0..config.instances).map(from_tie).min_by_key(|i| instances[*i].in_system()).unwrap_or(0)
            }
        };
        next_tie = (chosen + 1) % config.instances;
        if total > longest || instances[chosen].waiting.len() >= config.queue_max {
            report.rejected += 1;
        } else {
            instances[chosen].enqueue(request, &mut report);
        }
    }
    for instance in &mut instances {
        instance.run_until(f64::INFINITY, &mut report);
    }
    report.served.sort_by(|a, b| (a.arrival_ms + a.e2e_ms).total_cmp(&(b.arrival_ms + b.e2e_ms)));
    let first = requests.first().map_or(0.0, |request| request.arrival_ms);
    let last = report.served.iter().map(|s| s.arrival_ms + s.e2e_ms).fold(first, f64::max);
    report.span_ms = last - first;
    report
}

#[derive(Debug, Clone, Copy)]
struct Sequence {
    request: usize,
    /// Tokens of the context to compute before the next token: the prompt, and after a preemption what was generated.
    context: u32,
    computed: u32,
    remaining: u32,
    admitted_ms: Option<f64>,
    first_token_ms: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Decoding {
    sequence: Sequence,
    finish_iteration: u64,
}

struct Instance<'a> {
    number: usize,
    profile: &'a GpuProfile,
    requests: &'a [Request],
    clock_ms: f64,
    iteration: u64,
    waiting: VecDeque<Sequence>,
    prefilling: VecDeque<(u64, Sequence)>,
    /// Decoding sequences by order of admission; the last one is preempted first.
    decoding: BTreeMap<u64, Decoding>,
    finishing: BinaryHeap<Reverse<(u64, u64)>>,
    admissions: u64,
    decoding_context_tokens: f64,
    kv_used_tokens: f64,
}

impl<'a> Instance<'a> {
    fn new(number: usize, profile: &'a GpuProfile, requests: &'a [Request]) -> Self {
        Self {
            number,
            profile,
            requests,
            clock_ms: 0.0,
            iteration: 0,
            waiting: VecDeque::new(),
            prefilling: VecDeque::new(),
            decoding: BTreeMap::new(),
            finishing: BinaryHeap::new(),
            admissions: 0,
            decoding_context_tokens: 0.0,
            kv_used_tokens: 0.0,
        }
    }

    fn in_system(&self) -> usize {
        self.waiting.len() + self.running()
    }

    fn running(&self) -> usize {
        self.prefilling.len() + self.decoding.len()
    }

    fn enqueue(&mut self, request: usize, report: &mut Report) {
        let arriving = &self.requests[request];
        self.clock_ms = self.clock_ms.max(arriving.arrival_ms);
        report.in_system_request_ms += self.clock_ms - arriving.arrival_ms;
        self.waiting.push_back(Sequence {
            request,
            context: arriving.prompt_tokens.max(1),
            computed: arriving.cached_tokens.min(arriving.prompt_tokens.saturating_sub(1)),
            remaining: arriving.completion_tokens.max(1),
            admitted_ms: None,
            first_token_ms: None,
        });
    }

    fn run_until(&mut self, time_ms: f64, report: &mut Report) {
        while self.clock_ms < time_ms && self.in_system() > 0 {
            self.iterate(report);
        }
    }

    /// KV memory of a sequence that holds `context` tokens, half a block of waste included.
    fn kv_of(&self, context: u32) -> f64 {
        f64::from(context) + self.profile.block_tokens.value / 2.0
    }

    fn iterate(&mut self, report: &mut Report) {
        self.make_room(report);
        let (compute_ms, prefill_tokens) = self.schedule_prefill();
        let decoding = self.decoding.len() as f64;
        let memory_ms = self.profile.w_ms.value + self.profile.memory_ms_per_token() * self.decoding_context_tokens;
        let duration_ms = memory_ms.max(compute_ms + self.profile.compute_ms_per_token() * decoding);
        if self.decoding.is_empty() && prefill_tokens == 0 {
            report.idle_with_work_ms += duration_ms;
        }
        report.iterations += 1;
        report.prefill_tokens += prefill_tokens;
        report.busy_ms += duration_ms;
        report.in_system_request_ms += self.in_system() as f64 * duration_ms;
        report.decoding_request_ms += decoding * duration_ms;
        self.clock_ms += duration_ms;
        self.iteration += 1;
        self.decoding_context_tokens += decoding;
        self.kv_used_tokens += decoding;
        report.completion_tokens += self.decoding.len() as u64;
        self.finish_decoding(report);
        self.finish_prefill(report);
        report.kv_peak_tokens = report.kv_peak_tokens.max(self.kv_used_tokens);
    }

    /// Puts the latest admitted sequences back until this iteration's tokens fit. The earliest always stays, so each
    /// round of preemptions ends with progress.
    fn make_room(&mut self, report: &mut Report) {
        while self.kv_used_tokens + self.decoding.len() as f64 > self.profile.kv_tokens.value && self.running() > 1 {
            let last_prefilling = self.prefilling.back().map(|(stamp, _)| *stamp);
            let last_decoding = self.decoding.last_key_value().map(|(stamp, _)| *stamp);
            let sequence = if last_prefilling > last_decoding {
                let Some((_, sequence)) = self.prefilling.pop_back() else { return };
                self.kv_used_tokens -= self.kv_of(sequence.context);
                Sequence { computed: 0, ..sequence }
            } else {
                let Some((_, decoding)) = self.decoding.pop_last() else { return };
                let remaining = (decoding.finish_iteration - self.iteration) as u32;
                let generated = decoding.sequence.remaining - remaining;
                let context = decoding.sequence.context + generated;
                self.decoding_context_tokens -= f64::from(context);
                self.kv_used_tokens -= self.kv_of(context);
                Sequence { context, computed: 0, remaining, ..decoding.sequence }
            };
            report.preemptions += 1;
            self.waiting.push_front(sequence);
        }
    }

    /// Hands out the chunk budget; returns its compute time and tokens.
    fn schedule_prefill(&mut self) -> (f64, u64) {
        let mut budget = self.profile.chunk_tokens.value as u32;
        let (mut compute_ms, mut tokens) = (0.0, 0);
        for (_, sequence) in &mut self.prefilling {
            compute_ms += take_chunk(self.profile, sequence, &mut budget, &mut tokens);
        }
        while budget > 0 && (self.running() as f64) < self.profile.max_num_seqs.value {
            let Some(next) = self.waiting.front() else { break };
            let needed = self.kv_of(next.context) + 1.0 + self.decoding.len() as f64;
            if self.running() > 0 && self.kv_used_tokens + needed > self.profile.kv_tokens.value {
                break;
            }
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            sequence.admitted_ms.get_or_insert(self.clock_ms);
            self.kv_used_tokens += self.kv_of(sequence.context);
            compute_ms += take_chunk(self.profile, &mut sequence, &mut budget, &mut tokens);
            self.prefilling.push_back((self.admissions, sequence));
            self.admissions += 1;
        }
        (compute_ms, u64::from(tokens))
    }

    fn finish_decoding(&mut self, report: &mut Report) {
        while let Some(Reverse((finish_iteration, stamp))) = self.finishing.peek().copied() {
            if finish_iteration > self.iteration {
                break;
            }
            self.finishing.pop();
            // A preempted sequence leaves a stale entry behind: its stamp is gone.
            let Some(decoding) = self.decoding.remove(&stamp) else { continue };
            let context = decoding.sequence.context + decoding.sequence.remaining;
            self.decoding_context_tokens -= f64::from(context);
            self.kv_used_tokens -= self.kv_of(context);
            self.record(decoding.sequence, report);
        }
    }

    /// Prompts whose last chunk was computed emit a token, and decode from the next iteration on.
    fn finish_prefill(&mut self, report: &mut Report) {
        while self.prefilling.front().is_some_and(|(_, sequence)| sequence.computed >= sequence.context) {
            let Some((stamp, mut sequence)) = self.prefilling.pop_front() else { break };
            sequence.first_token_ms.get_or_insert(self.clock_ms);
            report.completion_tokens += 1;
            sequence.remaining -= 1;
            if sequence.remaining == 0 {
                self.kv_used_tokens -= self.kv_of(sequence.context);
                self.record(sequence, report);
                continue;
            }
            sequence.context += 1;
            self.kv_used_tokens += 1.0;
            self.decoding_context_tokens += f64::from(sequence.context);
            let finish_iteration = self.iteration + u64::from(sequence.remaining);
            self.finishing.push(Reverse((finish_iteration, stamp)));
            self.decoding.insert(stamp, Decoding { sequence, finish_iteration });
        }
    }

    fn record(&self, sequence: Sequence, report: &mut Report) {
        let request = &self.requests[sequence.request];
        let first_token_ms = sequence.first_token_ms.unwrap_or(self.clock_ms);
        let steps = f64::from(request.completion_tokens.max(1) - 1);
        report.served_by_instance[self.number] += 1;
        report.served.push(Served {
            request: sequence.request,
            arrival_ms: request.arrival_ms,
            queued_ms: sequence.admitted_ms.unwrap_or(self.clock_ms) - request.arrival_ms,
            ttft_ms: first_token_ms - request.arrival_ms,
            tpot_ms: (steps > 0.0).then(|| (self.clock_ms - first_token_ms) / steps),
            e2e_ms: self.clock_ms - request.arrival_ms,
        });
    }
}

fn take_chunk(profile: &GpuProfile, sequence: &mut Sequence, budget: &mut u32, taken: &mut u32) -> f64 {
    let chunk = (sequence.context - sequence.computed).min(*budget);
    let compute_ms = profile.chunk_compute_ms(f64::from(chunk), f64::from(sequence.computed));
    sequence.computed += chunk;
    *budget -= chunk;
    *taken += chunk;
    compute_ms
}
