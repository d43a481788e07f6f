//! The question and the answer.

use serde::{Deserialize, Serialize};

use crate::interval::{Bootstrap, Interval};
use crate::routing::{Knowledge, default_boundaries};
use crate::sensitivity::{SensitivityRow, sensitivity};
use crate::sizing::{Attained, Load, PoolPlan, Slo};
use crate::two_pools::{TwoPoolPlan, size_pair};
use crate::workload::weighted_mean;
use crate::{Cell, FleetError, GpuProfile, PoolModel, RatePlan, Workload};

/// How to size, beside the objectives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Seed of the bootstrap; the point answer does not depend on it.
    pub seed: u64,
    /// Bootstrap replicates; 0 for no interval.
    pub bootstrap: u32,
    /// Probability that the interval is made for, 0 to 1.
    pub confidence: f64,
    /// Boundaries to try for two pools, total tokens; empty for powers of two and the values half way between.
    pub boundaries: Vec<u32>,
    /// What the router knows when a request arrives.
    pub knowledge: Knowledge,
    /// Quantile over requests of the rate in whose window they arrive, 0 to 1: the rate to plan for.
    pub rate_quantile: f64,
    /// How often all sequences of a full batch must fit in memory, 0 to 1.
    pub kv_quantile: f64,
    /// Planned rate as a share of capacity, at most: near 1 every queueing model is wrong.
    pub max_utilisation: f64,
    /// Share of time that one instance is up, 0.5 to 1.
    pub availability: f64,
    /// Share of time that enough instances must be up, at most 0.999 999 999.
    pub availability_target: f64,
    /// No pool larger than this is considered.
    pub instances_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            bootstrap: 200,
            confidence: 0.9,
            boundaries: Vec::new(),
            knowledge: Knowledge::default(),
            rate_quantile: 0.99,
            kv_quantile: 0.95,
            max_utilisation: 0.9,
            availability: 1.0,
            availability_target: 0.999,
            instances_max: 10_000,
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), FleetError> {
        let knowledge_share = match self.knowledge {
            Knowledge::PromptAndQuantile(share) | Knowledge::TotalWithErrorShare(share) => share,
        };
        let shares = [
            ("confidence", self.confidence),
            ("rate_quantile", self.rate_quantile),
            ("kv_quantile", self.kv_quantile),
            ("max_utilisation", self.max_utilisation),
            ("availability", self.availability),
            ("availability_target", self.availability_target),
        ];
        for (name, share) in shares {
            // Written so that not-a-number is refused.
            if !(share > 0.0 && (share < 1.0 || (share == 1.0 && name == "availability"))) {
                return Err(FleetError::Options(format!("`{name}` is {share}; it must lie between 0 and 1")));
            }
        }
        if self.availability < 0.5 || self.availability_target > 0.999_999_999 {
            return Err(FleetError::Options(
                "`availability` must be at least 0.5 and `availability_target` at most 0.999999999: no number of spares is \
                 sensible beyond"
                    .into(),
            ));
        }
        if !(0.0..=1.0).contains(&knowledge_share) {
            return Err(FleetError::Options("the router's quantile or error share must lie between 0 and 1".into()));
        }
        if self.instances_max == 0 {
            return Err(FleetError::Options("`instances_max` must be at least 1".into()));
        }
        Ok(())
    }
}

/// A plan, or one sentence why there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sizing {
    /// The smallest pool that keeps the objectives.
    Plan(PoolPlan),
    /// Why no size does.
    Infeasible(String),
}

impl Sizing {
    /// The plan, if there is one.
    pub fn plan(&self) -> Option<&PoolPlan> {
        match self {
            Self::Plan(plan) => Some(plan),
            Self::Infeasible(_) => None,
        }
    }
}

/// How the fleet is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topology {
    /// All requests share one pool.
    OnePool,
    /// A short and a long pool.
    TwoPools {
        /// Largest predicted total of the short pool, tokens.
        boundary_tokens: u32,
    },
}

