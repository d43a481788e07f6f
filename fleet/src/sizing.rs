//! The smallest pool that keeps the objectives.

use serde::{Deserialize, Serialize};

use crate::pool::{Operating, PoolModel, Saturation};
use crate::recommend::Options;
use crate::{FleetError, RatePlan};

/// What users were promised. At least one must be given.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Slo {
    /// 99 % of requests get their first token within this, ms.
    pub ttft_p99_ms: Option<f64>,
    /// 95 % of requests have a mean time per output token within this, ms.
    pub tpot_p95_ms: Option<f64>,
    /// 95 % of requests end within this, ms.
    pub e2e_p95_ms: Option<f64>,
}

pub(crate) const TTFT_SHARE: f64 = 0.99;
pub(crate) const TPOT_SHARE: f64 = 0.95;
pub(crate) const E2E_SHARE: f64 = 0.95;

/// Load of an instance with hardly a request, as a share of its capacity.
const IDLE_SHARE: f64 = 1e-6;

impl Slo {
    pub(crate) fn check(&self) -> Result<(), FleetError> {
        let given: Vec<f64> = [self.ttft_p99_ms, self.tpot_p95_ms, self.e2e_p95_ms].into_iter().flatten().collect();
        if given.is_empty() {
            return Err(FleetError::Options("give at least one objective: TTFT, TPOT or end-to-end time".into()));
        }
        if given.iter().any(|ms| !ms.is_finite() || *ms <= 0.0) {
            return Err(FleetError::Options("objectives are times in ms above zero".into()));
        }
        Ok(())
    }

    /// Share of requests that may miss every objective without breaking one.
    fn may_miss(&self) -> f64 {
        let of = |ms: Option<f64>, share: f64| ms.map_or(1.0, |_| 1.0 - share);
        of(self.ttft_p99_ms, TTFT_SHARE).min(of(self.tpot_p95_ms, TPOT_SHARE)).min(of(self.e2e_p95_ms, E2E_SHARE))
    }
}

/// Shares of all requests within each objective; 1 where no objective is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Attained {
    pub ttft: f64,
    pub tpot: f64,
    pub e2e: f64,
}

impl Attained {
    /// An overloaded pool keeps nothing.
    const NONE: Self = Self { ttft: 0.0, tpot: 0.0, e2e: 0.0 };

    pub(crate) fn of(model: &PoolModel<'_>, operating: &Operating, slo: &Slo) -> Self {
        Self {
            ttft: slo.ttft_p99_ms.map_or(1.0, |ms| model.ttft_within(operating, ms)),
            tpot: slo.tpot_p95_ms.map_or(1.0, |ms| model.tpot_within(operating, ms)),
            e2e: slo.e2e_p95_ms.map_or(1.0, |ms| model.e2e_within(operating, ms)),
        }
    }

    pub(crate) fn mixed(self, other: Self, share_of_self: f64) -> Self {
        let mix = |a: f64, b: f64| share_of_self * a + (1.0 - share_of_self) * b;
        Self { ttft: mix(self.ttft, other.ttft), tpot: mix(self.tpot, other.tpot), e2e: mix(self.e2e, other.e2e) }
    }

    /// How far the shares fall short in total; zero when all objectives are kept.
    pub(crate) fn deficit(self) -> f64 {
        (TTFT_SHARE - self.ttft).max(0.0) + (TPOT_SHARE - self.tpot).max(0.0) + (E2E_SHARE - self.e2e).max(0.0)
    }

    pub(crate) fn kept(self) -> bool {
        self.deficit() <= 0.0
    }

    fn worst(self) -> Binding {
        let margins = [
            (self.ttft - TTFT_SHARE, Binding::Ttft),
            (self.tpot - TPOT_SHARE, Binding::Tpot),
            (self.e2e - E2E_SHARE, Binding::EndToEnd),
        ];
        margins.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).map_or(Binding::Ttft, |(_, binding)| binding)
    }
}

