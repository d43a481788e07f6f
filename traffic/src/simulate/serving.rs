//! Engines under load: who waits, how fast tokens come, and what the telemetry says meanwhile.
//!
//! An engine batches up to [`SLOTS`] requests; the next ones wait in order. A token takes longer in a fuller batch.
//! Telemetry is read off the same queues, so it agrees with the latencies of the requests.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use weir_schemas::{EventTimeMs, GpuTelemetry};

use super::session::log_normal;
use super::world::SimModel;

/// Requests in a running batch at most.
const SLOTS: usize = 48;
/// Share of the slots that the peak rate may fill when all of it goes to one model.
const PLANNED_LOAD: f64 = 0.6;
/// Tokens of KV cache per slot.
const KV_TOKENS_PER_SLOT: f64 = 6_000.0;
/// A prefix cache works in blocks of this many tokens, as vLLM's default.
const BLOCK_TOKENS: u32 = 16;
/// GPU memory, idle and full power, as of a 700 W accelerator with 80 GB.
const MEMORY_MIB: f64 = 81_559.0;
const POWER_W: (f64, f64) = (95.0, 700.0);

/// What serving a request came to, ms.
pub(super) struct Served {
    pub queue_ms: f64,
    pub ttft_ms: f64,
    pub tpot_ms: f64,
    pub end_to_end_ms: f64,
}

/// All engines of all models.
pub(super) struct Fleet {
    engines: Vec<Vec<Engine>>,
}

struct Engine {
    name: String,
    active: Vec<Active>,
    seen_prefixes: BTreeSet<u64>,
    energy_mj: f64,
    prefix_queries: f64,
    prefix_hits: f64,
    prompt_tokens: f64,
    generated_tokens: f64,
    finished: f64,
}

/// A request that runs or waits.
struct Active {
    start_ms: f64,
    end_ms: f64,
    prompt_tokens: u32,
    completion_tokens: u32,
}

impl Fleet {
    /// Engines so many that each model alone could serve the peak.
    pub(super) fn new(models: &[SimModel], peak_requests_per_s: f64, mean_completion_tokens: f64) -> Self {
        let engines_of = |model: &SimModel| {
            let seconds = (model.ttft_ms + model.tpot_ms * mean_completion_tokens * model.verbosity) / 1000.0;
            let wanted = peak_requests_per_s * seconds / (SLOTS as f64 * PLANNED_LOAD);
            let engine = |index| Engine::new(format!("{}-{index}", model.info.name));
            (0..wanted.ceil().max(1.0) as usize).map(engine).collect()
        };
        Self { engines: models.iter().map(engines_of).collect() }
    }

    pub(super) fn instance(&self, model: usize, engine: usize) -> &str {
        &self.engines[model][engine].name
    }

    /// The engine for a session: its own, by hash, unless that one is full; then the emptiest.
    pub(super) fn engine_for(&mut self, model: usize, session_hash: u64, now_ms: f64) -> usize {
        let engines = &mut self.engines[model];
        for engine in engines.iter_mut() {
            engine.forget_finished(now_ms);
        }
        let home = (session_hash % engines.len() as u64) as usize;
        if engines[home].active.len() < SLOTS {
            return home;
        }
        let emptiest = engines.iter().enumerate().min_by_key(|(index, engine)| (engine.active.len(), *index));
        emptiest.map_or(home, |(index, _)| index)
    }

    /// Prompt tokens that the engine need not compute: `held` of this session's last prompt, else the system prompt
    /// if any request brought it before; in whole blocks, and never the whole prompt.
    pub(super) fn cached_tokens(
        &mut self,
        (model, engine): (usize, usize),
        prompt_tokens: u32,
        held: Option<u32>,
        (system_prompt, system_tokens): (u64, u32),
    ) -> u32 {
        let engine = &mut self.engines[model][engine];
        let known = !engine.seen_prefixes.insert(system_prompt);
        let reusable = held.unwrap_or(if known { system_tokens } else { 0 });
        reusable.min(prompt_tokens.saturating_sub(1)) / BLOCK_TOKENS * BLOCK_TOKENS
    }

    /// Serves a request that arrives now.
    pub(super) fn serve(
        &mut self,
        (model, engine): (usize, usize),
        speed: &SimModel,
        now_ms: f64,
        (prompt_tokens, cached_tokens, completion_tokens): (u32, u32, u32),
        rng: &mut ChaCha8Rng,
    ) -> Served {
        let engine = &mut self.engines[model][engine];
        engine.forget_finished(now_ms);
        let start_ms = engine.next_free_ms(now_ms);
        let load = (engine.active.len() as f64 / SLOTS as f64).min(1.0);
        let queue_ms = start_ms - now_ms;
        let computed = f64::from(prompt_tokens - cached_tokens);
        let prefill_ms = speed.ttft_ms + computed / speed.prefill_tokens_per_s * 1000.0;
        let ttft_ms = queue_ms + prefill_ms * (0.8 + 0.6 * load) * log_normal(rng, (1.0, 0.10));
        let tpot_ms = speed.tpot_ms * (0.7 + 0.6 * load) * log_normal(rng, (1.0, 0.08));
        let end_to_end_ms = ttft_ms + tpot_ms * f64::from(completion_tokens.saturating_sub(1));
        engine.prefix_queries += f64::from(prompt_tokens);
        engine.prefix_hits += f64::from(cached_tokens);
        engine.active.push(Active { start_ms, end_ms: now_ms + end_to_end_ms, prompt_tokens, completion_tokens });
        Served { queue_ms, ttft_ms, tpot_ms, end_to_end_ms }
    }