/// The workload as the model saw it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WorkloadSummary {
    /// Requests behind the length distribution.
    pub requests: f64,
    /// Mean prompt, tokens.
    pub prompt_tokens_mean: f64,
    /// Mean completion, tokens.
    pub completion_tokens_mean: f64,
    /// Completion tokens as a share of all tokens.
    pub output_share: f64,
    /// Cached prompt tokens as a share of prompt tokens.
    pub cached_share: f64,
    /// Arrivals.
    pub rate: RatePlan,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// Name of the GPU profile.
    pub profile: String,
    /// What was promised.
    pub slo: Slo,
    /// The workload as the model saw it.
    pub workload: WorkloadSummary,
    /// One pool for all requests.
    pub one_pool: Sizing,
    /// The cheapest pair of pools, if any pair keeps the objectives.
    pub two_pools: Option<TwoPoolPlan>,
    /// The topology with fewer GPUs; one pool where they tie.
    pub chosen: Topology,
    /// GPUs of the chosen topology.
    pub gpus: u32,
    /// Price of the chosen topology, USD an hour.
    pub usd_per_hour: f64,
    /// Interval on `gpus`; `None` if `Options::bootstrap` is 0.
    pub interval: Option<Interval>,
    /// What `gpus` would be if an input were different.
    pub sensitivity: Vec<SensitivityRow>,
    /// What the answer takes for granted, a sentence each.
    pub assumptions: Vec<String>,
}

/// Sizes a fleet of `profile` instances for `workload` under `slo`.
///
/// # Errors
/// Input that can't be sized, or [`FleetError::Infeasible`] with one sentence when neither topology keeps the
/// objectives. A retry never helps.
pub fn recommend(
    workload: &Workload,
    profile: &GpuProfile,
    slo: &Slo,
    options: &Options,
) -> Result<Recommendation, FleetError> {
    slo.check()?;
    options.check()?;
    let cells = workload.prepared()?;
    let model = model_of(profile, &cells, options)?;
    let rate = rate_of(workload, &model, options)?;
    let one_pool = one_pool(&model, &rate, slo, options);
    let two_pools = best_two_pools(profile, &cells, &rate, slo, options);

    let (chosen, gpus, usd_per_hour) = match (&one_pool, &two_pools) {
        (Sizing::Plan(one), Some(two)) if one.gpus <= two.gpus => (Topology::OnePool, one.gpus, one.usd_per_hour),
        (_, Some(two)) => (Topology::TwoPools { boundary_tokens: two.boundary_tokens }, two.gpus, two.usd_per_hour),
        (Sizing::Plan(one), None) => (Topology::OnePool, one.gpus, one.usd_per_hour),
        (Sizing::Infeasible(why), None) => return Err(FleetError::Infeasible(why.clone())),
    };
    let bootstrap =
        Bootstrap { profile, cells: &cells, arrivals: &workload.arrivals, rate: &rate, slo, options, topology: chosen };
    let interval = (options.bootstrap > 0).then(|| bootstrap.interval());
    Ok(Recommendation {
        profile: profile.name.clone(),
        slo: *slo,
        workload: summary(&cells, &model, rate),
        one_pool,
        two_pools,
        chosen,
        gpus,
        usd_per_hour,
        sensitivity: sensitivity(profile, &cells, &rate, slo, options, chosen),
        assumptions: assumptions(&rate, options, &model, interval.as_ref()),
        interval,
    })
}

/// How one pool of `instances` would run: the plan says so whether or not it keeps the objectives.
///
/// # Errors
/// Input that can't be sized, or [`FleetError::Infeasible`] when the pool is overloaded.
pub fn whatif(
    workload: &Workload,
    profile: &GpuProfile,
    slo: &Slo,
    options: &Options,
    instances: u32,
) -> Result<PoolPlan, FleetError> {
    slo.check()?;
    options.check()?;
    let cells = workload.prepared()?;
    let model = model_of(profile, &cells, options)?;
    let rate = rate_of(workload, &model, options)?;
    let load = Load::new(&model, &rate, 1.0);
    let without_one = load.attained(instances.saturating_sub(1).max(1), slo);
    load.plan(instances.max(1), options, without_one).ok_or_else(|| {
        FleetError::Infeasible(format!(
            "{:.2} requests a second are above what {instances} instances can sustain, {:.2}; {} runs out first",
            rate.planned_per_s,
            f64::from(instances) * model.capacity_per_s,
            model.saturation.words()
        ))
    })
}

