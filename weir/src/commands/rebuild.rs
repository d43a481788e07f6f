//! `weir rebuild`: the summaries anew from the raw rows.

use serde_json::json;
use weir_features::SummariserConfig;

use super::{configuration, existing_store, print_json};
use crate::cli::Common;
use crate::error::{Failure, Result};

/// Rebuilds every derived table and says what it holds now.
pub async fn run(common: &Common) -> Result<()> {
    let store = existing_store(&configuration(common)?).await?;
    let rebuilt = weir_features::rebuild(&store, &SummariserConfig::default()).await?;
    let Some(done) = rebuilt else {
        return Err(Failure::user("there are no raw requests to rebuild from: fill the data folder with `weir run`"));
    };
    if common.json {
        return print_json(&json!({
            "raw_version": done.raw_version,
            "partial_rows": done.partial_rows,
            "frozen_rows": done.frozen_rows,
        }));
    }
    println!(
        "summaries rebuilt from version {} of the raw requests: {} rows, {} of them older than every raw row and left as they were",
        done.raw_version, done.partial_rows, done.frozen_rows
    );
    Ok(())
}
