//! Results as text.

use arrow::array::RecordBatch;
use arrow::json::writer::{JsonArray, WriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::arrow::util::pretty::pretty_format_batches_with_options;

use crate::SqlError;

/// How a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// A table with borders, for people.
    #[default]
    Table,
    /// Comma-separated values with a header line (RFC 4180); NULL is an empty field.
    Csv,
    /// One JSON array of objects; NULL is `null`.
    Json,
}

/// Writes the batches of one result, which share a schema.
///
/// # Errors
/// [`SqlError::Unwritable`] when a column's type has no such form.
pub fn render(batches: &[RecordBatch], format: Format) -> Result<String, SqlError> {
    match format {
        Format::Table => {
            let options = FormatOptions::default().with_null("");
            Ok(format!("{}\n", pretty_format_batches_with_options(batches, &options)?))
        }
        Format::Csv => csv(batches),
        Format::Json => json(batches),
    }
}

fn csv(batches: &[RecordBatch]) -> Result<String, SqlError> {
    let mut out = String::new();
    let Some(first) = batches.first() else { return Ok(out) };
    let schema = first.schema();
    push_line(&mut out, schema.fields().iter().map(|field| field.name().clone()));
    let options = FormatOptions::default();
    for batch in batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let fields = columns.iter().map(|column| Ok(column.value(row).try_to_string()?));
            push_line(&mut out, fields.collect::<Result<Vec<_>, SqlError>>()?);
        }
    }
    Ok(out)
}

fn push_line(out: &mut String, fields: impl IntoIterator<Item = String>) {
    for (index, field) in fields.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if field.contains([',', '"', '\n', '\r']) {
            out.push('"');
            out.push_str(&field.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&field);
        }
    }
    out.push('\n');
}

fn json(batches: &[RecordBatch]) -> Result<String, SqlError> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    writer.write_batches(&batches.iter().filter(|batch| batch.num_rows() > 0).collect::<Vec<_>>())?;
    writer.finish()?;
    let mut bytes = writer.into_inner();
    if bytes.is_empty() {
        bytes.extend_from_slice(b"[]");
    }
    bytes.push(b'\n');
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};

    use super::*;

    fn batch() -> RecordBatch {
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a,b"), None, Some("say \"hi\"")]));
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None]));
        let shares: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.5), None, Some(1.0)]));
        RecordBatch::try_from_iter_with_nullable([("name", names, true), ("n", counts, true), ("share", shares, true)])
            .expect("three columns of three rows")
    }

    #[test]
    fn csv_quotes_what_needs_it_and_leaves_null_empty() {
        let text = render(&[batch()], Format::Csv).expect("renders");
        assert_eq!(text, "name,n,share\n\"a,b\",1,0.5\n,2,\n\"say \"\"hi\"\"\",,1.0\n");
    }

    #[test]
    fn json_writes_null_and_an_empty_result_as_an_empty_array() {
        let text = render(&[batch()], Format::Json).expect("renders");
        let rows: serde_json::Value = serde_json::from_str(&text).expect("is JSON");
        assert_eq!(rows[1], serde_json::json!({ "name": null, "n": 2, "share": null }));
        assert_eq!(render(&[RecordBatch::new_empty(batch().schema())], Format::Json).expect("renders"), "[]\n");
    }

    #[test]
    fn a_table_without_rows_still_shows_its_columns() {
        let text = render(&[RecordBatch::new_empty(batch().schema())], Format::Table).expect("renders");
        assert!(text.contains("| name | n | share |"), "{text}");
    }
}
