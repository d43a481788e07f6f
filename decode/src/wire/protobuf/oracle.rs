//! The same by prost-reflect, which keeps every message as a tree: to hold ours against.

use protox::prost_reflect::{
    DynamicMessage, EnumDescriptor, FileDescriptor, Kind, MapKey, ReflectMessage as _, Value as Decoded,
};
use serde_json::{Map, Number, Value, json};

use super::compile;
use crate::wire::RegisteredSchema;

/// The first type of a file.
pub(crate) struct Oracle(FileDescriptor);

impl Oracle {
    pub(crate) fn new(registered: &RegisteredSchema) -> Self {
        Self(compile::file(registered).expect("the oracle is asked of schemas that compile"))
    }

    /// What such a message becomes, if the bytes are one.
    pub(crate) fn read(&self, bytes: &[u8]) -> Option<Value> {
        let kind = self.0.messages().next()?;
        Some(message(&DynamicMessage::decode(kind, bytes).ok()?))
    }
}

fn object(message: &DynamicMessage) -> Value {
    let mut members = Map::new();
    for field in message.descriptor().fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        members.insert(field.name().to_owned(), value(&message.get_field(&field), &field.kind()));
    }
    Value::Object(members)
}

fn value(decoded: &Decoded, kind: &Kind) -> Value {
    match decoded {
        Decoded::Bool(value) => json!(value),
        Decoded::I32(value) => json!(value),
        Decoded::I64(value) => json!(value),
        Decoded::U32(value) => json!(value),
        Decoded::U64(value) => json!(value),
        Decoded::F32(value) => real(f64::from(*value)),
        Decoded::F64(value) => real(*value),
        Decoded::String(value) => json!(value),
        Decoded::Bytes(value) => {
            use base64::Engine as _;
            json!(base64::engine::general_purpose::STANDARD.encode(value))
        }
        Decoded::EnumNumber(number) => symbol(*number, kind.as_enum()),
        Decoded::Message(inner) => message(inner),
        Decoded::List(elements) => elements.iter().map(|element| value(element, kind)).collect(),
        Decoded::Map(entries) => {
            // A map's field is a list of entries; its values are of the entry's second field.
            let of = kind.as_message().expect("a map has entries").map_entry_value_field().kind();
            Value::Object(entries.iter().map(|(key, entry)| (key_text(key), value(entry, &of))).collect())
        }
    }
}

fn real(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| json!(value.to_string()), Value::Number)
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn symbol(number: i32, kind: Option<&EnumDescriptor>) -> Value {
    match kind {
        Some(kind) if kind.full_name() == "google.protobuf.NullValue" => Value::Null,
        Some(kind) => kind.get_value(number).map_or(json!(number), |named| json!(named.name())),
        None => json!(number),
    }
}

fn message(message: &DynamicMessage) -> Value {
    let descriptor = message.descriptor();
    let Some(well_known) = descriptor.full_name().strip_prefix("google.protobuf.") else { return object(message) };
    let integer = |name: &str| match message.get_field_by_name(name).as_deref() {
        Some(Decoded::I64(value)) => *value,
        Some(Decoded::I32(value)) => i64::from(*value),
        _ => 0,
    };
    let first = || {
        let field = descriptor.fields().next().expect("it has one field");
        value(&message.get_field(&field), &field.kind())
    };
    match well_known {
        "Timestamp" => {
            let ms = integer("seconds").saturating_mul(1_000);
            json!(ms.saturating_add(integer("nanos").div_euclid(1_000_000)))
        }
        "Duration" => {
            let nanos = i128::from(integer("seconds")) * 1_000_000_000 + i128::from(integer("nanos"));
            let (whole, rest) = (nanos / 1_000_000, nanos % 1_000_000);
            match i64::try_from(whole) {
                Ok(whole) if rest == 0 => json!(whole),
                _ => format!("{}{}.{:06}", if nanos < 0 { "-" } else { "" }, whole.unsigned_abs(), rest.unsigned_abs())
                    .parse::<f64>()
                    .map_or(Value::Null, real),
            }
        }
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value" | "BoolValue"
        | "StringValue" | "BytesValue" | "Struct" | "ListValue" => first(),
        "Value" => match descriptor.fields().find(|field| message.has_field(field)) {
            Some(field) => value(&message.get_field(&field), &field.kind()),
            None => Value::Null,
        },
        _ => object(message),
    }
}