/// Why one instance fewer would not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// Time to first token would miss its objective.
    Ttft,
    /// Time per output token would miss its objective.
    Tpot,
    /// End-to-end time would miss its objective.
    EndToEnd,
    /// Utilisation would pass the cap; capacity is limited by prefill compute.
    PrefillCompute,
    /// Utilisation would pass the cap; capacity is limited by KV memory.
    KvMemory,
    /// Utilisation would pass the cap; capacity is limited by the engine's number of sequences.
    MaxNumSeqs,
    /// There is only one.
    OneInstance,
}

impl Binding {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Ttft => "time to first token",
            Self::Tpot => "time per output token",
            Self::EndToEnd => "end-to-end time",
            Self::PrefillCompute => "utilisation cap (prefill compute)",
            Self::KvMemory => "utilisation cap (KV memory)",
            Self::MaxNumSeqs => "utilisation cap (running sequences)",
            Self::OneInstance => "one instance is the least there is",
        }
    }

    fn of_saturation(saturation: Saturation) -> Self {
        match saturation {
            Saturation::PrefillCompute => Self::PrefillCompute,
            Saturation::KvMemory => Self::KvMemory,
            Saturation::MaxNumSeqs => Self::MaxNumSeqs,
        }
    }
}

/// Quantiles of time to first token, ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TtftMs {
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// A pool and how it runs at the planned rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolPlan {
    /// Instances that carry the load.
    pub instances: u32,
    /// Instances beside them, so that enough are up as often as asked.
    pub spare_instances: u32,
    /// GPUs of both.
    pub gpus: u32,
    /// Planned rate of the pool, requests a second.
    pub rate_per_s: f64,
    /// Highest sustainable rate of one instance, requests a second.
    pub capacity_per_instance_per_s: f64,
    /// Planned rate as a share of the capacity without spares.
    pub utilisation: f64,
    /// Share of time that the prefill channel is busy.
    pub prefill_utilisation: f64,
    /// Time to first token.
    pub ttft_ms: TtftMs,
    /// Mean time per output token, ms.
    pub tpot_mean_ms: f64,
    /// 95th percentile over requests of the mean time per output token, ms.
    pub tpot_p95_ms: f64,
    /// 95th percentile of end-to-end time, ms.
    pub e2e_p95_ms: f64,
    /// Mean number of sequences in flight in one instance.
    pub batch: f64,
    /// Sequences that one instance runs at once at most.
    pub slots_per_instance: u32,
    /// Mean share of KV memory in use.
    pub kv_use: f64,
    /// Probability that a request waits for a slot.
    pub slot_wait_probability: f64,
    /// Share of requests longer than the engine accepts.
    pub rejected_share: f64,
    /// Power of all GPUs at the mean rate, W.
    pub watts: f64,
    /// Completion tokens a second for one watt at the mean rate.
    pub tok_per_watt: f64,
    /// Price of all GPUs, USD an hour.
    pub usd_per_hour: f64,
    /// Price of a million completion tokens at the mean rate, USD.
    pub usd_per_mtok_output: f64,
    /// Why one instance fewer would not do.
    pub binding: Binding,
}

/// A pool with its share of the arrivals.
#[derive(Clone, Copy)]
pub(crate) struct Load<'m, 'p> {
    pub model: &'m PoolModel<'p>,
    pub planned_per_s: f64,
    pub mean_per_s: f64,
    pub dispersion: f64,
}

impl<'m, 'p> Load<'m, 'p> {
    /// `share` of the stream goes to this pool. Thinning brings the dispersion towards Poisson: `1 + share (I - 1)`.
    pub(crate) fn new(model: &'m PoolModel<'p>, rate: &RatePlan, share: f64) -> Self {
        Self {
            model,
            planned_per_s: rate.planned_per_s * share * (1.0 - model.rejected_share),
            mean_per_s: rate.mean_per_s * share * (1.0 - model.rejected_share),
            dispersion: 1.0 + share * (rate.dispersion_within - 1.0),
        }
    }

    /// Fewest instances under the utilisation cap.
    pub(crate) fn instances_min(&self, options: &Options) -> u32 {
        let needed = self.planned_per_s / (options.max_utilisation * self.model.capacity_per_s);
        (needed - 1e-9).ceil().clamp(1.0, f64::from(u32::MAX)) as u32
    }

