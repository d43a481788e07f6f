//! Newtypes: a wrong unit does not compile.
//!
//! Only [`Propensity`] checks its value when it is built. The others carry what was measured, and the door checks it
//! against the [`crate::Bounds`] of the field's unit.

use serde::{Deserialize, Serialize};

/// A moment in event time: milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventTimeMs(pub i64);

impl EventTimeMs {
    /// The start of the window of `width_ms` milliseconds that this moment falls in (windows start at the epoch).
    #[must_use]
    pub fn window_start(self, width_ms: i64) -> Self {
        Self(self.0.div_euclid(width_ms) * width_ms)
    }
}

/// A number of tokens, as the serving engine counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tokens(pub i32);

/// An amount of money, US dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usd(pub f64);

/// The probability with which the logging policy chose what it chose: a number in (0, 1].
///
/// Zero cannot be built: an action that cannot be taken was not taken, and dividing by it is the classic way to
/// ruin an off-policy estimate.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Propensity(f64);

/// The number was not a probability above zero.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("propensity {0} is not in (0, 1]: log the probability with which the executed choice was drawn")]
pub struct PropensityError(pub f64);

impl Propensity {
    /// Checks and wraps a probability.
    ///
    /// # Errors
    /// When `value` is not in (0, 1].
    pub fn new(value: f64) -> Result<Self, PropensityError> {
        if value > 0.0 && value <= 1.0 { Ok(Self(value)) } else { Err(PropensityError(value)) }
    }

    /// The probability as a number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Propensity {
    type Error = PropensityError;
    fn try_from(value: f64) -> Result<Self, Self::Error> {
        Self::new(value)
    }
}

impl From<Propensity> for f64 {
    fn from(value: Propensity) -> Self {
        value.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_more_than_one_are_not_propensities() {
        for bad in [0.0, -0.1, 1.000_001, f64::NAN, f64::INFINITY] {
            assert!(Propensity::new(bad).is_err(), "{bad} was accepted");
        }
        assert_eq!(Propensity::new(1.0).map(Propensity::get), Ok(1.0));
    }

    #[test]
    fn windows_before_the_epoch_start_before_their_moments() {
        assert_eq!(EventTimeMs(-1).window_start(60_000), EventTimeMs(-60_000));
        assert_eq!(EventTimeMs(59_999).window_start(60_000), EventTimeMs(0));
    }
}
