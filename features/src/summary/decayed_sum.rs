//! Sums that forget: what lies a half-life back counts half.
//!
//! Decay is by event time and from the moment that is asked about (forward decay: Cormode, Shkapenyuk, Srivastava, Xu,
//! "Forward decay: a practical time decay model for streaming systems", ICDE 2009). A running sum that is multiplied as
//! time goes on depends on the order of events and on rounding; this one keeps whole sums by slots of an eighth of a
//! half-life, with their first moments in time, and weighs them when it is read.

use std::collections::BTreeMap;
use std::f64::consts::LN_2;

use super::Summary;
use super::setting::{OfOneSetting, Set};
use super::varint::{Reader, put, put_signed, put_signed_128};

/// Slots in a half-life.
const SLOTS: i64 = 8;
/// What lies this many half-lives before the newest event has a weight below 2^-16, and is forgotten.
const HALF_LIVES: i64 = 16;

/// An exponentially decayed sum of whole numbers.
pub type DecayedSum = OfOneSetting<Slots>;

/// Whole sums by slots of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    half_life_ms: i64,
    slots: BTreeMap<i64, Slot>,
}

/// Additions wrap: that is associative, and sums of 64-bit values do not reach 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Slot {
    sum: i128,
    /// Of value times ms since the slot's start.
    moment: i128,
}

impl DecayedSum {
    /// [`Self::at`] is within this share of the sum of the values' own weights.
    pub const RELATIVE_ERROR: f64 = 0.001;
    /// The shortest half-life, ms; shorter ones are taken for it.
    pub const HALF_LIFE_MIN_MS: i64 = 1_000;

    /// Sees one value at its event time. The half-life is the same at every call.
    pub fn insert(&mut self, value: i64, event_ms: i64, half_life_ms: i64) {
        let half_life_ms = half_life_ms.max(Self::HALF_LIFE_MIN_MS);
        match self {
            OfOneSetting::One(slots) if slots.half_life_ms == half_life_ms => slots.add(value, event_ms),
            seen => {
                let mut slots = Slots { half_life_ms, slots: BTreeMap::new() };
                slots.add(value, event_ms);
                seen.merge(&OfOneSetting::One(slots));
            }
        }
    }

    /// The sum as it weighs at `at_ms`, `Σ x 2^(-(at - t) / half-life)`; 0 when nothing was seen, `None` when half-lives
    /// differed.
    #[must_use]
    pub fn at(&self, at_ms: i64) -> Option<f64> {
        match self {
            OfOneSetting::Nothing => Some(0.0),
            OfOneSetting::One(slots) => Some(slots.at(at_ms)),
            OfOneSetting::Mixed => None,
        }
    }
}

impl Slots {
    fn width_ms(&self) -> i64 {
        self.half_life_ms.div_euclid(SLOTS)
    }

    fn add(&mut self, value: i64, event_ms: i64) {
        let number = event_ms.div_euclid(self.width_ms());
        let into_ms = event_ms.rem_euclid(self.width_ms());
        let slot = Slot { sum: value.into(), moment: i128::from(value).wrapping_mul(into_ms.into()) };
        self.add_slot(number, slot);
        self.forget();
    }

    fn add_slot(&mut self, number: i64, slot: Slot) {
        let mine = self.slots.entry(number).or_default();
        mine.sum = mine.sum.wrapping_add(slot.sum);
        mine.moment = mine.moment.wrapping_add(slot.moment);
    }

    /// The newest slot only moves on, so whatever was forgotten before a merge would be forgotten after it.
    fn forget(&mut self) {
        let Some((&newest, _)) = self.slots.last_key_value() else { return };
        let first_kept = newest.saturating_sub(SLOTS * HALF_LIVES - 1);
        if self.slots.first_key_value().is_some_and(|(&oldest, _)| oldest < first_kept) {
            self.slots = self.slots.split_off(&first_kept);
        }
    }

