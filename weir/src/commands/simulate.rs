//! `weir simulate`: simulated traffic, as fast as the destination takes it.

use weir_traffic::UniformRouter;
use weir_traffic::simulate::{Profile, SimConfig, Simulator, WorldKind};

use super::{configuration, no_data_folder};
use crate::cli::{Common, ProfileName, SimulateArgs, WorldName};
use crate::error::Result;
use crate::outcome;
use crate::produce::{self, Output};
use crate::progress::Progress;

/// Produces until the simulated time is over.
pub async fn run(common: &Common, args: SimulateArgs) -> Result<()> {
    no_data_folder(common, "simulate", "--out or --brokers says where events go")?;
    let config = configuration(common)?;
    let simulation = SimConfig {
        seed: args.seed,
        profile: profile(args.profile),
        world: world(args.world),
        requests_per_s: args.rate,
        start_ms: args.start_ms,
        duration_ms: i64::from(args.seconds) * 1_000,
        objective: outcome::of(&config)?.outcome.objective(),
        ..SimConfig::default()
    };
    let router = Box::new(UniformRouter::new(format!("simulate-{}", args.seed)));
    // Nobody here asks what was really at stake, and a long run must not keep it.
    let simulator = Simulator::new(simulation, router)?.without_truths();
    let output = Output::open(&args.sink, &produce::TOPICS, args.topics.create_topics).await?;
    let progress = Progress::start("simulating", "s of event time", Some(args.seconds.into()), common.json);
    let events = simulator.inspect(|timed| {
        progress.at(u64::try_from((timed.at_ms - args.start_ms) / 1_000).unwrap_or_default());
    });
    let produced = produce::all(output, events)?;
    drop(progress);
    produce::report(common, &args.sink, "", &produced)
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
