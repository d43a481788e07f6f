//! How long answers get: completion-length quantiles by domain, for routing by expected length and sizing pools.
//!
//! A quantile `q` of level `τ` is judged by its pinball loss `mean(max(τ (y - q), (τ - 1) (y - q)))` (Koenker and Bassett
//! 1978) on later traffic, beside quantiles that ignore the domain.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{LearnError, Result};
use crate::report::EstimatorSummary;
use crate::training_set::{Sample, TrainingSet};

/// The levels that are estimated.
pub const LEVELS: [f64; 3] = [0.5, 0.75, 0.9];
/// A domain with fewer completions than this is left to the global quantiles: its P90 would rest on a handful.
const DOMAIN_ROWS_MIN: usize = 50;
/// Where the split between fitting and judging lies, as a share of the completions in order of arrival.
const FIT_SHARE: f64 = 0.7;

/// Quantiles of the completion length, tokens, at [`LEVELS`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Completions that they were taken from.
    pub rows: usize,
    /// Median, tokens.
    pub p50: f64,
    /// 75th percentile, tokens.
    pub p75: f64,
    /// 90th percentile, tokens.
    pub p90: f64,
}

/// Judgement of one level on later traffic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LevelMetrics {
    /// The level.
    pub level: f64,
    /// Pinball loss of the domain quantiles, tokens.
    pub pinball_tokens: f64,
    /// Pinball loss of the global quantile, tokens.
    pub pinball_tokens_global: f64,
    /// Share of later completions at or under the domain quantile; should be the level.
    pub covered: f64,
    /// The same for the global quantile.
    pub covered_global: f64,
}

/// `knobs/output_length.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputLength {
    /// Quantiles of all completions.
    pub global: Quantiles,
    /// Quantiles by domain, where there are enough completions.
    pub domains: BTreeMap<String, Quantiles>,
    /// Judgement on the last 30 % of the completions, of quantiles fitted on the rest.
    pub judged: Vec<LevelMetrics>,
    /// Completions judged on.
    pub judged_rows: usize,
}

impl OutputLength {
    /// Where a bundle keeps it.
    pub const FILE: &'static str = "knobs/output_length.json";

    /// How the quantiles do on later traffic beside those that ignore the domain, as a candidate's report shows them.
    #[must_use]
    pub fn summary(&self) -> EstimatorSummary {
        let shown = |of: fn(&LevelMetrics) -> [f64; 2]| {
            let of_level = |judged: &LevelMetrics| {
                let percent = judged.level * 100.0;
                let [pinball_tokens, covered] = of(judged);
                [(format!("p{percent:.0}_pinball_tokens"), pinball_tokens), (format!("p{percent:.0}_covered"), covered)]
            };
            self.judged.iter().flat_map(of_level).collect()
        };
        EstimatorSummary {
            artifact: Self::FILE.to_owned(),
            metrics: BTreeMap::from([
                ("by domain".to_owned(), shown(|m| [m.pinball_tokens, m.covered])),
                ("one for all".to_owned(), shown(|m| [m.pinball_tokens_global, m.covered_global])),
            ]),
        }
    }

    /// Canonical JSON.
    ///
    /// # Errors
    /// Never, as all numbers are finite.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_value(self).map(|value| weir_policy_runtime::canonical_json(&value))
    }
}

/// Fits quantiles on all completions, and judges the method by a split in time.
///
/// # Errors
/// When no request has a completion length.
pub fn fit_output_length(set: &TrainingSet) -> Result<OutputLength> {
    let mut rows: Vec<&Sample> = set.samples.iter().filter(|sample| sample.completion_tokens.is_some()).collect();
    if rows.is_empty() {
        return Err(LearnError::NotEnoughData("no request has a completion length".to_owned()));
    }
    rows.sort_by_key(|sample| sample.time_ms);
    let (before, after) = rows.split_at((rows.len() as f64 * FIT_SHARE).ceil() as usize);
    let (global, domains) = fit(before);
    let judged = LEVELS.iter().enumerate().map(|(index, &level)| judge(level, index, after, &global, &domains));
    let judged = if after.is_empty() { Vec::new() } else { judged.collect() };
    let (global, domains) = fit(&rows);
    Ok(OutputLength { global, domains, judged, judged_rows: after.len() })
}