    /// Each slot's weight is that of its middle, corrected to first order by where in it the values lie; what is left out
    /// is at most `(w ln 2 / 2 h)² / 2` for slots of width `w`, below 0.1 %.
    fn at(&self, at_ms: i64) -> f64 {
        let (width, half_life) = (self.width_ms() as f64, self.half_life_ms as f64);
        let slots = self.slots.iter().map(|(number, slot)| {
            let middle = (*number as f64 + 0.5) * width;
            let weight = (-(at_ms as f64 - middle) / half_life).exp2();
            weight * (slot.sum as f64 + (slot.moment as f64 - slot.sum as f64 * width / 2.0) * LN_2 / half_life)
        });
        slots.sum()
    }
}

impl Set for Slots {
    const NAME: &'static str = "decayed sum";

    fn has_the_setting_of(&self, other: &Self) -> bool {
        self.half_life_ms == other.half_life_ms
    }

    fn merge(&mut self, other: &Self) {
        other.slots.iter().for_each(|(number, slot)| self.add_slot(*number, *slot));
        self.forget();
    }

    // half-life, number of slots, the first slot's number, its sum and moment, (gap - 1, sum, moment)*
    fn put(&self, out: &mut Vec<u8>) {
        put_signed(out, self.half_life_ms);
        put(out, self.slots.len() as u128);
        let mut before = None;
        for (&number, slot) in &self.slots {
            match before {
                None => put_signed(out, number),
                Some(before) => put(out, u128::from(number.abs_diff(before) - 1)),
            }
            put_signed_128(out, slot.sum);
            put_signed_128(out, slot.moment);
            before = Some(number);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let half_life_ms = reader.signed().filter(|ms| *ms >= DecayedSum::HALF_LIFE_MIN_MS)?;
        let mut read = Self { half_life_ms, slots: BTreeMap::new() };
        let mut before: Option<i64> = None;
        for _ in 0..reader.u64().filter(|slots| (1..=(SLOTS * HALF_LIVES) as u64).contains(slots))? {
            let number = match before {
                None => reader.signed()?,
                Some(before) => before.checked_add_unsigned(reader.u64()?.checked_add(1)?)?,
            };
            read.slots.insert(number, Slot { sum: reader.signed_128()?, moment: reader.signed_128()? });
            before = Some(number);
        }
        let slots = read.slots.len();
        read.forget();
        (read.slots.len() == slots).then_some(read)
    }

    fn heap_bytes(&self) -> usize {
        self.slots.len() * 48
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn what_lies_a_half_life_back_counts_half() {
        let mut sum = DecayedSum::default();
        sum.insert(1_000, 10 * HOUR_MS, HOUR_MS);
        let at = |hours| sum.at(hours * HOUR_MS).unwrap();
        for (hours, exact) in [(10, 1_000.0), (11, 500.0), (13, 125.0)] {
            assert!((at(hours) / exact - 1.0).abs() < DecayedSum::RELATIVE_ERROR, "{hours}: {}", at(hours));
        }
        sum.insert(1, 0, 2 * HOUR_MS);
        assert_eq!(sum.at(0), None, "half-lives that differ");
    }

    proptest! {
        // The plain sum over events, in floating point, is the other implementation.
        #[test]
        fn it_is_the_sum_of_the_weights(events in prop::collection::vec((1i64..1_000, 0i64..10 * HOUR_MS), 1..60)) {
            let mut sum = DecayedSum::default();
            events.iter().for_each(|(value, at_ms)| sum.insert(*value, *at_ms, HOUR_MS));
            let at_ms = 10 * HOUR_MS;
            let weight = |ms: i64| (-(at_ms - ms) as f64 / HOUR_MS as f64).exp2();
            let exact: f64 = events.iter().map(|(value, ms)| *value as f64 * weight(*ms)).sum();
            let found = sum.at(at_ms).unwrap();
            prop_assert!((found / exact - 1.0).abs() < DecayedSum::RELATIVE_ERROR, "{found} for {exact}");
        }
    }
}
