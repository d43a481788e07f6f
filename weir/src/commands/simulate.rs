//! `weir simulate`: simulated traffic, as fast as the destination takes it.

use weir_policy_runtime::Objective;
use weir_traffic::UniformRouter;
use weir_traffic::simulate::{Profile, SimConfig, Simulator, WorldKind};

use super::{configuration, print_json};
use crate::cli::{Common, ProfileName, SimulateArgs, WorldName};
use crate::error::Result;
use crate::produce::{self, Output};

/// Produces until the simulated time is over.
pub async fn run(common: &Common, args: SimulateArgs) -> Result<()> {
    let config = configuration(common)?;
    let simulation = SimConfig {
        seed: args.seed,
        profile: profile(args.profile),
        world: world(args.world),
        requests_per_s: args.rate,
        start_ms: args.start_ms,
        duration_ms: i64::try_from(args.seconds.saturating_mul(1_000)).unwrap_or(i64::MAX),
        objective: Objective { quality: config.objective.quality, usd: config.objective.usd },
        ..SimConfig::default()
    };
    let simulator = Simulator::new(simulation, Box::new(UniformRouter::new(format!("simulate-{}", args.seed))))?;
    let output = Output::open(&args.sink, &produce::TOPICS, args.topics.create_topics).await?;
    let produced = produce::all(output, simulator)?;
    if common.json {
        return print_json(&produced);
    }
    println!("{produced}");
    Ok(())
}

/// The library's profile of that name.
pub fn profile(name: ProfileName) -> Profile {
    match name {
        ProfileName::Chat => Profile::Chat,
        ProfileName::Rag => Profile::Rag,
        ProfileName::Agent => Profile::Agent,
        ProfileName::Mixed => Profile::Mixed,
    }
}

/// The library's world of that name.
pub fn world(name: WorldName) -> WorldKind {
    match name {
        WorldName::Default => WorldKind::Gain,
        WorldName::NoGain => WorldKind::NoGain,
    }
}
