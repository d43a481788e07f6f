//! A short and a long pool behind a boundary.
//!
//! The objectives hold for all requests together, as they do for one pool: a split that moves the same one percent of
//! slow requests into a pool of their own has not made anything worse.

use serde::Serialize;

use crate::recommend::Options;
use crate::routing::split;
use crate::sizing::{Attained, Load, PoolPlan, Slo, fewest, with_spares};
use crate::workload::total_weight;
use crate::{Cell, GpuProfile, PoolModel, RatePlan};

/// Two pools and what they have in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TwoPoolPlan {
    /// Requests with a predicted total of at most this many tokens go to the short pool.
    pub boundary_tokens: u32,
    /// Share of requests sent to the short pool.
    pub short_share: f64,
    /// Share of requests in the pool that their true length does not belong to.
    pub misrouted_share: f64,
    /// GPUs of both pools.
    pub gpus: u32,
    /// Price of both pools, USD an hour.
    pub usd_per_hour: f64,
    /// Completion tokens a second for one watt over both pools.
    pub tok_per_watt: f64,
    /// The short pool.
    pub short: PoolPlan,
    /// The long pool.
    pub long: PoolPlan,
}

/// Two pools whose sizes are known, before they are described.
pub(crate) struct SizedPair<'p> {
    boundary_tokens: u32,
    short_share: f64,
    misrouted_share: f64,
    short: PoolModel<'p>,
    long: PoolModel<'p>,
    sizes: (u32, u32),
    /// GPUs of both pools, spares included.
    pub gpus: u32,
}

/// Sizes both pools at one boundary. `Ok(None)`: a side is empty; `Err`: why no size keeps the objectives.
pub(crate) fn size_pair<'p>(
    profile: &'p GpuProfile,
    cells: &[Cell],
    rate: &RatePlan,
    slo: &Slo,
    options: &Options,
    boundary_tokens: u32,
) -> Result<Option<SizedPair<'p>>, String> {
    let split = split(cells, f64::from(boundary_tokens), options.knowledge);
    if split.short.is_empty() || split.long.is_empty() {
        return Ok(None);
    }
    // An engine that reserves sets aside the longest request that the router may send it: the boundary, or what a router
    // that errs sends beyond it.
    let longest_short = split.short.iter().map(Cell::total_tokens).fold(f64::from(boundary_tokens), f64::max);
    let model = |cells: &[Cell], reserved_tokens: f64| {
        PoolModel::reserving(profile, cells, options.kv_quantile, reserved_tokens)
    };
    let (Some(short), Some(long)) =
        (model(&split.short, longest_short), model(&split.long, profile.max_model_tokens.value))
    else {
        return Ok(None);
    };
    let short_share = total_weight(&split.short) / total_weight(cells);
    let pair = Pair {
        short: Load::new(&short, rate, short_share),
        long: Load::new(&long, rate, 1.0 - short_share),
        short_share,
        slo,
        options,
    };
    let sizes = pair.size()?;
    let gpus = (with_spares(sizes.0, options) + with_spares(sizes.1, options)) * profile.gpus();
    let misrouted_share = split.misrouted_share;
    Ok(Some(SizedPair { boundary_tokens, short_share, misrouted_share, short, long, sizes, gpus }))
}

impl SizedPair<'_> {
    /// How both pools run at the planned rate.
    pub(crate) fn plan(&self, rate: &RatePlan, slo: &Slo, options: &Options) -> Option<TwoPoolPlan> {
        let short = Load::new(&self.short, rate, self.short_share);
        let long = Load::new(&self.long, rate, 1.0 - self.short_share);
        let fewer = |instances: u32| instances.saturating_sub(1).max(1);
        let attained = |short_instances: u32, long_instances: u32| {
            short.attained(short_instances, slo).mixed(long.attained(long_instances, slo), self.short_share)
        };
        let (short_instances, long_instances) = self.sizes;
        let short = short.plan(short_instances, options, attained(fewer(short_instances), long_instances))?;
        let long = long.plan(long_instances, options, attained(short_instances, fewer(long_instances)))?;
        let output_per_s = short.tok_per_watt * short.watts + long.tok_per_watt * long.watts;
        Some(TwoPoolPlan {
            boundary_tokens: self.boundary_tokens,
            short_share: self.short_share,
            misrouted_share: self.misrouted_share,
            gpus: self.gpus,
            usd_per_hour: short.usd_per_hour + long.usd_per_hour,
            tok_per_watt: output_per_s / (short.watts + long.watts),
            short,
            long,
        })
    }
}

