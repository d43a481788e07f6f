//! Scalars as JSON text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(super) fn integer(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(value.to_string().as_bytes());
}

/// JSON has no word for what is not finite: there it is text, which no column of numbers takes.
pub(super) fn number(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        serde_json::to_writer(out, &value).expect("a finite number has a JSON form");
    } else {
        text(&value.to_string(), out);
    }
}

pub(super) fn boolean(value: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

pub(super) fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

pub(super) fn text(value: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("text has a JSON form");
}

/// Bytes are text in base64.
pub(super) fn bytes(value: &[u8], out: &mut Vec<u8>) {
    text(&STANDARD.encode(value), out);
}

/// A name that a member is given by, with its colon.
pub(super) fn member(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    text(name, &mut out);
    out.push(b':');
    out
}
