//! Rows of public data sets, as JSON objects.

use std::path::Path;

use arrow::json::LineDelimitedWriter;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use serde_json::Value;

/// The rows of a query over files of a folder, each a table of its name.
pub async fn parquet_rows(folder: &Path, tables: &[&str], sql: &str) -> Vec<Value> {
    let ctx = SessionContext::new();
    for table in tables {
        let file = folder.join(format!("{table}.parquet"));
        let file = file.to_str().expect("a plain path");
        ctx.register_parquet(*table, file, ParquetReadOptions::default()).await.expect("the data set opens");
    }
    let batches = ctx.sql(sql).await.expect("plans").collect().await.expect("the data set reads");
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>()).expect("the rows are JSON");
    writer.finish().expect("the rows end");
    let lines = String::from_utf8(writer.into_inner()).expect("text");
    lines.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}
