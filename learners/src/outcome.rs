//! What "better" means to an operator: weights of the parts of an outcome, how much worse each may become, and by how much a policy has
//! to gain.
//!
//! A file, signed, so that a verdict can be traced to who said what it weighs. No weight is a constant of ours.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use weir_policy_runtime::Objective;

use crate::error::{LearnError, Result};
use crate::training_set::Sample;

/// A part of a request's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What whoever used the answer says of it, 0 to 1; more is better.
    Quality,
    /// What it cost, US dollars.
    Usd,
    /// From arrival to the last token, seconds.
    LatencyS,
    /// 1 where a check found a hallucination, 0 where one found none; unknown where none looked.
    Hallucination,
    /// 1 where the request or its answer was blocked or called unsafe, 0 where its status says that it was not, or someone that it was
    /// safe.
    Unsafe,
    /// Energy of the GPUs, watt-hours, where routers report it.
    EnergyWh,
}

impl Part {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 6] =
        [Self::Quality, Self::Usd, Self::LatencyS, Self::Hallucination, Self::Unsafe, Self::EnergyWh];

    /// Its name in files and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quality => "quality",
            Self::Usd => "usd",
            Self::LatencyS => "latency_s",
            Self::Hallucination => "hallucination",
            Self::Unsafe => "unsafe",
            Self::EnergyWh => "energy_wh",
        }
    }

    /// Its name in a sentence.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Quality => "quality",
            Self::Usd => "USD",
            Self::LatencyS => "latency (s)",
            Self::Hallucination => "hallucinations",
            Self::Unsafe => "unsafe answers",
            Self::EnergyWh => "energy (Wh)",
        }
    }

    /// 1 where more is better, -1 where less is.
    #[must_use]
    pub fn sign(self) -> f64 {
        if self == Self::Quality { 1.0 } else { -1.0 }
    }

    /// What was observed of it.
    #[must_use]
    pub fn of(self, sample: &Sample) -> Option<f64> {
        match self {
            Self::Quality => sample.quality,
            Self::Usd => sample.cost_usd,
            Self::LatencyS => sample.latency_s,
            Self::Hallucination => sample.hallucination,
            Self::Unsafe => sample.is_unsafe,
            Self::EnergyWh => sample.energy_wh,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A weight beyond this is a slip: a value and its square have to stay numbers.
pub const WEIGHT_MAX: f64 = 1e9;

/// What is maximised, and what must not become worse.
///
/// `value = weights.quality · quality - Σ weights.part · part` over the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// Value of a unit of each part; what is left out weighs nothing.
    pub weights: BTreeMap<Part, f64>,
    /// By how many units each part may become worse on average. A policy is only better if the logs show that it keeps them.
    #[serde(default)]
    pub guardrails: BTreeMap<Part, f64>,
    /// A policy is only better if it gains more than this, in units of value.
    #[serde(default)]
    pub margin: f64,
}

impl Outcome {
    /// Reads the file's text, TOML.
    ///
    /// # Errors
    /// [`LearnError::BadOutcome`] when it is none, or a number makes no sense.
    pub fn from_toml(text: &str) -> Result<Self> {
        let outcome: Self = toml::from_str(text)
            .map_err(|error| LearnError::BadOutcome(format!("it is not understood: {}", error.message())))?;
        outcome.checked()
    }

    fn checked(self) -> Result<Self> {
        let wrong = |what: String| Err(LearnError::BadOutcome(what));
        let numbers = self.weights.iter().map(|entry| ("weights", entry));
        for (table, (part, number)) in numbers.chain(self.guardrails.iter().map(|entry| ("guardrails", entry))) {
            if !(0.0..=WEIGHT_MAX).contains(number) {
                return wrong(format!(
                    "{table}.{part} is {number}: give a number from 0 to {WEIGHT_MAX}; what costs is subtracted"
                ));
            }
        }
        if !(0.0..=WEIGHT_MAX).contains(&self.margin) {
            return wrong(format!("margin is {}: give a number from 0 to {WEIGHT_MAX}", self.margin));
        }
        if self.weights.values().all(|weight| *weight == 0.0) {
            return wrong("no part weighs anything: give weights.quality at least".to_owned());
        }
        Ok(self)
    }

    /// The weight of a part.
    #[must_use]
    pub fn weight(&self, part: Part) -> f64 {
        self.weights.get(&part).copied().unwrap_or_default()
    }

    /// Parts that weigh something or have a guardrail.
    pub fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        Part::ALL.into_iter().filter(|part| self.weight(*part) > 0.0 || self.guardrails.contains_key(part))
    }

    /// Does it look at risk, for which all outcomes have to be read?
    #[must_use]
    pub fn looks_at_risk(&self) -> bool {
        self.parts().any(|part| matches!(part, Part::Hallucination | Part::Unsafe))
    }

    /// The value that followed a decision; `None` where a part that weighs something is missing.
    #[must_use]
    pub fn value(&self, sample: &Sample) -> Option<f64> {
        let weighed = Part::ALL.into_iter().filter(|part| self.weight(*part) > 0.0);
        weighed.map(|part| Some(part.sign() * self.weight(part) * part.of(sample)?)).sum()
    }

    /// Why no decision has a value: how many of them have each part that weighs something.
    pub(crate) fn what_is_missing(&self, samples: &[Sample]) -> String {
        let weighed = Part::ALL.into_iter().filter(|part| self.weight(*part) > 0.0);
        let count = |part: Part| samples.iter().filter(|sample| part.of(sample).is_some()).count();
        let found: Vec<String> = weighed.map(|part| format!("{} with {}", count(part), part.in_words())).collect();
        format!(
            "no decision has all the parts that the outcome weighs: of {}, {}; have the router report what is missing (feedback is \
             quality), or leave it out of the outcome",
            samples.len(),
            found.join(", ")
        )
    }

    /// What a policy foresees of it when it decides: quality, and a [price](Self::price).
    #[must_use]
    pub fn objective(&self) -> Objective {
        Objective { quality: self.weight(Part::Quality), usd: if self.has_price() { self.dollar() } else { 0.0 } }
    }

    /// Everything but quality that a decision cost, in dollars: seconds, watt-hours and mishaps at what the weights say that they are worth
    /// beside a dollar. `None` where a part that weighs something is missing. Where dollars weigh nothing, the unit is that of the value.
    #[must_use]
    pub fn price(&self, sample: &Sample) -> Option<f64> {
        self.priced().map(|part| Some(self.weight(part) / self.dollar() * part.of(sample)?)).sum()
    }

    /// Is a price more than the dollars that were paid?
    #[must_use]
    pub fn prices_more_than_money(&self) -> bool {
        self.priced().any(|part| part != Part::Usd)
    }

    /// The same outcome where a dollar is worth `usd`, and seconds and watt-hours as much more or less as it is.
    pub(crate) fn with_dollar_worth(&self, usd: f64) -> Self {
        let mut outcome = self.clone();
        let factor = usd / self.dollar();
        for part in self.priced().collect::<Vec<_>>() {
            outcome.weights.insert(part, self.weight(part) * factor);
        }
        if !self.has_price() {
            outcome.weights.insert(Part::Usd, usd);
        }
        outcome
    }

    fn has_price(&self) -> bool {
        self.priced().next().is_some()
    }

    fn priced(&self) -> impl Iterator<Item = Part> + '_ {
        Part::ALL.into_iter().filter(|part| *part != Part::Quality && self.weight(*part) > 0.0)
    }

    /// Value of a dollar; 1 where dollars weigh nothing.
    fn dollar(&self) -> f64 {
        let dollar = self.weight(Part::Usd);
        if dollar > 0.0 { dollar } else { 1.0 }
    }
}

