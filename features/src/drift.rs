//! Have series changed? A monitor that sees their values once per closed window, and whose false alarms are bounded at any
//! time.
//!
//! **Null hypothesis** of a series: since its last change its values are exchangeable, that is, their order says nothing. No
//! distribution is assumed. Each value has a conformal p-value, its rank among those before it; under the null they are
//! independent and uniform (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World"). A
//! bet on small p-values, `f(p) = ε p^(ε - 1)`, has mean 1 under the null, so `M ← (M + 1) f(p)` is an e-detector of Shiryaev
//! and Roberts' form (Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change detection",
//! arXiv 2203.03532): at any stopping time τ, `E[M_τ] <= E[τ]`. A mean of several such is one again.
//!
//! **Many series** are judged together, once a window: with N of them the k largest are discoveries when the k-th is at
//! least `patience * N / k`. Whenever one stops to look, the expected share of false ones among the discoveries, divided by
//! the expected number of windows waited, is at most `1 / patience`, however the series depend on each other (e-d-BH;
//! Dandapanthula and Ramdas, arXiv 2501.04130, which also shows that the share alone cannot be bounded). One series alone
//! runs for `patience` windows on average before a false alarm, at least.
//!
//! A series that follows the clock is not exchangeable: give it less what it was a day before. Values older than four weeks
//! are forgotten, so that beyond them the bounds hold nearly, not exactly.

use std::collections::{BTreeMap, VecDeque};

use xxhash_rust::xxh3::xxh3_64;

/// How hard the bets are: small ones win on large changes, large ones on small changes.
const BETS: [f64; 4] = [0.2, 0.4, 0.6, 0.8];
const SIDES: usize = 2;
/// Values that a new one is compared with, at most: four weeks of ten minutes.
const REFERENCE_MAX: usize = 4_032;

/// What the monitor says of a series after a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The series' e-detector.
    pub statistic: f64,
    /// The change, when it is a discovery. The series' detector begins anew behind it.
    pub change: Option<Change>,
}

/// A change of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// When it most likely began, in the caller's own time.
    pub since: i64,
    /// Mean of the values before, back to the change before that.
    pub before: f64,
    /// Mean of the values since.
    pub after: f64,
}

/// One bet on one side.
#[derive(Debug, Clone, Copy, Default)]
struct Bettor {
    /// The sum over all beginnings, as Shiryaev and Roberts have it.
    sum: f64,
    /// The logarithm of the best beginning's product, and how many values ago it was: Page's CUSUM, which says when.
    best_ln: f64,
    best_values: usize,
}

impl Bettor {
    fn see(&mut self, bet_ln: f64) {
        self.sum = (self.sum + 1.0) * bet_ln.exp();
        if self.best_ln <= 0.0 {
            (self.best_ln, self.best_values) = (0.0, 0);
        }
        self.best_ln += bet_ln;
        self.best_values += 1;
    }
}

/// Detectors of many series, judged together.
#[derive(Debug)]
pub struct Monitor {
    patience: f64,
    detectors: BTreeMap<String, Detector>,
}

impl Monitor {
    /// A monitor whose false discoveries are bounded by this many windows, see the module.
    #[must_use]
    pub fn new(patience: f64) -> Self {
        Self { patience, detectors: BTreeMap::new() }
    }

    /// Sees the values of the next closed window, at most one for each series. What is not a number is not seen.
    pub fn see(&mut self, at: i64, window: &[(&str, f64)]) -> Vec<Option<Reading>> {
        let mut readings: Vec<_> = window
            .iter()
            .map(|(series, value)| {
                if value.is_nan() {
                    return None;
                }
                // Names are few and stay: they are copied once.
                if !self.detectors.contains_key(*series) {
                    self.detectors.insert((*series).to_owned(), Detector::default());
                }
                let statistic = self.detectors.get_mut(*series)?.see(at, *value);
                Some(Reading { statistic, change: None })
            })
            .collect();
        let least = self.least_discovery(readings.iter().flatten().map(|reading| reading.statistic).collect());
        for ((series, _), reading) in window.iter().zip(&mut readings) {
            if let Some(reading) = reading.as_mut().filter(|reading| reading.statistic >= least) {
                // Among equal values ties are drawn, and luck can look like a change: one without a difference is none.
                let change = self.detectors.get_mut(*series).map(Detector::begin_anew);
                reading.change = change.filter(|change| change.before.total_cmp(&change.after).is_ne());
            }
        }
        readings
    }