    /// One sample per GPU. Engine-wide values come with the first GPU of an engine, so that sums count them once.
    pub(super) fn sample(&mut self, models: &[SimModel], now_ms: i64, interval_ms: i64) -> Vec<GpuTelemetry> {
        let mut samples = Vec::new();
        for (model, engines) in models.iter().zip(&mut self.engines) {
            for engine in engines {
                let of_engine = engine.sample(model, now_ms, interval_ms);
                for gpu in 1..model.gpus {
                    samples.push(GpuTelemetry {
                        gpu: Some(format!("{}/{gpu}", engine.name)),
                        vllm_num_requests_running: None,
                        vllm_num_requests_waiting: None,
                        vllm_kv_cache_usage_perc: None,
                        vllm_prefix_cache_queries_total: None,
                        vllm_prefix_cache_hits_total: None,
                        vllm_prompt_tokens_total: None,
                        vllm_generation_tokens_total: None,
                        vllm_request_success_total: None,
                        ..of_engine.clone()
                    });
                }
                samples.push(of_engine);
            }
        }
        samples
    }
}

impl Engine {
    fn new(name: String) -> Self {
        Self {
            name,
            active: Vec::new(),
            seen_prefixes: BTreeSet::new(),
            energy_mj: 0.0,
            prefix_queries: 0.0,
            prefix_hits: 0.0,
            prompt_tokens: 0.0,
            generated_tokens: 0.0,
            finished: 0.0,
        }
    }

    fn forget_finished(&mut self, now_ms: f64) {
        let mut still_active = Vec::with_capacity(self.active.len());
        for request in self.active.drain(..) {
            if request.end_ms > now_ms {
                still_active.push(request);
            } else {
                self.finished += 1.0;
                self.prompt_tokens += f64::from(request.prompt_tokens);
                self.generated_tokens += f64::from(request.completion_tokens);
            }
        }
        self.active = still_active;
    }

    /// When a slot is free for one more: at once, or once enough of those before it have ended.
    fn next_free_ms(&self, now_ms: f64) -> f64 {
        let Some(ahead) = self.active.len().checked_sub(SLOTS) else { return now_ms };
        let mut ends: Vec<f64> = self.active.iter().map(|request| request.end_ms).collect();
        ends.sort_by(f64::total_cmp);
        ends[ahead]
    }

    fn sample(&mut self, model: &SimModel, now_ms: i64, interval_ms: i64) -> GpuTelemetry {
        let now = now_ms as f64;
        self.forget_finished(now);
        let running: Vec<&Active> = self.active.iter().filter(|request| request.start_ms <= now).collect();
        let waiting = self.active.len() - running.len();
        let held = |request: &&Active| f64::from(request.prompt_tokens + request.completion_tokens);
        let kv_use = (running.iter().map(held).sum::<f64>() / (SLOTS as f64 * KV_TOKENS_PER_SLOT)).min(1.0);
        let load = running.len() as f64 / SLOTS as f64;
        // A GPU looks busy long before its batch is full.
        let busy = 1.0 - (-4.0 * load).exp();
        let power_w = POWER_W.0 + (POWER_W.1 - POWER_W.0) * busy;
        self.energy_mj += power_w * interval_ms as f64;
        let memory_used = MEMORY_MIB * 0.9;
        GpuTelemetry {
            event_ms: EventTimeMs(now_ms),
            pool: Some(model.pool.to_owned()),
            instance: Some(self.name.clone()),
            gpu: Some(format!("{}/0", self.name)),
            model: Some(model.info.name.clone()),
            dcgm_fi_dev_gpu_util: Some((100.0 * busy).round()),
            dcgm_fi_dev_fb_used: Some(memory_used.round()),
            dcgm_fi_dev_fb_free: Some((MEMORY_MIB - memory_used).round()),
            dcgm_fi_dev_power_usage: Some(power_w),
            dcgm_fi_dev_total_energy_consumption: Some(self.energy_mj.round()),
            dcgm_fi_dev_gpu_temp: Some((32.0 + 40.0 * busy).round()),
            dcgm_fi_prof_gr_engine_active: Some(busy),
            vllm_num_requests_running: Some(running.len() as f64),
            vllm_num_requests_waiting: Some(waiting as f64),
            vllm_kv_cache_usage_perc: Some(kv_use),
            vllm_prefix_cache_queries_total: Some(self.prefix_queries),
            vllm_prefix_cache_hits_total: Some(self.prefix_hits),
            vllm_prompt_tokens_total: Some(self.prompt_tokens),
            vllm_generation_tokens_total: Some(self.generated_tokens),
            vllm_request_success_total: Some(self.finished),
            ..GpuTelemetry::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::simulate::{Gain, World};

    #[test]
    fn what_does_not_fit_the_batch_waits_for_the_first_to_end() {
        let gain = Gain::new();
        let model = &gain.models()[0];
        let mut fleet = Fleet::new(std::slice::from_ref(model), 1.0, 100.0);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut serve = || {
            let served = fleet.serve((0, 0), model, 1_000.0, (500, 0, 100), &mut rng);
            (served.queue_ms, served.end_to_end_ms)
        };
        let batch: Vec<(f64, f64)> = (0..SLOTS).map(|_| serve()).collect();
        assert!(batch.iter().all(|(queue_ms, _)| *queue_ms == 0.0));
        let mut ends: Vec<f64> = batch.iter().map(|(_, end_to_end_ms)| *end_to_end_ms).collect();
        ends.sort_by(f64::total_cmp);
        for earliest in &ends[..3] {
            assert!((serve().0 - earliest).abs() < 1e-9, "waiting requests start in order, as slots become free");
        }
        let sample = fleet.sample(std::slice::from_ref(model), 1_000, 10_000).remove(0);
        assert_eq!(
            (sample.vllm_num_requests_running, sample.vllm_num_requests_waiting),
            (Some(SLOTS as f64), Some(3.0))
        );
    }
}
