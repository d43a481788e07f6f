//! Typed reads of a JSON object, as Go's encoder writes it: absent, null, `""` and the zero time all mean "not set".

use chrono::{DateTime, NaiveDateTime};
use serde_json::{Map, Value};

use super::AdaptError;
use crate::EventTimeMs;

/// A JSON object of the record.
#[derive(Clone, Copy)]
pub(super) struct Object<'a>(pub(super) &'a Map<String, Value>);

type Read<T> = Result<Option<T>, AdaptError>;

impl<'a> Object<'a> {
    fn read<T>(
        self,
        field: &'static str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Read<T> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => convert(value).map(Some).ok_or(AdaptError::WrongType { field, expected }),
        }
    }

    pub(super) fn text(self, field: &'static str) -> Read<&'a str> {
        Ok(self.read(field, "a string", Value::as_str)?.filter(|text| !text.is_empty()))
    }

    pub(super) fn owned(self, field: &'static str) -> Read<String> {
        Ok(self.text(field)?.map(str::to_owned))
    }

    /// A flag; Go leaves `false` out, so absent is false.
    pub(super) fn flag(self, field: &'static str) -> Result<bool, AdaptError> {
        Ok(self.read(field, "a boolean", Value::as_bool)?.unwrap_or(false))
    }

    pub(super) fn number(self, field: &'static str) -> Read<f64> {
        self.read(field, "a number", Value::as_f64)
    }

    /// An integer. The sampling seeds exceed 2^53, so no integer may pass through a float.
    pub(super) fn integer(self, field: &'static str) -> Read<i64> {
        self.read(field, "a 64-bit integer", Value::as_i64)
    }

    /// A count: an integer from 0 that fits 32 bits.
    pub(super) fn count(self, field: &'static str) -> Read<i32> {
        self.read(field, "a count", |value| value.as_i64().and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0))
    }

    pub(super) fn object(self, field: &'static str) -> Read<Object<'a>> {
        self.read(field, "an object", |value| value.as_object().map(Object))
    }

    pub(super) fn objects(self, field: &'static str) -> Result<Vec<Object<'a>>, AdaptError> {
        let convert = |value: &'a Value| value.as_array()?.iter().map(|item| item.as_object().map(Object)).collect();
        Ok(self.read(field, "an array of objects", convert)?.unwrap_or_default())
    }

    pub(super) fn texts(self, field: &'static str) -> Result<Vec<&'a str>, AdaptError> {
        let convert = |value: &'a Value| value.as_array()?.iter().map(Value::as_str).collect();
        Ok(self.read(field, "an array of strings", convert)?.unwrap_or_default())
    }

    pub(super) fn numbers(self, field: &'static str) -> Result<Vec<(&'a str, f64)>, AdaptError> {
        let convert = |value: &'a Value| {
            value.as_object()?.iter().map(|(key, number)| Some((key.as_str(), number.as_f64()?))).collect()
        };
        Ok(self.read(field, "an object of numbers", convert)?.unwrap_or_default())
    }

    /// A time. PostgreSQL's column has no zone: what comes without one is UTC, as the router writes it.
    pub(super) fn time(self, field: &'static str) -> Read<EventTimeMs> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        let moment = DateTime::parse_from_rfc3339(text)
            .map(|moment| moment.timestamp_millis())
            .or_else(|_| {
                let without_zone = text.replacen(' ', "T", 1);
                NaiveDateTime::parse_from_str(&without_zone, "%Y-%m-%dT%H:%M:%S%.f")
                    .map(|moment| moment.and_utc().timestamp_millis())
            })
            .map_err(|_| AdaptError::WrongType { field, expected: "an RFC 3339 time" })?;
        Ok((moment > GO_ZERO_TIME_MS).then_some(EventTimeMs(moment)))
    }
}

/// 0001-01-01T00:00:00Z, which Go writes for a time that was never set.
const GO_ZERO_TIME_MS: i64 = -62_135_596_800_000;