struct Pair<'a, 'm, 'p> {
    short: Load<'m, 'p>,
    long: Load<'m, 'p>,
    short_share: f64,
    slo: &'a Slo,
    options: &'a Options,
}

impl Pair<'_, '_, '_> {
    /// From the utilisation caps upward: instances go where they close more of the deficit, and to both pools while a step
    /// in neither closes any (far from a tight objective nobody is within it). Then those that turn out not to be needed are
    /// taken back, so that no single instance can be spared.
    fn size(&self) -> Result<(u32, u32), String> {
        let idle = (self.short.attained_idle(self.slo), self.long.attained_idle(self.slo));
        if !self.mixed(idle).kept() {
            return Err(self.why_not());
        }
        let least = (self.short.instances_min(self.options), self.long.instances_min(self.options));
        if least.0.saturating_add(least.1) > self.options.instances_max {
            return Err(format!("the load alone needs {} + {} instances", least.0, least.1));
        }
        let mut sizes = least;
        let mut attained = (self.short.attained(sizes.0, self.slo), self.long.attained(sizes.1, self.slo));
        while !self.mixed(attained).kept() {
            if sizes.0 + sizes.1 >= self.options.instances_max {
                return Err(format!(
                    "no two pools of up to {} instances keep the objectives",
                    self.options.instances_max
                ));
            }
            let larger = (sizes.0 + (sizes.0 / 8).max(1), sizes.1 + (sizes.1 / 8).max(1));
            let larger_attained = (self.short.attained(larger.0, self.slo), self.long.attained(larger.1, self.slo));
            let deficit = self.mixed(attained).deficit();
            let gain = |tried: Attained, instances: u32| (deficit - tried.deficit()) / f64::from(instances);
            let gain_short = gain(self.mixed((larger_attained.0, attained.1)), larger.0 - sizes.0);
            let gain_long = gain(self.mixed((attained.0, larger_attained.1)), larger.1 - sizes.1);
            if gain_short.max(gain_long) < 1e-9 {
                (sizes, attained) = (larger, larger_attained);
            } else if gain_short >= gain_long {
                (sizes.0, attained.0) = (larger.0, larger_attained.0);
            } else {
                (sizes.1, attained.1) = (larger.1, larger_attained.1);
            }
        }
        Ok(self.trim(least, sizes))
    }

    fn trim(&self, least: (u32, u32), sizes: (u32, u32)) -> (u32, u32) {
        let of_long = self.long.attained(sizes.1, self.slo);
        let kept_with_short = |short| self.mixed((self.short.attained(short, self.slo), of_long)).kept();
        let short = fewest(least.0, sizes.0, kept_with_short);
        let of_short = self.short.attained(short, self.slo);
        let kept_with_long = |long| self.mixed((of_short, self.long.attained(long, self.slo))).kept();
        (short, fewest(least.1, sizes.1, kept_with_long))
    }

    fn mixed(&self, attained: (Attained, Attained)) -> Attained {
        attained.0.mixed(attained.1, self.short_share)
    }

    fn why_not(&self) -> String {
        let of =
            |name: &str, load: &Load<'_, '_>| load.why_never(self.slo).map(|why| format!("in the {name} pool {why}"));
        of("long", &self.long)
            .or_else(|| of("short", &self.short))
            .unwrap_or_else(|| "idle pools miss the objectives together".into())
    }
}
