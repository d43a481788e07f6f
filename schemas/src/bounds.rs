//! The numbers that a quantity can be, told by its unit. The door refuses what lies outside, and the JSON Schema says
//! so beforehand: both read this table.

/// The numbers that a quantity can be. NaN is never one of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The range in words, to follow "a number that is not".
    pub words: &'static str,
    /// The least number, or the number that all lie above.
    pub low: f64,
    /// `low` itself is not in the range.
    pub low_excluded: bool,
    /// The greatest number.
    pub high: f64,
}

/// Shares are computed in single precision too: 1 may come as 1.0000001.
const SHARE_MAX: f64 = 1.000_001;

impl Bounds {
    /// By the unit of a field in its contract. `None` for names, moments, vectors and scales of the producer's own.
    ///
    /// The ceilings are far above anything real, and far enough below the limits of 64 bits that sums and conversions
    /// (to µs, to nano-USD) of everything that passes cannot overflow.
    #[must_use]
    pub fn of_unit(unit: &str) -> Option<Self> {
        if unit.starts_with("ms since") {
            return None;
        }
        if unit == "(0, 1]" {
            return Some(Self { words: "in (0, 1]", low: 0.0, low_excluded: true, high: 1.0 });
        }
        // A map's unit reads `key to value`.
        let of_value = unit.split_once(" to ").map_or(unit, |(_, value)| value);
        Some(match of_value.split([' ', ',']).next()? {
            "0..1" => Self::closed("within 0..1", 0.0, SHARE_MAX),
            "%" => Self::closed("within 0..100", 0.0, 100.0),
            "ms" => Self::closed("within 0..1e9 ms (11 days)", 0.0, 1e9),
            "USD" => Self::closed("within 0..1e6 USD", 0.0, 1e6),
            "J" => Self::closed("within 0..1e9 J", 0.0, 1e9),
            "mJ" => Self::closed("within 0..1e15 mJ", 0.0, 1e15),
            "W" => Self::closed("within 0..1e5 W", 0.0, 1e5),
            "MiB" => Self::closed("within 0..1e8 MiB", 0.0, 1e8),
            "MHz" => Self::closed("within 0..1e5 MHz", 0.0, 1e5),
            "degC" => Self::closed("within -273.15..1000 degC", -273.15, 1000.0),
            // Up to here 64-bit floats hold every whole number.
            "count" | "tokens" | "requests" => Self::closed("within 0..2^53", 0.0, 9_007_199_254_740_992.0),
            _ => return None,
        })
    }

    const fn closed(words: &'static str, low: f64, high: f64) -> Self {
        Self { words, low, low_excluded: false, high }
    }

    /// Is `value` in the range?
    #[must_use]
    pub fn allow(self, value: f64) -> bool {
        self.low <= value && value <= self.high && !(self.low_excluded && value == self.low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_bounds_its_numbers_whatever_follows_it() {
        for unit in ["0..1", "0..1, higher is better", "category to 0..1"] {
            let share = Bounds::of_unit(unit).expect("a share has bounds");
            assert!(share.allow(0.0) && share.allow(1.000_000_1), "{unit}");
            assert!(!share.allow(1.1) && !share.allow(-0.1) && !share.allow(f64::NAN), "{unit}");
        }
        for unit in
            ["name", "name to class", "ms since the Unix epoch", "vector", "HTTP status", "models; scores; 0..1"]
        {
            assert_eq!(Bounds::of_unit(unit), None, "{unit}");
        }
    }

    #[test]
    fn the_low_end_of_a_propensity_is_outside() {
        let propensity = Bounds::of_unit("(0, 1]").expect("it has bounds");
        assert!(!propensity.allow(0.0) && propensity.allow(1e-300) && propensity.allow(1.0) && !propensity.allow(1.1));
    }

    #[test]
    fn what_passes_can_be_counted_in_smaller_units_without_overflow() {
        let high = |unit| Bounds::of_unit(unit).expect("it has bounds").high;
        let room = i64::MAX as f64 / 1e6;
        assert!(high("ms") * 1e3 < room, "a million of the longest durations, in µs, overflow");
        assert!(high("USD") * 1e9 < i64::MAX as f64 / 1e3, "a thousand of the highest costs, in nano-USD, overflow");
    }
}
