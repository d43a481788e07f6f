//! Which trace is it? The columns say, not the name.

use std::path::{Path, PathBuf};

use crate::TrafficError;
use crate::parquet_columns::schema;

/// A format that we can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TraceFormat {
    /// Azure LLM inference trace 2023.
    AzureLlm,
    /// Mooncake's FAST'25 traces.
    Mooncake,
    /// ServeGen's per-client statistics.
    ServeGen,
    /// Scores of models on queries; not a trace.
    ScoreMatrix,
}

/// Columns that only this format has together.
const SIGNATURES: [(TraceFormat, &[&str]); 4] = [
    (TraceFormat::AzureLlm, &["ts_unix_ns", "service", "context_tokens", "generated_tokens"]),
    (TraceFormat::Mooncake, &["timestamp_ms", "input_length", "output_length", "hash_ids"]),
    (TraceFormat::ServeGen, &["client_id", "rate_per_s", "pattern", "arg1", "arg2"]),
    (TraceFormat::ScoreMatrix, &["query_id", "model", "score"]),
];

impl TraceFormat {
    /// The name that people use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AzureLlm => "azure-llm",
            Self::Mooncake => "mooncake",
            Self::ServeGen => "servegen",
            Self::ScoreMatrix => "score-matrix",
        }
    }
}

/// The format of a file, or of the files in a folder that have one.
///
/// # Errors
/// When a file cannot be read, no format fits, or the folder holds traces of two formats.
pub fn detect(path: &Path) -> Result<TraceFormat, TrafficError> {
    Ok(traces(path)?.0)
}

/// The format at `path` and the files there that have it, by name. Files of other columns lie beside many traces and
/// are left out; a damaged one is an error, because what it held would be missing from the replay without a word.
pub(super) fn traces(path: &Path) -> Result<(TraceFormat, Vec<PathBuf>), TrafficError> {
    let mut found: Option<(TraceFormat, Vec<PathBuf>)> = None;
    let mut unknown = None;
    for file in all_files(path)? {
        match (of_file(&file), &mut found) {
            (Ok(format), None) => found = Some((format, vec![file])),
            (Ok(format), Some((first, files))) if format == *first => files.push(file),
            (Ok(format), Some((first, _))) => {
                let path = path.to_path_buf();
                return Err(TrafficError::TwoFormats { path, formats: [first.name(), format.name()] });
            }
            (Err(error @ TrafficError::UnknownTrace { .. }), _) => unknown = unknown.or(Some(error)),
            (Err(error), _) => return Err(error),
        }
    }
    found.ok_or_else(|| unknown.unwrap_or(TrafficError::NoFiles { path: path.to_path_buf() }))
}

fn all_files(path: &Path) -> Result<Vec<PathBuf>, TrafficError> {
    let unreadable = |source| TrafficError::Read { path: path.to_path_buf(), source };
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|extension| extension == "parquet") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(TrafficError::NoFiles { path: path.to_path_buf() }) } else { Ok(files) }
}

fn of_file(path: &Path) -> Result<TraceFormat, TrafficError> {
    let schema = schema(path)?;
    let has = |columns: &[&str]| columns.iter().all(|column| schema.field_with_name(column).is_ok());
    let fits = SIGNATURES.iter().find(|(_, columns)| has(columns));
    fits.map(|(format, _)| *format).ok_or_else(|| {
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        TrafficError::UnknownTrace { path: path.to_path_buf(), columns: columns.join(", ") }
    })
}
