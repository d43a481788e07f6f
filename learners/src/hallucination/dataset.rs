//! Labelled pairs of context and response, from Parquet files of one common layout.

use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::prelude::SessionContext;

use crate::error::Result;
use crate::parquet_table::register_parquet;

/// One labelled pair.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledPair {
    /// Source corpus.
    pub dataset: String,
    /// What the response was to rest on.
    pub context: String,
    /// The response.
    pub response: String,
    /// People found something in it that the context does not support.
    pub hallucinated: bool,
}

/// What labelled files hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Labelled {
    /// The pairs.
    pub pairs: Vec<LabelledPair>,
    /// Rows that are no pair: without a context, a response, a dataset or a label that is a number.
    pub left_out: usize,
}

impl Labelled {
    /// Takes in what another file holds.
    pub fn append(&mut self, mut other: Self) {
        self.pairs.append(&mut other.pairs);
        self.left_out += other.left_out;
    }
}

impl IntoIterator for Labelled {
    type Item = LabelledPair;
    type IntoIter = std::vec::IntoIter<LabelledPair>;

    fn into_iter(self) -> Self::IntoIter {
        self.pairs.into_iter()
    }
}

const LABELLED_SQL: &str = include_str!("../sql/labelled_pairs.sql");

const COLUMNS: [&str; 5] = ["id", "dataset", "context", "response", "label"];

/// Reads a Parquet file, or a folder of them, with the columns `id`, `dataset`, `context`, `response` and `label` (1 is hallucinated, 0 is
/// not, null is not judged; a share of 0.5 or more counts as 1). Rows without context, response or label are left out.
///
/// # Errors
/// [`crate::LearnError::Unreadable`] when it cannot be read or lacks a column.
pub async fn read_labelled(path: &Path) -> Result<Labelled> {
    let session = SessionContext::new();
    register_parquet(&session, "pairs", path, &COLUMNS).await?;
    let rows = session.table("pairs").await?.count().await?;
    let mut pairs = Vec::new();
    for batch in session.sql(LABELLED_SQL).await?.collect().await? {
        let text = |index: usize| cast(batch.column(index), &DataType::Utf8);
        let (dataset, context, response) = (text(0)?, text(1)?, text(2)?);
        let label = cast(batch.column(3), &DataType::Float64)?;
        for row in (0..batch.num_rows()).filter(|row| label.is_valid(*row)) {
            pairs.push(LabelledPair {
                dataset: dataset.as_string::<i32>().value(row).to_owned(),
                context: context.as_string::<i32>().value(row).to_owned(),
                response: response.as_string::<i32>().value(row).to_owned(),
                hallucinated: label.as_primitive::<Float64Type>().value(row) >= 0.5,
            });
        }
    }
    let left_out = rows - pairs.len();
    Ok(Labelled { pairs, left_out })
}
