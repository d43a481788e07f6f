//! Yes and no, and what they say about a rate.

use statrs::distribution::{Beta, ContinuousCDF};

use super::Summary;
use super::varint::{Reader, put};

/// How often yes and how often no: with a Beta prior, all that is known of the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BetaCounts {
    yes: u64,
    no: u64,
}

impl BetaCounts {
    /// Both parameters of the prior, Jeffreys': half a yes and half a no.
    pub const PRIOR: f64 = 0.5;

    /// Sees one answer.
    pub fn insert(&mut self, yes: bool) {
        let count = if yes { &mut self.yes } else { &mut self.no };
        *count = count.saturating_add(1);
    }

    /// How often yes, and how often no.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.yes, self.no)
    }

    /// The observed rate of yes; `None` when empty.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.yes as f64 / (self.yes as f64 + self.no as f64))
    }

    /// Quantile `q` of the rate, after these answers and Jeffreys' prior; `q` at 0.025 and 0.975 are a credible interval
    /// of 95 %. `None` when empty or when `q` is not in 0..=1.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.is_empty() || !(0.0..=1.0).contains(&q) {
            return None;
        }
        let posterior = Beta::new(self.yes as f64 + Self::PRIOR, self.no as f64 + Self::PRIOR).ok()?;
        Some(posterior.inverse_cdf(q))
    }
}

impl Summary for BetaCounts {
    const NAME: &'static str = "beta counts";

    fn merge(&mut self, other: &Self) {
        self.yes = self.yes.saturating_add(other.yes);
        self.no = self.no.saturating_add(other.no);
    }

    // version, yes, no
    fn put(&self, out: &mut Vec<u8>) {
        put(out, u128::from(self.yes));
        put(out, u128::from(self.no));
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { yes: reader.u64()?, no: reader.u64()? })
    }

    fn is_empty(&self) -> bool {
        (self.yes, self.no) == (0, 0)
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(yes: u64, no: u64) -> BetaCounts {
        BetaCounts { yes, no }
    }

    /// Beta(1/2, 1/2) has the distribution function `2/π asin(sqrt(x))`; one more yes gives Beta(3/2, 1/2), whose is that
    /// less `2/π sqrt(x (1 - x))`.
    #[test]
    fn quantiles_invert_the_closed_form_of_one_answer() {
        for q in [0.025, 0.2, 0.5, 0.9, 0.975] {
            let x = of(1, 0).quantile(q).unwrap();
            let cdf = std::f64::consts::FRAC_2_PI * (x.sqrt().asin() - (x * (1.0 - x)).sqrt());
            assert!((cdf - q).abs() < 1e-9, "{q}: {x} has {cdf}");
        }
    }

    #[test]
    fn an_interval_narrows_as_answers_come_and_holds_the_rate() {
        let width = |n: u64| of(3 * n, 7 * n).quantile(0.975).unwrap() - of(3 * n, 7 * n).quantile(0.025).unwrap();
        assert!(width(1) > width(10) && width(10) > width(1_000));
        let (low, high) = (of(30, 70).quantile(0.025).unwrap(), of(30, 70).quantile(0.975).unwrap());
        assert!(low < 0.3 && 0.3 < high);
        assert_eq!(of(0, 0).quantile(0.5), None);
        assert_eq!(of(3, 1).rate(), Some(0.75));
    }
}