/// Quality alone.
impl Default for Outcome {
    fn default() -> Self {
        Objective { quality: 1.0, usd: 0.0 }.into()
    }
}

impl From<Objective> for Outcome {
    fn from(objective: Objective) -> Self {
        let weights = BTreeMap::from([(Part::Quality, objective.quality), (Part::Usd, objective.usd)]);
        Self { name: String::new(), weights, guardrails: BTreeMap::new(), margin: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "name = \"support\"\nmargin = 0.01\n[weights]\nquality = 1.0\nusd = 15\nlatency_s = 0.02\n[guardrails]\nunsafe = 0.005\n";

    #[test]
    fn what_no_decision_has_is_named() {
        let outcome = Outcome::from_toml(FILE).unwrap();
        let samples = [Sample { quality: Some(0.8), cost_usd: Some(0.01), ..Sample::default() }, Sample::default()];
        let said = outcome.what_is_missing(&samples);
        assert!(said.contains("of 2, 1 with quality, 1 with USD, 0 with latency (s);"), "{said}");
        assert!(Outcome::from_toml(&FILE.replace("15", "1e10")).is_err());
    }

    #[test]
    fn a_file_says_what_a_decision_was_worth() {
        let outcome = Outcome::from_toml(FILE).unwrap();
        let sample = Sample { quality: Some(0.8), cost_usd: Some(0.01), latency_s: Some(5.0), ..Sample::default() };
        // 0.8 - 15 · 0.01 - 0.02 · 5
        assert!((outcome.value(&sample).unwrap() - 0.55).abs() < 1e-12);
        assert_eq!(outcome.value(&Sample { latency_s: None, ..sample.clone() }), None, "what is missing is missing");
        assert_eq!(outcome.parts().collect::<Vec<_>>(), [Part::Quality, Part::Usd, Part::LatencyS, Part::Unsafe]);
        assert_eq!(outcome.objective(), Objective { quality: 1.0, usd: 15.0 });
        // A second is worth 0.02 / 15 dollars; what is foreseen adds up to what is judged.
        let price = outcome.price(&sample).unwrap();
        assert!((price - (0.01 + 5.0 * 0.02 / 15.0)).abs() < 1e-12 && outcome.prices_more_than_money());
        assert!((outcome.objective().utility(0.8, price) - 0.55).abs() < 1e-12);
    }

    #[test]
    fn energy_can_be_all_that_costs() {
        let outcome = Outcome::from_toml("[weights]\nquality = 2\nenergy_wh = 0.5").unwrap();
        let sample = Sample { quality: Some(1.0), cost_usd: Some(9.0), energy_wh: Some(0.4), ..Sample::default() };
        assert_eq!(outcome.objective(), Objective { quality: 2.0, usd: 1.0 });
        assert_eq!(outcome.price(&sample), Some(0.2), "half a unit a watt-hour, and dollars count for nothing");
        assert_eq!(Outcome::from(Objective { quality: 1.0, usd: 0.0 }).objective().usd, 0.0);
    }

    #[test]
    fn files_that_make_no_sense_are_refused_with_what_to_give() {
        for (text, why) in [
            ("[weights]\nquality = -1", "weights.quality is -1"),
            ("[weights]\nusd = 0", "no part weighs anything"),
            ("[weights]\nbeauty = 1", "beauty"),
            ("margin = nan\n[weights]\nquality = 1", "margin"),
            ("[weights]\nquality = 1\n[guardrails]\nusd = inf", "guardrails.usd"),
            ("weights = 3", "not understood"),
        ] {
            let said = Outcome::from_toml(text).unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
