//! Mooncake's FAST'25 traces: arrival, tokens, and the ids of the prompt's 512-token prefix blocks.

use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use weir_schemas::{Request, Tokens};

use super::Traced;
use crate::TrafficError;
use crate::parquet_columns::{Batch, batches};

const COLUMNS: [&str; 4] = ["timestamp_ms", "input_length", "output_length", "hash_ids"];

pub(super) fn read(
    path: &Path,
) -> Result<impl Iterator<Item = Result<Traced, TrafficError>> + Send + use<>, TrafficError> {
    // The trace has no name of its own inside; the file's tells conversation and synthetic apart.
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let rows = batches(path, &COLUMNS)?.flat_map(move |batch| match batch.and_then(|batch| requests(&batch, &stem)) {
        Ok(requests) => requests.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    });
    Ok(rows)
}

fn requests(batch: &Batch, stem: &str) -> Result<Vec<Traced>, TrafficError> {
    let (times, blocks) = (batch.int64("timestamp_ms")?, batch.int64_lists("hash_ids")?);
    let (prompts, completions) = (batch.tokens("input_length")?, batch.tokens("output_length")?);
    let request = |row: usize| {
        if times.is_null(row) {
            return Err(batch.impossible(row, "timestamp_ms"));
        }
        let hashes = (!blocks.is_null(row)).then(|| blocks.value(row).as_primitive::<Int64Type>().values().to_vec());
        Ok(Traced {
            at_ns: times.value(row).saturating_mul(1_000_000),
            request: Request {
                request_id: format!("mooncake-{stem}-{:06}", batch.rows_before + row + 1),
                router: Some("mooncake-fast25".to_owned()),
                decision: Some(stem.to_owned()),
                prompt_tokens: Some(Tokens(prompts[row])),
                completion_tokens: Some(Tokens(completions[row])),
                prefix_block_hashes: hashes,
                ..Request::default()
            },
        })
    };
    (0..batch.rows()).map(request).collect()
}
