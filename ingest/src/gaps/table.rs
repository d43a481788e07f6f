//! The rows of `ingest_gaps`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};

use super::{Intent, Made, RETIRED};
use crate::tables::{INGEST_GAPS, ingest_gaps_spec};
use crate::{IngestError, Result};

/// A row for each gap.
pub(super) fn batch(intent: &Intent, gaps: &[&Made]) -> Result<RecordBatch> {
    let text = |of: &dyn Fn(&Made) -> String| StringArray::from_iter_values(gaps.iter().map(|gap| of(gap)));
    let tables = |gap: &Made| gap.tables.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    // What a topic that is gone held beyond its position, nobody knows.
    let ends: Int64Array = gaps.iter().map(|gap| (gap.moved.to != RETIRED).then_some(gap.moved.to)).collect();
    let reasons: StringArray = gaps.iter().map(|_| intent.decided.reason.as_deref()).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(text(&|_| intent.job.clone())),
        Arc::new(text(&|gap| gap.moved.topic.clone())),
        Arc::new(Int32Array::from_iter_values(gaps.iter().map(|gap| gap.moved.partition))),
        Arc::new(Int64Array::from_iter_values(gaps.iter().map(|gap| gap.moved.from))),
        Arc::new(ends),
        Arc::new(text(&tables)),
        Arc::new(text(&|_| intent.cause.name().to_owned())),
        Arc::new(text(&|_| intent.decided.actor.clone())),
        Arc::new(reasons),
        Arc::new(Int64Array::from_iter_values(gaps.iter().map(|_| intent.at_ms))),
    ];
    RecordBatch::try_new(ingest_gaps_spec().schema, columns)
        .map_err(|error| IngestError::Batch { table: INGEST_GAPS, why: error.to_string() })
}
