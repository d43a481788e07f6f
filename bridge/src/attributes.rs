//! OTLP's attributes as an object of strings, without those that can hold a prompt or a response.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::proto::otlp::{AnyValue, KeyValue, Resource};
use crate::text::Text;

/// Attributes deeper than this are cut: nothing of use is, and what is read back must not exhaust a stack.
const MOST_DEPTH: usize = 32;

/// An object of strings: scalars as text, lists and maps as JSON text. `dropped` counts what can hold text.
pub(crate) fn object(
    attributes: &[KeyValue],
    text: &Text,
    in_event_of_genai: bool,
    dropped: &mut u64,
) -> Map<String, Value> {
    let mut object = Map::new();
    for KeyValue { key, value } in attributes {
        if drops(text, key, in_event_of_genai) {
            *dropped += 1;
        } else if let Some(value) = value.as_ref().and_then(|value| rendered(value, text, in_event_of_genai, dropped)) {
            object.insert(key.clone(), Value::String(value));
        }
    }
    object
}

fn drops(text: &Text, key: &str, in_event_of_genai: bool) -> bool {
    text.drops(key) || (in_event_of_genai && text.drops_in_genai_event(key))
}

/// The text of a value; `None` where there is none.
pub(crate) fn rendered(value: &AnyValue, text: &Text, in_event_of_genai: bool, dropped: &mut u64) -> Option<String> {
    match json(value, text, in_event_of_genai, 0, dropped) {
        Value::Null => None,
        Value::String(string) => Some(string),
        other => Some(other.to_string()),
    }
}

fn json(value: &AnyValue, text: &Text, in_event_of_genai: bool, depth: usize, dropped: &mut u64) -> Value {
    if depth > MOST_DEPTH {
        return Value::Null;
    }
    if let Some(string) = &value.string_value {
        return string.as_str().into();
    }
    if let Some(flag) = value.bool_value {
        return flag.into();
    }
    if let Some(integer) = value.int_value {
        return integer.into();
    }
    if let Some(number) = value.double_value {
        // JSON has no NaN and no infinity; their names are OTLP's own.
        return serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number);
    }
    if let Some(array) = &value.array_value {
        let values = array.values.iter().map(|value| json(value, text, in_event_of_genai, depth + 1, dropped));
        return values.collect();
    }
    if let Some(map) = &value.kvlist_value {
        let mut object = Map::new();
        for KeyValue { key, value } in &map.values {
            if drops(text, key, in_event_of_genai) {
                *dropped += 1;
                continue;
            }
            let value = value.as_ref().map(|value| json(value, text, in_event_of_genai, depth + 1, dropped));
            object.insert(key.clone(), value.unwrap_or_default());
        }
        return Value::Object(object);
    }
    value.bytes_value.as_ref().map_or(Value::Null, |bytes| STANDARD.encode(bytes).into())
}

/// The text of one attribute.
pub(crate) fn find<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    found.value.as_ref()?.string_value.as_deref()
}

/// The attributes of a resource, if it is there.
pub(crate) fn of(resource: Option<&Resource>) -> &[KeyValue] {
    resource.map_or(&[], |resource| &resource.attributes)
}

/// Milliseconds of nanoseconds; `None` of 0, which OTLP means by "unknown".
#[expect(clippy::cast_precision_loss, reason = "a double holds today's milliseconds to a quarter of a microsecond")]
pub(crate) fn ms(unix_nano: u64) -> Option<f64> {
    (unix_nano > 0).then(|| (unix_nano / 1_000_000) as f64 + (unix_nano % 1_000_000) as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::otlp::{ArrayValue, KeyValueList};

    fn of_string(value: &str) -> AnyValue {
        AnyValue { string_value: Some(value.into()), ..AnyValue::default() }
    }

    fn attribute(key: &str, value: AnyValue) -> KeyValue {
        KeyValue { key: key.into(), value: Some(value) }
    }

    #[test]
    fn scalars_become_text_and_lists_and_maps_become_json_text() {
        let list = AnyValue {
            array_value: Some(ArrayValue {
                values: vec![of_string("a"), AnyValue { int_value: Some(2), ..AnyValue::default() }],
            }),
            ..AnyValue::default()
        };
        let map = AnyValue {
            kvlist_value: Some(KeyValueList {
                values: vec![attribute("x", of_string("y")), attribute("gen_ai.prompt", of_string("hunter2"))],
            }),
            ..AnyValue::default()
        };
        let attributes = [
            attribute("string", of_string("s")),
            attribute("flag", AnyValue { bool_value: Some(true), ..AnyValue::default() }),
            attribute("integer", AnyValue { int_value: Some(i64::MAX), ..AnyValue::default() }),
            attribute("number", AnyValue { double_value: Some(0.25), ..AnyValue::default() }),
            attribute("nan", AnyValue { double_value: Some(f64::NAN), ..AnyValue::default() }),
            attribute("bytes", AnyValue { bytes_value: Some(vec![1, 2, 3]), ..AnyValue::default() }),
            attribute("list", list),
            attribute("map", map),
            attribute("empty", AnyValue::default()),
            KeyValue { key: "none".into(), value: None },
        ];
        let mut dropped = 0;
        let object = object(&attributes, &Text::dropped(&[]), false, &mut dropped);
        let expected = serde_json::json!({
            "string": "s", "flag": "true", "integer": "9223372036854775807", "number": "0.25", "nan": "NaN",
            "bytes": "AQID", "list": "[\"a\",2]", "map": "{\"x\":\"y\"}",
        });
        assert_eq!((Value::Object(object), dropped), (expected, 1));
    }

    #[test]
    fn milliseconds_keep_what_a_double_can() {
        assert_eq!(ms(0), None);
        assert_eq!(ms(1_700_000_000_123_456_789), Some(1_700_000_000_123.456_8));
    }
}