    /// The smallest statistic that is a discovery; infinite when none is.
    fn least_discovery(&self, mut statistics: Vec<f64>) -> f64 {
        statistics.sort_unstable_by(|a, b| b.total_cmp(a));
        let wanted = |place: usize| self.patience * self.detectors.len() as f64 / (place + 1) as f64;
        let last = statistics.iter().enumerate().rev().find(|(place, statistic)| **statistic >= wanted(*place));
        last.map_or(f64::INFINITY, |(_, statistic)| *statistic)
    }
}

/// The detector of one series.
#[derive(Debug, Default)]
struct Detector {
    /// Values since the last change with their times, oldest first.
    values: VecDeque<(i64, f64)>,
    /// The same values, sorted.
    sorted: Vec<f64>,
    bettors: [[Bettor; BETS.len()]; SIDES],
    /// Values seen in all: ties are broken by it.
    seen: u64,
}

impl Detector {
    /// The e-detector after this value.
    fn see(&mut self, at: i64, value: f64) -> f64 {
        let p = self.p_value(value);
        self.remember(at, value);
        for (side, p) in self.bettors.iter_mut().zip([p, 1.0 - p]) {
            let p_ln = p.max(f64::MIN_POSITIVE).ln();
            for (bettor, bet) in side.iter_mut().zip(BETS) {
                bettor.see(bet.ln() + (bet - 1.0) * p_ln);
            }
        }
        self.bettors.iter().flatten().map(|bettor| bettor.sum).sum::<f64>() / (BETS.len() * SIDES) as f64
    }

