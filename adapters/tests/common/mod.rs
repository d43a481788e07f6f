//! What these tests share: JSON messages into batches of an adapter's input schema, by arrow-json.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::ReaderBuilder;
use serde_json::Value;
use weir_adapters::is_json_text;

/// Messages, one JSON object each, as a batch of `schema`.
pub fn batch(schema: &Arc<Schema>, messages: &[Value]) -> RecordBatch {
    let mut decoder = ReaderBuilder::new(Arc::clone(schema))
        .with_batch_size(messages.len().max(1))
        .build_decoder()
        .expect("the input schema has a decoder");
    let messages: Vec<Value> = messages
        .iter()
        .map(|message| {
            let mut message = message.clone();
            for field in schema.fields() {
                as_text(field, message.get_mut(field.name()));
            }
            message
        })
        .collect();
    decoder.serialize(&messages).expect("the messages have the declared types");
    decoder.flush().expect("decodes").unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(schema)))
}

/// Values of `json` fields become their own text.
fn as_text(field: &Field, value: Option<&mut Value>) {
    let Some(value) = value.filter(|value| !value.is_null()) else { return };
    match field.data_type() {
        _ if is_json_text(field) => *value = Value::String(value.to_string()),
        DataType::Struct(fields) => {
            for field in fields {
                as_text(field, value.get_mut(field.name()));
            }
        }
        DataType::List(item) => {
            value.as_array_mut().into_iter().flatten().for_each(|element| as_text(item, Some(element)));
        }
        _ => {}
    }
}
