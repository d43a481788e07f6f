//! Moments, code words, hashes and tags.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use chrono::{DateTime, NaiveDateTime};
use datafusion::common::Result;
use sha2::{Digest, Sha256};

use super::map_builder;

const CODE_WORD_BYTES_MAX: usize = 128;
/// 2^53: up to here every whole number of ms is a float, and far beyond any moment.
const MS_MAX: f64 = 9_007_199_254_740_992.0;

pub(super) fn epoch_ms(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let moments: Int64Array = match columns[0].data_type() {
        DataType::Float64 => {
            columns[0].as_primitive::<Float64Type>().iter().map(|seconds| of_seconds(seconds?)).collect()
        }
        _ => columns[0].as_string::<i32>().iter().map(|text| of_text(text?)).collect(),
    };
    Ok(Arc::new(moments))
}

fn of_seconds(seconds: f64) -> Option<i64> {
    let ms = (seconds * 1_000.0).round();
    (ms.abs() <= MS_MAX).then_some(ms as i64)
}

fn of_text(text: &str) -> Option<i64> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Some(moment.timestamp_millis());
    }
    // Loggers leave the zone out, or write it without a colon.
    if let Ok(moment) = DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z") {
        return Some(moment.timestamp_millis());
    }
    let moment = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
        .into_iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
    Some(moment.and_utc().timestamp_millis())
}

pub(super) fn is_code_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
    !text.is_empty() && text.len() <= CODE_WORD_BYTES_MAX && text.bytes().all(plain)
}

pub(super) fn word(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let texts = columns[0].as_string::<i32>().iter();
    Ok(Arc::new(texts.map(|text| text.filter(|text| is_code_word(text))).collect::<StringArray>()))
}

pub(super) fn text_hash(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let texts = columns[0].as_string::<i32>().iter();
    let hash = |text: &str| hex::encode(&Sha256::digest(text.as_bytes())[..16]);
    Ok(Arc::new(texts.map(|text| text.map(hash)).collect::<StringArray>()))
}

pub(super) fn tag_map(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let mut builder = map_builder();
    for tags in columns[0].as_list::<i32>().iter() {
        let there = tags.is_some();
        if let Some(tags) = tags {
            // A key stands once in a map, and in an order that does not depend on the sender's.
            let texts = tags.as_string::<i32>().iter().flatten();
            let by_key: BTreeMap<&str, &str> =
                texts.map(|tag| tag.split_once([':', '=']).unwrap_or((tag, "true"))).collect();
            for (key, value) in by_key {
                builder.keys().append_value(key);
                builder.values().append_value(value);
            }
        }
        builder.append(there)?;
    }
    Ok(Arc::new(builder.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_loggers_write_them() {
        // 2026-08-24 09:12:31.482 UTC is 1787562751482 ms, by `date -d ... +%s`.
        for text in [
            "2026-08-24T09:12:31.482Z",
            "2026-08-24T11:12:31.482+02:00",
            "2026-08-24T11:12:31.482+0200",
            "2026-08-24T09:12:31.482",
            "2026-08-24 09:12:31.482",
            "2026-08-24T09:12:31.482999999Z",
        ] {
            assert_eq!(of_text(text), Some(1_787_562_751_482), "{text}");
        }
        for text in ["", "now", "2026-08-24", "2026-13-01T00:00:00Z", "1787562751"] {
            assert_eq!(of_text(text), None, "{text}");
        }
        assert_eq!(of_seconds(1_787_562_751.482), Some(1_787_562_751_482));
        assert_eq!([f64::NAN, f64::INFINITY, 1e300].map(of_seconds), [None; 3]);
    }

    #[test]
    fn names_are_code_words_and_sentences_are_not() {
        for name in ["gpt-4o-mini", "openai/gpt-4o", "429_RATE_LIMIT_EXCEEDED", "tool_calls"] {
            assert!(is_code_word(name), "{name}");
        }
        for text in ["", "my name is Ann", "ann@example.com", "straße", &"a".repeat(129)] {
            assert!(!is_code_word(text), "{text}");
        }
    }
}
