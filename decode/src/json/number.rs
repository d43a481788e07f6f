//! Numbers of a JSON text, as the numbers of a column.
//!
//! Plain ones (some digits, perhaps a point) are computed on the spot; all others go the way of arrow-json, through the
//! same parser, so that they mean the same.

/// Up to here 64-bit floats hold every whole number: later than any event time.
pub(super) const WHOLE_MAX: i64 = 1 << 53;

/// Powers of ten that 64-bit floats hold exactly.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Digits that fit 64 bits whatever they are.
const DIGITS_MAX: usize = 18;

/// `-?[0-9]{1,18}` as an integer.
#[inline]
fn plain_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    let mut value = 0_i64;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(byte - b'0');
    }
    Some(if negative { -value } else { value })
}

/// A 64-bit float.
#[inline]
pub(super) fn float64(text: &[u8]) -> Option<f64> {
    plain_float(text).or_else(|| lexical_core::parse::<f64>(text).ok())
}

/// `-?[0-9]+(\.[0-9]+)?` whose digits fit 53 bits. Both the digits and the power of ten are exact then, so their
/// quotient is the nearest float (Clinger, "How to read floating point numbers accurately", 1990).
#[inline]
fn plain_float(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.len() > DIGITS_MAX {
        return None;
    }
    let (mut value, mut point) = (0_u64, None);
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => value = value * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() && at > 0 => point = Some(at),
            _ => return None,
        }
    }
    let decimals = match point {
        Some(at) => digits.len() - at - 1,
        None if digits.is_empty() => return None,
        None => 0,
    };
    if value > 1 << 53 || (point.is_some() && decimals == 0) {
        return None;
    }
    let float = value as f64 / TENS[decimals];
    Some(if negative { -float } else { float })
}

/// A 32-bit float.
#[inline]
pub(super) fn float32(text: &[u8]) -> Option<f32> {
    lexical_core::parse::<f32>(text).ok()
}

/// A float as the whole number that it is, within the given limits.
#[inline]
pub(super) fn whole(number: f64, low: i64, high: i64) -> Option<i64> {
    // Within the limits every whole number is a float of its own, so the way there and back changes nothing.
    let whole = number as i64;
    (whole as f64 == number && low <= whole && whole <= high).then_some(whole)
}

/// A whole number that a 64-bit float holds: 12, 12.0, 1.2e1, but not 12.7.
#[inline]
pub(super) fn whole64(text: &[u8], low: i64, high: i64) -> Option<i64> {
    match plain_integer(text) {
        Some(integer) if low <= integer && integer <= high => Some(integer),
        Some(integer) => whole(integer as f64, low, high),
        None => whole(float64(text)?, low, high),
    }
}

/// Any 64-bit integer, exactly; a number with a point or an exponent only if it is whole.
#[inline]
pub(super) fn exact64(text: &[u8]) -> Option<i64> {
    plain_integer(text)
        .or_else(|| lexical_core::parse::<i64>(text).ok())
        .or_else(|| whole(float64(text)?, -WHOLE_MAX, WHOLE_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_numbers_are_whole_however_they_are_written() {
        for (text, expected) in [
            ("12", Some(12)),
            ("-0", Some(0)),
            ("007", Some(7)),
            ("12.0", Some(12)),
            ("1.2e1", Some(12)),
            ("12.7", None),
            ("9007199254740992", Some(9_007_199_254_740_992)),
            ("9007199254740994", None),
            ("1e300", None),
            ("-", None),
            ("1-2", None),
        ] {
            assert_eq!(whole64(text.as_bytes(), -WHOLE_MAX, WHOLE_MAX), expected, "{text}");
        }
        assert_eq!(exact64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(exact64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(exact64(b"9223372036854775808"), None);
        assert_eq!(exact64(b"12.5"), None, "arrow-json would cut it");
    }

    proptest! {
        /// The standard library is the other implementation.
        #[test]
        fn floats_are_the_nearest_ones(text in "-?[0-9]{1,20}(\\.[0-9]{1,20})?([eE][-+]?[0-9]{1,2})?") {
            let expected = text.parse::<f64>().unwrap();
            let found = float64(text.as_bytes()).unwrap();
            prop_assert_eq!(found.to_bits(), expected.to_bits(), "{}", text);
        }

        #[test]
        fn what_is_computed_on_the_spot_is_what_the_parser_says(text in "[-+.eE0-9]{0,22}") {
            let plain = plain_float(text.as_bytes());
            if let Some(plain) = plain {
                let parsed = lexical_core::parse::<f64>(text.as_bytes()).unwrap();
                prop_assert_eq!(plain.to_bits(), parsed.to_bits(), "{}", text);
            }
        }
    }
}