    pub(crate) fn attained(&self, instances: u32, slo: &Slo) -> Attained {
        match self.model.operate(instances, self.planned_per_s, self.dispersion) {
            Ok(operating) => Attained::of(self.model, &operating, slo),
            Err(_) => Attained::NONE,
        }
    }

    /// Fewest instances that keep the objectives; a sentence if none do.
    pub(crate) fn size(&self, slo: &Slo, options: &Options) -> Result<u32, String> {
        if let Some(why) = self.why_never(slo) {
            return Err(why);
        }
        let least = self.instances_min(options);
        if least > options.instances_max {
            return Err(format!(
                "the load alone needs {least} instances, above the limit of {}",
                options.instances_max
            ));
        }
        let mut high = least;
        while !self.attained(high, slo).kept() {
            if high >= options.instances_max {
                return Err(format!("no pool of up to {} instances keeps the objectives", options.instances_max));
            }
            high = (high + (high / 4).max(1)).min(options.instances_max);
        }
        Ok(fewest(least, high, |instances| self.attained(instances, slo).kept()))
    }

    /// The shares that any number of instances approaches: those of one with hardly a request.
    pub(crate) fn attained_idle(&self, slo: &Slo) -> Attained {
        let idle = self.model.operate(1, IDLE_SHARE * self.model.capacity_per_s, 1.0);
        idle.map_or(Attained::NONE, |idle| Attained::of(self.model, &idle, slo))
    }

    /// An objective that an idle instance already misses can't be bought with more of them.
    pub(crate) fn why_never(&self, slo: &Slo) -> Option<String> {
        let model = self.model;
        // A request that is never served misses every objective.
        if model.rejected_share > slo.may_miss() {
            return Some(format!(
                "{:.1} % of requests are longer than the engine accepts ({:.0} tokens)",
                100.0 * model.rejected_share,
                model.profile.longest_request_tokens()
            ));
        }
        let nearly_idle = model.operate(1, IDLE_SHARE * model.capacity_per_s, 1.0).ok()?;
        let idle = Attained::of(model, &nearly_idle, slo);
        if idle.kept() {
            return None;
        }
        let slo_ms = |ms: Option<f64>| ms.unwrap_or_default();
        Some(match idle.worst() {
            Binding::Ttft => format!(
                "prefill alone takes {:.0} ms for 1 % of the requests on an idle instance, above the TTFT objective of {:.0} ms",
                model.quantile_ms(TTFT_SHARE, |ms| model.ttft_within(&nearly_idle, ms)),
                slo_ms(slo.ttft_p99_ms)
            ),
            Binding::Tpot => format!(
                "5 % of the requests take {:.1} ms a token on an idle instance, above the TPOT objective of {:.1} ms",
                model.quantile_ms(TPOT_SHARE, |ms| model.tpot_within(&nearly_idle, ms)),
                slo_ms(slo.tpot_p95_ms)
            ),
            _ => format!(
                "5 % of the requests take {:.0} ms on an idle instance, above the end-to-end objective of {:.0} ms",
                model.quantile_ms(E2E_SHARE, |ms| model.e2e_within(&nearly_idle, ms)),
                slo_ms(slo.e2e_p95_ms)
            ),
        })
    }

    fn binding(&self, instances: u32, options: &Options, without_one: Attained) -> Binding {
        if instances == 1 {
            Binding::OneInstance
        } else if instances == self.instances_min(options) {
            Binding::of_saturation(self.model.saturation)
        } else {
            without_one.worst()
        }
    }

