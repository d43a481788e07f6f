//! The fleet that the observed mix needs, before and after the policy: one pool per model, at one stated rate.
//!
//! The demo's own rate fits a handful of GPUs, where one instance more or less hides everything. So the mix that was
//! observed (which model serves which lengths, and how often) is sized at [`FLEET_REQUESTS_PER_S`] with Poisson
//! arrivals, and the summary says so.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_features::WorkloadFilter;
use weir_fleet::{Arrivals, FleetError, GpuProfile, Interval, Options, Slo, Workload};

use crate::capacity as observed_capacity;
use crate::error::Result;

/// Rate that both fleets are sized for, requests a second.
pub const FLEET_REQUESTS_PER_S: f64 = 500.0;

/// The demo's models are made up; each is sized as a real one of its class.
const STANDS_FOR: [(&str, &str); 5] = [
    ("sprint-3b", "llama-3.1-8b-bf16-1xl40s"),
    ("mosaic-9b", "llama-3.1-8b-bf16-1xh100"),
    ("ledger-30b", "qwen3-32b-bf16-2xh100"),
    ("forge-32b", "qwen3-32b-bf16-2xh100"),
    ("summit-200b", "llama-3.1-70b-bf16-8xh100"),
];

/// A fleet, model by model.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Fleet {
    /// GPUs of all models that can be served.
    pub gpus: u32,
    /// Interval on `gpus`, from the distributions of the models as if they were independent.
    #[serde(serialize_with = "ends")]
    pub interval: Option<Interval>,
    pub usd_per_hour: f64,
    pub by_model: BTreeMap<String, u32>,
    /// Models of which no fleet keeps the objectives, and why: their GPUs are missing above.
    pub infeasible: BTreeMap<String, String>,
}

/// The interval without its hundreds of bins, in which the rest of the summary would be lost.
fn ends<S: serde::Serializer>(interval: &Option<Interval>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    let ends = interval.as_ref().map(|interval| {
        serde_json::json!({
            "low_gpus": interval.low_gpus, "high_gpus": interval.high_gpus, "confidence": interval.confidence,
        })
    });
    ends.serialize(serializer)
}

/// Sizes the fleet for the mix of `[from_ms, to_ms)`; none when nothing was observed in it.
pub async fn fleet(session: &weir_sql::Context, from_ms: i64, to_ms: i64, seed: u64) -> Result<Option<Fleet>> {
    let slo = Slo { ttft_p99_ms: Some(3_000.0), tpot_p95_ms: Some(100.0), e2e_p95_ms: None };
    let mut workloads: Vec<(&str, GpuProfile, Workload, f64)> = Vec::new();
    for (model, profile) in STANDS_FOR {
        let filter = WorkloadFilter { model: Some(model.into()), ..WorkloadFilter::default() };
        let Some(workload) = observed_capacity::observed_if_any(session, from_ms, to_ms, &filter).await? else {
            continue;
        };
        let Arrivals::PerSecondCounts(counts) = &workload.arrivals else { continue };
        let requests: f64 = counts.iter().map(|count| f64::from(*count)).sum();
        let profile = GpuProfile::named(profile).map_err(crate::error::Failure::ours)?;
        workloads.push((model, profile, workload, requests));
    }
    let total: f64 = workloads.iter().map(|(.., requests)| requests).sum();
    if total <= 0.0 {
        return Ok(None);
    }
    let options = Options { seed, ..Options::default() };
    let mut fleet = Fleet::default();
    for (model, profile, mut workload, requests) in workloads {
        if requests <= 0.0 {
            continue;
        }
        workload.arrivals = Arrivals::PoissonPerS(FLEET_REQUESTS_PER_S * requests / total);
        match weir_fleet::recommend(&workload, &profile, &slo, &options) {
            Ok(recommendation) => {
                fleet.gpus += recommendation.gpus;
                fleet.usd_per_hour += recommendation.usd_per_hour;
                fleet.by_model.insert(model.to_owned(), recommendation.gpus);
                fleet.interval = match (fleet.interval, recommendation.interval) {
                    (Some(sum), Some(interval)) => Some(sum.plus(&interval)),
                    (sum, interval) => sum.or(interval),
                };
            }
            // One model too slow for the objectives does not make the others' GPUs unknown.
            Err(FleetError::Infeasible(why)) => {
                fleet.infeasible.insert(model.to_owned(), why);
            }
            Err(other) => return Err(crate::error::Failure::ours(other)),
        }
    }
    Ok(Some(fleet))
}
