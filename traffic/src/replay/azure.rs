//! Azure LLM inference trace 2023: arrival, prompt and completion tokens per service.

use std::path::Path;

use arrow::array::Array;
use weir_schemas::{Request, Tokens};

use super::Traced;
use crate::TrafficError;
use crate::parquet_columns::{Batch, batches};

const COLUMNS: [&str; 4] = ["ts_unix_ns", "service", "context_tokens", "generated_tokens"];

pub(super) fn read(
    path: &Path,
) -> Result<impl Iterator<Item = Result<Traced, TrafficError>> + Send + use<>, TrafficError> {
    let rows = batches(path, &COLUMNS)?.flat_map(|batch| match batch.and_then(|batch| requests(&batch)) {
        Ok(requests) => requests.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    });
    Ok(rows)
}

fn requests(batch: &Batch) -> Result<Vec<Traced>, TrafficError> {
    let (times, services) = (batch.int64("ts_unix_ns")?, batch.text("service")?);
    let (prompts, completions) = (batch.tokens("context_tokens")?, batch.tokens("generated_tokens")?);
    let request = |row: usize| {
        if times.is_null(row) || services.is_null(row) {
            return Err(batch.impossible(row, "ts_unix_ns or service"));
        }
        let service = services.value(row);
        Ok(Traced {
            at_ns: times.value(row),
            request: Request {
                request_id: format!("azure-{service}-{:06}", batch.rows_before + row + 1),
                router: Some("azure-llm-2023".to_owned()),
                decision: Some(service.to_owned()),
                prompt_tokens: Some(Tokens(prompts[row])),
                completion_tokens: Some(Tokens(completions[row])),
                ..Request::default()
            },
        })
    };
    (0..batch.rows()).map(request).collect()
}
