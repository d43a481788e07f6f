//! Scraped pages in the Prometheus text format: from samples to rows.
//!
//! A page is a list of samples, one per metric and set of labels. An adapter wants a row per GPU or engine with a column
//! per metric. So samples that agree in the labels `group_by` become one row; within it, series that differ in a label
//! of `sum_over` are added up, and of series that differ in other labels only the first counts (an exporter repeats a
//! shared GPU for each pod on it).
//!
//! An adapter's columns are the metrics that it reads (`double`), and any of `timestamp_ms bigint` (the sample's own
//! time, else that of the scrape), `labels map<text, text>` (those of `group_by`) and `message_key text`. Metrics and
//! labels that it does not name are not carried. A value that is no finite number is null.

mod text;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::builder::{Float64Builder, Int64Builder, MapBuilder, MapFieldNames, StringBuilder};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::adapter::Failed;
use crate::{Adapter, AdapterError, Input};

const TIMESTAMP_MS: &str = "timestamp_ms";
const LABELS: &str = "labels";
const MESSAGE_KEY: &str = "message_key";

/// One message: a page as it was scraped.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The text.
    pub text: &'a [u8],
    /// When it was scraped, ms since the Unix epoch: for samples that say no time.
    pub scraped_ms: Option<i64>,
    /// The message's key.
    pub key: Option<&'a str>,
}

/// Rows of some pages.
#[derive(Debug)]
pub struct Rows {
    /// A batch of [`Adapter::input_schema`].
    pub batch: RecordBatch,
    /// Per row the page that it came from, ascending.
    pub pages: Vec<u32>,
    /// Pages that are no such text, each once. They have no rows.
    pub failed: Vec<Failed>,
}

impl Adapter {
    /// Reads pages into a batch for [`Adapter::project`].
    ///
    /// # Errors
    /// [`AdapterError::Engine`] when the adapter reads JSON. What pages hold is in [`Rows::failed`].
    pub fn read_pages(&self, pages: &[Page<'_>]) -> Result<Rows, AdapterError> {
        let engine =
            |problem: &str| AdapterError::Engine { adapter: self.name().to_owned(), problem: problem.to_owned() };
        let Input::Prometheus { group_by, sum_over } = self.input() else {
            return Err(engine("it reads JSON and was given pages"));
        };
        let schema = self.input_schema();
        let mut rows = Vec::new();
        let mut of_page = Vec::new();
        let mut failed = Vec::new();
        for (index, page) in pages.iter().enumerate() {
            match rows_of(&schema, group_by, sum_over, page) {
                Ok(found) => {
                    of_page.extend(found.iter().map(|_| index as u32));
                    rows.extend(found);
                }
                Err(line) => failed.push(Failed {
                    row: index as u32,
                    reason: format!(
                        "adapter {}: line {line} is not the Prometheus text format; send each scraped page as one message",
                        self.name()
                    ),
                }),
            }
        }
        let batch =
            batch(&schema, group_by, pages, &rows, &of_page).map_err(|_| engine("its rows do not fit together"))?;
        Ok(Rows { batch, pages: of_page, failed })
    }
}

/// Are these the columns of pages?
pub(crate) fn check(schema: &Schema) -> Result<(), String> {
    for field in schema.fields() {
        let (fits, wanted) = match field.name().as_str() {
            TIMESTAMP_MS => (field.data_type() == &DataType::Int64, "bigint"),
            LABELS => (is_text_map(field.data_type()), "map<text, text>"),
            MESSAGE_KEY => (field.data_type() == &DataType::Utf8, "text"),
            _ => (field.data_type() == &DataType::Float64, "double"),
        };
        if !fits {
            return Err(format!("columns: in Prometheus pages {} is a {wanted}", field.name()));
        }
    }
    Ok(())
}

fn is_text_map(kind: &DataType) -> bool {
    match kind {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => fields[1].data_type() == &DataType::Utf8,
            _ => false,
        },
        _ => false,
    }
}

/// What samples with the same labels of `group_by` say.
#[derive(Debug)]
struct Row {
    /// Values of the labels of `group_by`, in their order.
    labels: Vec<Option<String>>,
    timestamp_ms: Option<i64>,
    /// Per column of the schema, by the values of `sum_over`: the first value of that series.
    series: HashMap<(usize, Vec<Option<String>>), Option<f64>>,
}

impl Row {
    /// The sum of a metric's series; null when one of them is no number.
    fn value(&self, column: usize) -> Option<f64> {
        let series: Vec<_> = self.series.iter().filter(|((of, _), _)| *of == column).collect();
        if series.is_empty() {
            return None;
        }
        // Floating-point sums depend on their order, and the map's is not the page's.
        let mut values: Vec<f64> = series.into_iter().map(|(_, value)| *value).collect::<Option<_>>()?;
        values.sort_by(f64::total_cmp);
        Some(values.into_iter().sum())
    }
}

/// The rows of one page, in the order in which they appear, or the number of the line that can't be read.
fn rows_of(schema: &Schema, group_by: &[String], sum_over: &[String], page: &Page<'_>) -> Result<Vec<Row>, usize> {
    let mut rows: Vec<Row> = Vec::new();
    let mut known: HashMap<Vec<Option<String>>, usize> = HashMap::new();
    for sample in text::samples(page.text)? {
        let column = match schema.index_of(&sample.metric) {
            Ok(column) if schema.field(column).data_type() == &DataType::Float64 => column,
            _ => continue,
        };
        let of = |names: &[String]| names.iter().map(|name| sample.label(name).map(str::to_owned)).collect::<Vec<_>>();
        let labels = of(group_by);
        let index = *known.entry(labels).or_insert_with_key(|labels| {
            rows.push(Row { labels: labels.clone(), timestamp_ms: None, series: HashMap::new() });
            rows.len() - 1
        });
        let row = &mut rows[index];
        row.timestamp_ms = row.timestamp_ms.or(sample.timestamp_ms);
        let value = Some(sample.value).filter(|value| value.is_finite());
        row.series.entry((column, of(sum_over))).or_insert(value);
    }
    Ok(rows)
}

fn batch(
    schema: &SchemaRef,
    group_by: &[String],
    pages: &[Page<'_>],
    rows: &[Row],
    of_page: &[u32],
) -> Result<RecordBatch, ArrowError> {
    let page = |row: usize| &pages[of_page[row] as usize];
    let columns = schema.fields().iter().enumerate().map(|(column, field)| -> Result<ArrayRef, ArrowError> {
        Ok(match field.name().as_str() {
            TIMESTAMP_MS => {
                let mut builder = Int64Builder::with_capacity(rows.len());
                for (index, row) in rows.iter().enumerate() {
                    builder.append_option(row.timestamp_ms.or(page(index).scraped_ms));
                }
                Arc::new(builder.finish())
            }
            MESSAGE_KEY => {
                let mut builder = StringBuilder::new();
                (0..rows.len()).for_each(|index| builder.append_option(page(index).key));
                Arc::new(builder.finish())
            }
            LABELS => {
                let names =
                    MapFieldNames { entry: "key_value".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
                let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
                for row in rows {
                    for (name, value) in group_by.iter().zip(&row.labels).filter(|(_, value)| value.is_some()) {
                        builder.keys().append_value(name);
                        builder.values().append_option(value.as_deref());
                    }
                    builder.append(true)?;
                }
                Arc::new(builder.finish())
            }
            _ => {
                let mut builder = Float64Builder::with_capacity(rows.len());
                rows.iter().for_each(|row| builder.append_option(row.value(column)));
                Arc::new(builder.finish())
            }
        })
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<Vec<_>, ArrowError>>()?)
}
