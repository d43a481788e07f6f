//! Scalars as JSON text.

use std::io::Write as _;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;

/// Digits behind the point of a decimal.
pub(super) const SCALE_MAX: usize = 38;

pub(super) fn integer(value: i64, out: &mut Vec<u8>) {
    serde_json::to_writer(out, &value).expect("a number has a JSON form");
}

pub(super) fn natural(value: u64, out: &mut Vec<u8>) {
    serde_json::to_writer(out, &value).expect("a number has a JSON form");
}

/// A whole number with a point in it, exactly; none for what is no number of 1 to 16 bytes, in two's complement, most
/// significant first.
pub(super) fn decimal(bytes: &[u8], scale: usize, out: &mut Vec<u8>) -> Option<()> {
    if bytes.is_empty() || bytes.len() > 16 {
        return None;
    }
    let sign = if bytes[0] & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [sign; 16];
    wide[16 - bytes.len()..].copy_from_slice(bytes);
    let unscaled = i128::from_be_bytes(wide);
    if unscaled < 0 {
        out.push(b'-');
    }
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    out.extend_from_slice(whole.as_bytes());
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
    Some(())
}

/// Nanoseconds as milliseconds, exactly; with a fraction only where there is one.
pub(super) fn milliseconds(nanos: i128, out: &mut Vec<u8>) {
    let (whole, fraction) = (nanos.unsigned_abs() / 1_000_000, nanos.unsigned_abs() % 1_000_000);
    let sign = if nanos < 0 { "-" } else { "" };
    write!(out, "{sign}{whole}").expect("memory takes what is written");
    if fraction > 0 {
        write!(out, ".{fraction:06}").expect("memory takes what is written");
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
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
    write!(out, "\"{}\"", Base64Display::new(value, &STANDARD)).expect("memory takes what is written");
}

/// A name that a member is given by, with its colon.
pub(super) fn member(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    text(name, &mut out);
    out.push(b':');
    out
}

/// The name that [`member`] made such a beginning of.
pub(super) fn name(member: &[u8]) -> String {
    let text = member.strip_suffix(b":").unwrap_or(member);
    serde_json::from_slice(text).expect("it is JSON text")
}