    /// Describes a pool of this size. `without_one` are the shares of the whole fleet with one instance fewer here.
    pub(crate) fn plan(&self, instances: u32, options: &Options, without_one: Attained) -> Option<PoolPlan> {
        let model = self.model;
        let profile = model.profile;
        let operating = model.operate(instances, self.planned_per_s, self.dispersion).ok()?;
        let mean = model.operate(instances, self.mean_per_s, self.dispersion).ok()?;
        let ttft = |quantile: f64| model.quantile_ms(quantile, |ms| model.ttft_within(&operating, ms));
        let spare_instances = spares(instances, options.availability, options.availability_target);
        let gpus = (instances + spare_instances) * profile.gpus();
        let watts = f64::from(gpus) * profile.watts_per_gpu(mean.in_flight);
        let output_per_s = self.mean_per_s * (model.decode_steps_mean + 1.0);
        let usd_per_hour = f64::from(gpus) * profile.usd_per_gpu_hour.value;
        Some(PoolPlan {
            instances,
            spare_instances,
            gpus,
            rate_per_s: self.planned_per_s,
            capacity_per_instance_per_s: model.capacity_per_s,
            utilisation: operating.utilisation,
            prefill_utilisation: operating.prefill_utilisation,
            ttft_ms: TtftMs { p50: ttft(0.5), p95: ttft(0.95), p99: ttft(0.99) },
            tpot_mean_ms: model.tpot_mean_ms(&operating),
            tpot_p95_ms: model.quantile_ms(0.95, |ms| model.tpot_within(&operating, ms)),
            e2e_p95_ms: model.quantile_ms(0.95, |ms| model.e2e_within(&operating, ms)),
            batch: operating.in_flight,
            slots_per_instance: model.slots as u32,
            kv_use: model.kv_share(&operating),
            slot_wait_probability: operating.slot_wait.probability,
            rejected_share: model.rejected_share,
            watts,
            tok_per_watt: output_per_s / watts,
            usd_per_hour,
            usd_per_mtok_output: usd_per_hour / 3600.0 / output_per_s * 1e6,
            binding: self.binding(instances, options, without_one),
        })
    }
}

/// Smallest number in `low..=high` that is enough, where `high` is and more never are too few.
pub(crate) fn fewest(mut low: u32, mut high: u32, enough: impl Fn(u32) -> bool) -> u32 {
    while low < high {
        let middle = low + (high - low) / 2;
        if enough(middle) { high = middle } else { low = middle + 1 }
    }
    high
}

/// Instances that carry the load and the spares beside them.
pub(crate) fn with_spares(instances: u32, options: &Options) -> u32 {
    instances.saturating_add(spares(instances, options.availability, options.availability_target))
}

/// Fewest spares `s` with `P(Binomial(needed + s, availability) >= needed) >= target`.
///
/// Options with an availability under a half or a target above 0.999 999 999 are refused; within those bounds the search
/// ends before its limit.
fn spares(needed: u32, availability: f64, target: f64) -> u32 {
    if availability >= 1.0 {
        return 0;
    }
    let failure = (1.0 - availability) / availability;
    let limit = needed.saturating_mul(4).max(128);
    (0..limit)
        .find(|spare| {
            let n = f64::from(needed + spare);
            // P(at most `spare` of n are down), terms from the one where none is.
            let mut log_term = n * availability.ln();
            let mut up = 0.0;
            for down in 0..=*spare {
                up += log_term.exp();
                let down = f64::from(down);
                log_term += ((n - down) / (down + 1.0) * failure).ln();
            }
            up >= target
        })
        .unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::spares;

    /// With availability 0.9871 (Meta RSC-1, 48 h to repair), 25 instances have 24 up 96 % of the time and 26 99.5 %.
    #[test]
    fn spares_come_from_the_binomial_and_not_from_the_mean() {
        // 0.9591 to four digits.
        assert_eq!(spares(24, 0.9871, 0.955), 1);
        assert_eq!(spares(24, 0.9871, 0.99), 2);
        assert_eq!(spares(24, 1.0, 0.999_999), 0);
        assert!(spares(200, 0.95, 0.999) > 10);
    }

    /// The worst that options may ask for. One instance that is up half of the time: `0.5^n <= 1e-9` for n = 30.
    #[test]
    fn the_search_for_spares_ends_before_its_limit() {
        assert_eq!(spares(1, 0.5, 0.999_999_999), 29);
        for needed in [1, 2, 7, 40, 10_000] {
            let found = spares(needed, 0.5, 0.999_999_999);
            assert!(found >= needed && found < 4 * needed.max(32), "{needed}: {found}");
        }
    }
}
