//! `weir estimate`: hallucination verdicts for a file of contexts and responses, on the edge or offline.

use std::io::BufRead;

use crate::cli::{Common, EstimateArgs};
use crate::error::{Failure, Result};
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    id: Option<String>,
    context: String,
    response: String,
}

/// Judges every line; prints one JSON object a line, without any text.
pub async fn run(common: &Common, args: EstimateArgs) -> Result<()> {
    super::no_configuration(common, "estimate")?;
    super::no_data_folder(common, "estimate", "it judges the lines of a file")?;
    let estimator = super::run::read_estimator(&args.artifact)?;
    let reader: Box<dyn BufRead> = if args.file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(&args.file)
            .map_err(|error| Failure::user(format!("cannot read {}: {error}", args.file.display())))?;
        Box::new(std::io::BufReader::new(file))
    };
    for (index, line) in reader.lines().enumerate() {
        let number = index + 1;
        let line = line.map_err(|error| Failure::user(format!("{} line {number}: {error}", args.file.display())))?;
        if line.trim().is_empty() {
            continue;
        }
        // The parser's own message could quote the text, so only the place is told.
        let line: Line = serde_json::from_str(&line).map_err(|error| {
            Failure::user(format!(
                "{} line {number}, column {}: not an object with the strings context and response",
                args.file.display(),
                error.column()
            ))
        })?;
        let verdict = estimator.score(&line.context, &line.response);
        println!(
            "{}",
            serde_json::json!({
                "line": number,
                "id": line.id,
                "checked": verdict.is_some(),
                "hallucination_probability": verdict.as_ref().map(|verdict| verdict.probability),
                "hallucinated": verdict.as_ref().map(|verdict| verdict.hallucinated),
                "estimator": estimator.id(),
            })
        );
    }
    Ok(())
}
