//! Rows of the engine as rows of the wire. What PostgreSQL has a type for goes as that type; maps, structs and lists of
//! those go as JSON text, and the few types left as their text.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, make_encoder};
use arrow_pg::datatypes::{arrow_schema_to_pg_fields, into_pg_type};
use pgwire::api::portal::Format;
use pgwire::api::results::FieldInfo;
use pgwire::error::PgWireResult;

use crate::SqlError;

/// The columns that a client is told of.
pub(super) fn fields(schema: &Schema, format: &Format) -> PgWireResult<Vec<FieldInfo>> {
    arrow_schema_to_pg_fields(&wire_schema(schema), format, None)
}

/// The columns as they go over the wire.
fn wire_schema(schema: &Schema) -> SchemaRef {
    let field = |field: &FieldRef| match way(field.data_type()) {
        Way::AsItIs => Arc::clone(field),
        Way::Json | Way::Text => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// A batch as it goes over the wire.
pub(super) fn wire_batch(batch: &RecordBatch) -> Result<RecordBatch, SqlError> {
    let schema = batch.schema();
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| match way(field.data_type()) {
        Way::AsItIs => Ok(Arc::clone(column)),
        Way::Json => json(field, column),
        Way::Text => cast(column, &DataType::Utf8),
    });
    let columns = columns.collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
    if columns.is_empty() {
        return Ok(batch.clone());
    }
    Ok(RecordBatch::try_new(wire_schema(&schema), columns)?)
}

enum Way {
    AsItIs,
    Json,
    Text,
}

fn way(kind: &DataType) -> Way {
    match kind {
        DataType::Struct(_) | DataType::Map(_, _) | DataType::Union(_, _) => Way::Json,
        DataType::List(inner) | DataType::LargeList(inner) | DataType::FixedSizeList(inner, _) => {
            if inner.data_type().is_nested() || into_pg_type(inner.data_type()).is_err() {
                Way::Json
            } else {
                Way::AsItIs
            }
        }
        other if into_pg_type(other).is_ok() => Way::AsItIs,
        _ => Way::Text,
    }
}

fn json(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = EncoderOptions::default();
    let mut encoder = make_encoder(field, column, &options)?;
    let mut out = StringBuilder::new();
    let mut bytes = Vec::new();
    for row in 0..column.len() {
        if encoder.is_null(row) {
            out.append_null();
            continue;
        }
        bytes.clear();
        encoder.encode(row, &mut bytes);
        out.append_value(String::from_utf8_lossy(&bytes));
    }
    Ok(Arc::new(out.finish()))
}
