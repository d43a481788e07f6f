//! Results as text.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::Writer as JsonWriter;
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
    if format == Format::Table {
        let options = FormatOptions::default().with_null("");
        return Ok(format!("{}\n", pretty_format_batches_with_options(batches, &options)?));
    }
    let mut text = Vec::new();
    let schema = batches.first().map_or_else(|| Schema::empty().into(), RecordBatch::schema);
    let mut writer = Writer::begin(format, &schema, &mut text)?;
    batches.iter().try_for_each(|batch| writer.batch(batch))?;
    writer.end()?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Writes a result batch by batch.
pub(crate) enum Writer<W: Write> {
    Csv(W),
    Json(JsonWriter<W, JsonArray>),
}

impl<W: Write> Writer<W> {
    /// Writes what comes before the first row. A table is not written batch by batch: it comes out as CSV here.
    pub(crate) fn begin(format: Format, schema: &SchemaRef, mut out: W) -> Result<Self, SqlError> {
        if format == Format::Json {
            return Ok(Self::Json(WriterBuilder::new().with_explicit_nulls(true).build(out)));
        }
        let header = line(schema.fields().iter().map(|field| Ok(field.name().clone())))?;
        out.write_all(header.as_bytes())?;
        Ok(Self::Csv(out))
    }

    pub(crate) fn batch(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        match self {
            Self::Json(writer) if batch.num_rows() > 0 => writer.write(batch).map_err(out_of_arrow),
            Self::Json(_) => Ok(()),
            Self::Csv(out) => {
                let options = FormatOptions::default();
                let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
                let columns = columns.collect::<Result<Vec<_>, _>>()?;
                for row in 0..batch.num_rows() {
                    let fields = columns.iter().map(|column| Ok(column.value(row).try_to_string()?));
                    out.write_all(line(fields)?.as_bytes())?;
                }
                Ok(())
            }
        }
    }

    pub(crate) fn end(self) -> Result<(), SqlError> {
        match self {
            Self::Csv(mut out) => Ok(out.flush()?),
            Self::Json(mut writer) => {
                writer.finish().map_err(out_of_arrow)?;
                let mut out = writer.into_inner();
                out.write_all(b"\n")?;
                Ok(out.flush()?)
            }
        }
    }
}

/// The JSON writer wraps what its output says.
fn out_of_arrow(error: ArrowError) -> SqlError {
    match error {
        ArrowError::IoError(_, cause) => SqlError::Output(cause),
        other => SqlError::Unwritable(other),
    }
}

/// One line of CSV (RFC 4180).
fn line(fields: impl Iterator<Item = Result<String, SqlError>>) -> Result<String, SqlError> {
    let mut line = String::new();
    for (index, field) in fields.enumerate() {
        let field = field?;
        if index > 0 {
            line.push(',');
        }
        if field.contains([',', '"', '\n', '\r']) {
            line.push('"');
            line.push_str(&field.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(&field);
        }
    }
    line.push('\n');
    Ok(line)
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
