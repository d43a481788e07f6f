//! `weir replay`: a public trace, or a score matrix played under a logging policy, as contract events.

use std::path::Path;

use weir_traffic::matrix::{MatrixConfig, MatrixPart, ScoreMatrix, Split, play};
use weir_traffic::replay::{ReplayConfig, ServeGenSelection, TraceFormat, detect, open};
use weir_traffic::{EpsilonRouter, Router, UniformRouter};

use super::{no_configuration, no_data_folder};
use crate::cli::{Common, LoggingPolicy, MatrixPartName, ReplayArgs};
use crate::error::{Failure, Result};
use crate::produce::{self, Output, Produced};
use crate::progress::Progress;

/// 2026-01-01T00:00:00Z.
const FIXED_DAY_MS: i64 = 1_767_225_600_000;

/// Every format, for the sentence that lists them.
const FORMATS: [TraceFormat; 4] =
    [TraceFormat::AzureLlm, TraceFormat::Mooncake, TraceFormat::ServeGen, TraceFormat::ScoreMatrix];

/// Produces the trace's events, as fast as the destination takes them. Event times are the trace's own where it has any,
/// and those of a fixed day where it counts from zero.
pub async fn run(common: &Common, args: ReplayArgs) -> Result<()> {
    no_configuration(common, "replay")?;
    no_data_folder(common, "replay", "--out or --brokers says where events go")?;
    let format = format(&args)?;
    only_what_counts(&args, format)?;
    spare_the_input(&args)?;
    // The input is opened before the output, so that a bad one leaves no file and no topic behind.
    let produced = match format {
        TraceFormat::ScoreMatrix => matrix(&args, common.json).await?,
        _ => trace(&args, format, common.json).await?,
    };
    produce::report(common, &args.sink, &format!("{}: ", format.name()), &produced)
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

/// An option that this format ignores is refused, so that nobody believes that it counted.
fn only_what_counts(args: &ReplayArgs, format: TraceFormat) -> Result<()> {
    use TraceFormat::{AzureLlm, Mooncake, ScoreMatrix, ServeGen};
    const TRACES: &[TraceFormat] = &[AzureLlm, Mooncake, ServeGen];
    let options: [(&str, bool, &[TraceFormat]); 9] = [
        ("--passes", args.passes.is_some(), &[ScoreMatrix]),
        ("--part", args.part.is_some(), &[ScoreMatrix]),
        ("--logging", args.logging.is_some(), &[ScoreMatrix]),
        ("--speed", args.speed.is_some(), TRACES),
        ("--start-ms", args.start_ms.is_some(), TRACES),
        ("--model", args.model.is_some(), &[ServeGen]),
        ("--keep", args.keep.is_some(), &[ServeGen]),
        ("--from", args.from.is_some(), &[ServeGen]),
        ("--seconds", args.seconds.is_some(), &[ServeGen]),
    ];
    match options.into_iter().find(|(_, given, formats)| *given && !formats.contains(&format)) {
        None => Ok(()),
        Some((option, _, formats)) => {
            let formats: Vec<&str> = formats.iter().map(|format| format.name()).collect();
            let path = args.path.display();
            Err(Failure::user(format!(
                "{option} is for {}, and {path} is {}: leave it out",
                formats.join(", "),
                format.name()
            )))
        }
    }
}

/// The output takes the place of what bears its name, which must not be what is read.
fn spare_the_input(args: &ReplayArgs) -> Result<()> {
    let Some(out) = args.sink.out.as_deref().and_then(|out| out.canonicalize().ok()) else { return Ok(()) };
    let input = args.path.canonicalize().unwrap_or_else(|_| args.path.clone());
    let is_table = out.extension().is_some_and(|extension| extension == "parquet");
    if out == input || (is_table && out.parent() == Some(&input)) {
        return Err(Failure::user(format!("{} is read here: choose another file for --out", out.display())));
    }
    Ok(())
}

async fn trace(args: &ReplayArgs, format: TraceFormat, json: bool) -> Result<Produced> {
    // Some traces count from zero. Their events get a fixed day, so that runs repeat; the others keep their own times.
    let own_times = format == TraceFormat::AzureLlm;
    let start_ms = args.start_ms.or((!own_times).then_some(FIXED_DAY_MS));
    let drawn = ServeGenSelection::default();
    let config = ReplayConfig {
        start_ms,
        limit: args.limit,
        seed: args.seed,
        speed: args.speed.unwrap_or(1.0),
        servegen: ServeGenSelection {
            model: args.model.clone().unwrap_or(drawn.model),
            from_s: args.from.unwrap_or(drawn.from_s),
            seconds: args.seconds.unwrap_or(drawn.seconds),
            keep: args.keep.unwrap_or(drawn.keep),
        },
    };
    let replay = open(&args.path, config).map_err(|error| match &error {
        weir_traffic::TrafficError::Setting { setting: "servegen", value, mend } => {
            Failure::user(format!("there is nothing of {value}: {mend}, with --model, --from and --seconds"))
        }
        _ => error.into(),
    })?;
    let output = Output::open(&args.sink, &["requests"], args.topics.create_topics).await?;
    let progress = Progress::start("replaying", "events", args.limit, json);
    let events = replay.inspect(|_| progress.one_more()).map(|timed| timed.map_err(Failure::from));
    produce::all_or_error(output, events)
}

async fn matrix(args: &ReplayArgs, json: bool) -> Result<Produced> {
    let part = match args.part {
        None | Some(MatrixPartName::Main) => MatrixPart::LlmRouter,
        Some(MatrixPartName::Nq) => MatrixPart::NaturalQuestions,
    };
    let matrix = ScoreMatrix::open(&args.path, part)?;
    let defaults = MatrixConfig::default();
    let config =
        MatrixConfig { seed: args.seed, passes: args.passes.unwrap_or(defaults.passes), ..MatrixConfig::default() };
    let total = 2 * u64::from(config.passes) * matrix.queries.len() as u64;
    let events = play(&matrix, config, router(&matrix, args)?)?;
    let output = Output::open(&args.sink, &["requests", "feedback"], args.topics.create_topics).await?;
    let limit = args.limit.unwrap_or(total);
    let progress = Progress::start("playing", "events", Some(limit.min(total)), json);
    let events = events.take(usize::try_from(limit).unwrap_or(usize::MAX)).inspect(|_| progress.one_more());
    produce::all(output, events)
}

/// The logging policy's router.
fn router(matrix: &ScoreMatrix, args: &ReplayArgs) -> Result<Box<dyn Router>> {
    let salt = format!("replay-{}", args.seed);
    let (share, favourite) = match &args.logging {
        None | Some(LoggingPolicy::Uniform) => return Ok(Box::new(UniformRouter::new(salt))),
        Some(LoggingPolicy::Epsilon { share, favourite }) => (*share, favourite),
    };
    let names: Vec<&str> = matrix.models.iter().map(|model| model.name.as_str()).collect();
    let favourite = match favourite {
        None => names[best_by_mean_score(matrix)],
        Some(favourite) if names.contains(&favourite.as_str()) => favourite,
        Some(favourite) => {
            let path = Path::display(&args.path);
            let names = names.join(", ");
            return Err(Failure::user(format!("{path} has no model {favourite} for --logging; it has {names}")));
        }
    };
    Ok(Box::new(EpsilonRouter::new(favourite, share, salt)))
}

/// The model that somebody who knows the training half alone would favour.
fn best_by_mean_score(matrix: &ScoreMatrix) -> usize {
    let score = |model: usize| -> f64 {
        matrix.queries.iter().filter(|query| query.split == Split::Train).map(|query| query.scores[model]).sum()
    };
    (0..matrix.models.len()).max_by(|left, right| score(*left).total_cmp(&score(*right))).unwrap_or(0)
}