    /// The share of values so far, this one included, that are larger; of equal ones a part that is drawn.
    fn p_value(&self, value: f64) -> f64 {
        let below_or_equal = self.sorted.partition_point(|known| known.total_cmp(&value).is_le());
        let below = self.sorted.partition_point(|known| known.total_cmp(&value).is_lt());
        let larger = (self.sorted.len() - below_or_equal) as f64;
        let equal = (below_or_equal - below + 1) as f64;
        // In (0, 1), the same whenever the series is read.
        let drawn = ((xxh3_64(&self.seen.to_le_bytes()) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
        (larger + drawn * equal) / (self.sorted.len() + 1) as f64
    }

    fn remember(&mut self, at: i64, value: f64) {
        self.seen += 1;
        if self.values.len() == REFERENCE_MAX
            && let Some((_, oldest)) = self.values.pop_front()
        {
            let place = self.sorted.partition_point(|known| known.total_cmp(&oldest).is_lt());
            self.sorted.remove(place);
        }
        self.values.push_back((at, value));
        let place = self.sorted.partition_point(|known| known.total_cmp(&value).is_lt());
        self.sorted.insert(place, value);
    }

    /// What came since the change is what later values are compared with.
    fn begin_anew(&mut self) -> Change {
        let bettors = self.bettors.iter().flatten();
        let values = bettors.max_by(|a, b| a.best_ln.total_cmp(&b.best_ln)).map_or(1, |bettor| bettor.best_values);
        let mean = |values: &VecDeque<(i64, f64)>| {
            values.iter().map(|(_, value)| value).sum::<f64>() / values.len().max(1) as f64
        };
        // A bet needs a value to be compared with, so that there is one before.
        let later = self.values.split_off(self.values.len().saturating_sub(values).max(1));
        let before = std::mem::replace(&mut self.values, later);
        self.sorted = self.values.iter().map(|(_, value)| *value).collect();
        self.sorted.sort_unstable_by(f64::total_cmp);
        self.bettors = [[Bettor::default(); BETS.len()]; SIDES];
        let since = self.values.front().or(before.back()).map_or(0, |(at, _)| *at);
        Change { since, before: mean(&before), after: mean(&self.values) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Uniform in (0, 1), by a hash.
    fn uniform(seed: u64, n: u64) -> f64 {
        let bytes = [seed.to_le_bytes(), n.to_le_bytes()].concat();
        ((xxh3_64(&bytes) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// A standard normal, by Box and Muller.
    fn normal(seed: u64, n: u64) -> f64 {
        let (radius, angle) = (uniform(seed, 2 * n), uniform(seed, 2 * n + 1));
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    fn alarms(values: impl IntoIterator<Item = f64>, patience: f64) -> Vec<(i64, Change)> {
        let mut monitor = Monitor::new(patience);
        let change = |(value, at)| Some((at, monitor.see(at, &[("x", value)])[0]?.change?));
        values.into_iter().zip(0..).filter_map(change).collect()
    }

    #[test]
    fn without_a_change_alarms_come_no_more_often_than_is_stated() {
        // Runs end at the first alarm or after ten times the stated length; a run that is cut off counts as that long.
        let windows = 100.0;
        let lengths = (0..400).map(|seed| {
            let run = alarms((0..1_000).map(|n| normal(seed, n)), windows);
            run.first().map_or(1_000.0, |(at, _)| *at as f64 + 1.0)
        });
        let mean = lengths.sum::<f64>() / 400.0;
        assert!(mean >= windows, "the mean run is {mean} windows");
    }

    #[test]
    fn a_step_is_noticed_and_dated_and_what_comes_after_it_is_the_new_normal() {
        let series = (0..600).map(|n| normal(7, n) + if n < 300 { 10.0 } else { 13.0 });
        let found = alarms(series, 4_032.0);
        let [(at, change)] = &found[..] else { panic!("one change, not {found:?}") };
        assert!((300..320).contains(at), "noticed at {at}");
        assert!((296..=304).contains(&change.since), "since {}", change.since);
        assert!((change.before - 10.0).abs() < 0.3 && (change.after - 13.0).abs() < 1.5, "{change:?}");
    }

    #[test]
    fn a_series_that_never_moves_has_not_changed() {
        assert_eq!(alarms((0..5_000).map(|_| 1.0), 100.0), []);
    }

    #[test]
    fn of_many_series_the_one_that_changed_is_found_and_the_others_are_left_alone() {
        let names: Vec<String> = (0..40).map(|n| format!("series {n:02}")).collect();
        let mut monitor = Monitor::new(10_080.0);
        let mut found = Vec::new();
        for at in 0..500_i64 {
            let value = |n: u64| normal(n, at as u64) + if n == 17 && at >= 250 { 4.0 } else { 0.0 };
            let window: Vec<_> = names.iter().zip(0..).map(|(name, n)| (name.as_str(), value(n))).collect();
            let changes = monitor.see(at, &window).into_iter().zip(&names);
            found.extend(changes.filter_map(|(reading, name)| Some((at, name.clone(), reading?.change?.since))));
        }
        let [(at, name, since)] = &found[..] else { panic!("one change, not {found:?}") };
        assert_eq!(name, "series 17");
        assert!((250..280).contains(at) && (247..=253).contains(since), "noticed at {at}, since {since}");
    }

    #[test]
    fn the_procedure_of_benjamini_and_hochberg_takes_the_largest_that_suffice() {
        let mut monitor = Monitor::new(10.0);
        monitor.detectors = ["a", "b", "c", "d"].map(|name| (name.to_owned(), Detector::default())).into();
        // 10 * 4 / k: 40, 20, 13.3, 10.
        assert_eq!(monitor.least_discovery(vec![39.0, 5.0, 1.0, 0.0]), f64::INFINITY);
        assert_eq!(monitor.least_discovery(vec![41.0, 5.0, 1.0, 0.0]), 41.0);
        // The second suffices for two, so the first does too, though it lies below 40.
        assert_eq!(monitor.least_discovery(vec![21.0, 30.0, 1.0, 12.0]), 21.0);
        assert_eq!(monitor.least_discovery(vec![10.0, 10.0, 10.0, 10.0]), 10.0);
    }

    proptest! {
        #[test]
        fn a_change_of_scale_or_sign_changes_no_alarm(seed in 0..50_u64, at in 20..120_u64, by in 1.0..6.0_f64) {
            let series = |n: u64| normal(seed, n) + if n < at { 0.0 } else { by };
            let when = |scale: f64| alarms((0..200).map(|n| scale * series(n)), 500.0).into_iter().map(|(at, _)| at).collect::<Vec<_>>();
            prop_assert_eq!(when(1.0), when(1_024.0));
        }

        #[test]
        fn any_numbers_are_taken(values in prop::collection::vec(any::<f64>(), 0..200)) {
            let mut monitor = Monitor::new(50.0);
            for (at, value) in values.into_iter().enumerate() {
                let reading = monitor.see(at as i64, &[("x", value)])[0];
                prop_assert_eq!(reading.is_none(), value.is_nan());
                prop_assert!(reading.is_none_or(|reading| reading.statistic >= 0.0));
            }
        }
    }
}
