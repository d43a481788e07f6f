//! `weir fleet`: how many GPUs the observed workload needs.

use weir_features::WorkloadFilter;
use weir_fleet::retention::study::{Config, study};
use weir_fleet::{Options, Slo};

use super::{configuration, print_json, store_to_read};
use crate::capacity;
use crate::cli::{Common, FleetCommand, RecommendArgs, RetentionArgs};
use crate::error::{Failure, Result};
use crate::retention;
use crate::training::now_ms;

/// Runs the command.
pub async fn run(common: &Common, command: FleetCommand) -> Result<()> {
    match command {
        FleetCommand::Recommend(args) => recommend(common, args).await,
        FleetCommand::Retention(args) => retention(common, args).await,
    }
}

async fn recommend(common: &Common, args: RecommendArgs) -> Result<()> {
    let profile = capacity::profile(&args.gpu)?;
    let config = configuration(common)?;
    let store = store_to_read(&config)?;
    let session = weir_sql::open(&store).await?;
    let filter = WorkloadFilter { model: args.model.clone(), ..WorkloadFilter::default() };
    let (from_ms, to_ms) = capacity::last_hours(&session, args.hours, now_ms()).await?;
    let workload = capacity::observed(&session, from_ms, to_ms, &filter, args.scale).await?;
    let slo = Slo { ttft_p99_ms: Some(args.ttft_ms), tpot_p95_ms: Some(args.tpot_ms), e2e_p95_ms: args.e2e_ms };
    let options = Options { seed: args.seed, availability: args.availability, ..Options::default() };
    let recommendation = capacity::plan(&workload, &profile, &slo, &options)?;
    if common.json {
        return print_json(&recommendation);
    }
    println!("{}", recommendation.markdown());
    Ok(())
}

async fn retention(common: &Common, args: RetentionArgs) -> Result<()> {
    let config = configuration(common)?;
    let store = store_to_read(&config)?;
    let session = weir_sql::open(&store).await?;
    let (from_ms, to_ms) = capacity::last_hours(&session, args.hours, now_ms()).await?;
    let (_, calls) = retention::calls(&session, from_ms, to_ms, args.model.as_deref(), args.pool.as_deref()).await?;
    let tried = Config {
        blocks: usize::try_from(args.blocks).map_err(Failure::user)?,
        pinned_share: args.pinned,
        learn_share: args.learn,
    };
    let study = study(&calls, tried).ok_or_else(|| {
        Failure::user(format!(
            "no session went on in the last {:.0} % of the time: look at more hours, or learn from a smaller share",
            100.0 * (1.0 - args.learn)
        ))
    })?;
    if common.json {
        return print_json(&study);
    }
    println!("{}", study.markdown());
    Ok(())
}