fn fit(rows: &[&Sample]) -> (Quantiles, BTreeMap<String, Quantiles>) {
    let mut by_domain: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    let mut all = Vec::with_capacity(rows.len());
    for sample in rows {
        let Some(tokens) = sample.completion_tokens else { continue };
        all.push(tokens);
        if let Some(domain) = &sample.context.domain {
            by_domain.entry(domain).or_default().push(tokens);
        }
    }
    let domains = by_domain
        .into_iter()
        .filter(|(_, lengths)| lengths.len() >= DOMAIN_ROWS_MIN)
        .map(|(domain, lengths)| (domain.to_owned(), quantiles(lengths)))
        .collect();
    (quantiles(all), domains)
}

fn quantiles(mut lengths: Vec<u32>) -> Quantiles {
    lengths.sort_unstable();
    // The smallest length that at least a share `level` of the completions does not exceed.
    let at = |level: f64| {
        let rank = (level * lengths.len() as f64).ceil() as usize;
        f64::from(lengths[rank.clamp(1, lengths.len()) - 1])
    };
    Quantiles { rows: lengths.len(), p50: at(LEVELS[0]), p75: at(LEVELS[1]), p90: at(LEVELS[2]) }
}

fn judge(
    level: f64,
    index: usize,
    rows: &[&Sample],
    global: &Quantiles,
    domains: &BTreeMap<String, Quantiles>,
) -> LevelMetrics {
    let pick = |quantiles: &Quantiles| [quantiles.p50, quantiles.p75, quantiles.p90][index];
    let mut sums = [0.0; 4];
    for sample in rows {
        let tokens = f64::from(sample.completion_tokens.unwrap_or(0));
        let own = sample.context.domain.as_ref().and_then(|domain| domains.get(domain)).unwrap_or(global);
        let terms = [
            pinball(level, tokens, pick(own)),
            pinball(level, tokens, pick(global)),
            f64::from(u8::from(tokens <= pick(own))),
            f64::from(u8::from(tokens <= pick(global))),
        ];
        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
    }
    let [pinball_tokens, pinball_tokens_global, covered, covered_global] = sums.map(|sum| sum / rows.len() as f64);
    LevelMetrics { level, pinball_tokens, pinball_tokens_global, covered, covered_global }
}

fn pinball(level: f64, observed: f64, quantile: f64) -> f64 {
    let gap = observed - quantile;
    (level * gap).max((level - 1.0) * gap)
}

#[cfg(test)]
mod tests {
    use weir_policy_runtime::OwnedContext;

    use super::*;

    fn completion(domain: &str, tokens: u32, time_ms: i64) -> Sample {
        Sample {
            context: OwnedContext { domain: Some(domain.to_owned()), ..OwnedContext::default() },
            action: 0,
            executed_as_intended: true,
            completion_tokens: Some(tokens),
            cluster: time_ms.to_string(),
            time_ms,
            ..Sample::default()
        }
    }

    #[test]
    fn quantiles_of_one_to_a_hundred_are_fifty_seventy_five_and_ninety() {
        let found = quantiles((1..=100).rev().collect());
        assert_eq!((found.p50, found.p75, found.p90), (50.0, 75.0, 90.0));
    }

    #[test]
    fn a_domain_of_its_own_length_is_predicted_better_than_by_the_global_quantile() {
        // Code answers are ten times as long; lengths cycle, so the closed-form quantiles are 1..=100 and 10..=1000.
        let samples = (0..2000)
            .map(|i| {
                let step = (i as u32 / 2) % 100 + 1;
                if i % 2 == 0 { completion("chat", step, i) } else { completion("code", 10 * step, i) }
            })
            .collect();
        let fitted = fit_output_length(&TrainingSet { samples, ..TrainingSet::default() }).unwrap();
        assert_eq!(fitted.domains["chat"].p90, 90.0);
        assert_eq!(fitted.domains["code"].p50, 500.0);
        for level in &fitted.judged {
            assert!(level.pinball_tokens < 0.8 * level.pinball_tokens_global, "{level:?}");
            assert!((level.covered - level.level).abs() < 0.01, "{level:?}");
        }
    }

    #[test]
    fn the_pinball_loss_weighs_misses_by_the_level() {
        // By hand: 10 tokens over a P90 cost 9, 10 under cost 1.
        assert!((pinball(0.9, 110.0, 100.0) - 9.0).abs() < 1e-12);
        assert!((pinball(0.9, 90.0, 100.0) - 1.0).abs() < 1e-12);
    }
}