fn model_of<'p>(profile: &'p GpuProfile, cells: &[Cell], options: &Options) -> Result<PoolModel<'p>, FleetError> {
    PoolModel::new(profile, cells, options.kv_quantile).ok_or_else(|| {
        FleetError::Infeasible(format!(
            "every request is longer than `{}` accepts ({:.0} tokens)",
            profile.name,
            profile.longest_request_tokens()
        ))
    })
}

fn rate_of(workload: &Workload, model: &PoolModel<'_>, options: &Options) -> Result<RatePlan, FleetError> {
    let window_s = model.residence_s();
    workload.arrivals.check_length(window_s)?;
    Ok(workload.arrivals.plan(window_s, options.rate_quantile))
}

fn one_pool(model: &PoolModel<'_>, rate: &RatePlan, slo: &Slo, options: &Options) -> Sizing {
    let load = Load::new(model, rate, 1.0);
    let sized = load.size(slo, options).and_then(|instances| {
        let without_one = match instances {
            1 => Attained { ttft: 1.0, tpot: 1.0, e2e: 1.0 },
            _ => load.attained(instances - 1, slo),
        };
        load.plan(instances, options, without_one).ok_or_else(|| "the pool has no stable operating point".into())
    });
    match sized {
        Ok(plan) => Sizing::Plan(plan),
        Err(why) => Sizing::Infeasible(why),
    }
}

fn best_two_pools(
    profile: &GpuProfile,
    cells: &[Cell],
    rate: &RatePlan,
    slo: &Slo,
    options: &Options,
) -> Option<TwoPoolPlan> {
    let boundaries = match options.boundaries.as_slice() {
        [] => default_boundaries(cells),
        given => given.to_vec(),
    };
    boundaries
        .into_iter()
        .filter_map(|boundary| size_pair(profile, cells, rate, slo, options, boundary).ok().flatten())
        .min_by_key(|pair| pair.gpus)?
        .plan(rate, slo, options)
}

fn summary(cells: &[Cell], model: &PoolModel<'_>, rate: RatePlan) -> WorkloadSummary {
    let prompt_tokens_mean = weighted_mean(cells, |cell| cell.prompt_tokens);
    WorkloadSummary {
        requests: cells.iter().map(|cell| cell.weight).sum(),
        prompt_tokens_mean,
        completion_tokens_mean: weighted_mean(cells, |cell| cell.completion_tokens),
        output_share: model.output_share(),
        cached_share: weighted_mean(cells, |cell| cell.prompt_tokens * cell.cached_share) / prompt_tokens_mean,
        rate,
    }
}

/// Blocks below which the spread between them is hardly known.
const BLOCKS_FEW: u32 = 10;

fn assumptions(rate: &RatePlan, options: &Options, model: &PoolModel<'_>, interval: Option<&Interval>) -> Vec<String> {
    let mut list = vec![
        "a balancer sends each request to the instance with the fewest requests in it".to_owned(),
        "cached prompt tokens skip prefill but still occupy memory: sharing between concurrent requests is not credited"
            .to_owned(),
        "the engine runs prefill in chunks beside decoding; speculative decoding and separate prefill instances are not \
         modelled"
            .to_owned(),
        "times of an iteration follow the profile's roofline and have not been measured on this fleet".to_owned(),
    ];
    list.push(match rate.windows {
        0 => "arrivals are Poisson at the stated rate: no daily cycle, no bursts".to_owned(),
        1..30 => format!(
            "only {} windows of {:.0} s were observed: the planned rate rests on little data",
            rate.windows, rate.window_s
        ),
        windows => format!(
            "the coming rate is like the observed one: quantile {} over the requests of {windows} windows of {:.0} s",
            options.rate_quantile, rate.window_s
        ),
    });
    if let Some(blocks) = interval.and_then(|interval| interval.blocks).filter(|blocks| *blocks < BLOCKS_FEW) {
        list.push(format!(
            "busy and quiet times follow each other so slowly that the log holds only {blocks} blocks of them: the interval is \
             too narrow"
        ));
    }
    if options.availability >= 1.0 {
        list.push("every instance is always up: no spares are counted".to_owned());
    }
    if model.rejected_share > 0.0 {
        list.push(format!(
            "{:.2} % of requests are longer than the engine accepts and count as missed",
            100.0 * model.rejected_share
        ));
    }
    list
}
