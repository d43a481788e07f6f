//! `weir replay`: a public trace, or a score matrix played under a uniform logging policy, as contract events.

use weir_traffic::UniformRouter;
use weir_traffic::matrix::{MatrixConfig, MatrixPart, ScoreMatrix, play};
use weir_traffic::replay::{ReplayConfig, TraceFormat, detect, open};

use super::print_json;
use crate::cli::{Common, MatrixPartName, ReplayArgs};
use crate::error::{Failure, Result};
use crate::produce::{self, Output, Produced};

/// 2026-01-01T00:00:00Z.
const FIXED_DAY_MS: i64 = 1_767_225_600_000;

/// Every format, for the sentence that lists them.
const FORMATS: [TraceFormat; 4] =
    [TraceFormat::AzureLlm, TraceFormat::Mooncake, TraceFormat::ServeGen, TraceFormat::ScoreMatrix];

/// Produces the trace's events, as fast as the destination takes them; event times are the trace's own.
pub async fn run(common: &Common, args: ReplayArgs) -> Result<()> {
    let format = format(&args)?;
    // The input is opened before the output, so that a bad one leaves no file and no topic behind.
    let produced = if format == TraceFormat::ScoreMatrix { matrix(&args).await? } else { trace(&args).await? };
    if common.json {
        return print_json(&produced);
    }
    println!("{}: {produced}", format.name());
    Ok(())
}

/// The format that the files show; naming another one, or one that does not exist, is an error.
fn format(args: &ReplayArgs) -> Result<TraceFormat> {
    let known = FORMATS.map(TraceFormat::name).join(", ");
    let named = match &args.format {
        None => None,
        Some(name) => match FORMATS.into_iter().find(|format| format.name() == name) {
            Some(format) => Some(format),
            None => {
                return Err(Failure::user(format!("{name} is no trace format that is known here; known are {known}")));
            }
        },
    };
    let found = detect(&args.path).map_err(|error| match args.path.exists() {
        true => Failure::user(format!("{error}; known traces are Parquet files of {known}")),
        false => error.into(),
    })?;
    match named {
        Some(named) if named != found => Err(Failure::user(format!(
            "{} is {}, not {}: leave --format out, or name another path",
            args.path.display(),
            found.name(),
            named.name()
        ))),
        _ => Ok(found),
    }
}

async fn trace(args: &ReplayArgs) -> Result<Produced> {
    // Some traces count from zero. Their events get a fixed day, so that runs repeat; the others keep their own times.
    let own_times = detect(&args.path)? == TraceFormat::AzureLlm;
    let start_ms = args.start_ms.or((!own_times).then_some(FIXED_DAY_MS));
    let config =
        ReplayConfig { start_ms, limit: args.limit, seed: args.seed, speed: args.speed, ..ReplayConfig::default() };
    let replay = open(&args.path, config)?;
    let output = Output::open(&args.sink, &["requests"], args.topics.create_topics).await?;
    produce::all_or_error(output, replay.map(|timed| timed.map_err(Failure::from)))
}

async fn matrix(args: &ReplayArgs) -> Result<Produced> {
    let part = match args.part {
        MatrixPartName::Main => MatrixPart::LlmRouter,
        MatrixPartName::Nq => MatrixPart::NaturalQuestions,
    };
    let matrix = ScoreMatrix::open(&args.path, part)?;
    let config = MatrixConfig { seed: args.seed, passes: args.passes, ..MatrixConfig::default() };
    let events = play(&matrix, config, Box::new(UniformRouter::new(format!("replay-{}", args.seed))))?;
    let output = Output::open(&args.sink, &["requests", "feedback"], args.topics.create_topics).await?;
    let limit = args.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    produce::all(output, events.take(limit))
}
