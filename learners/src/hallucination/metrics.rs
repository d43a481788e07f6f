//! How well a score separates hallucinated responses from faithful ones.

use serde::{Deserialize, Serialize};

/// Detection metrics of one score on one set of labelled responses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DetectionMetrics {
    /// Responses.
    pub rows: usize,
    /// Share that is hallucinated.
    pub positive_share: f64,
    /// Area under the ROC curve: probability that a hallucinated response scores above a faithful one, ties half.
    pub auroc: f64,
    /// Average precision, `Σ (R_k - R_{k-1}) P_k` over distinct scores.
    pub auprc: f64,
    /// F1 of the hallucinated class at the threshold.
    pub f1: f64,
    /// Mean squared error of the score as a probability.
    pub brier: f64,
    /// Expected calibration error over ten bins of equal width.
    pub calibration_error: f64,
}

/// Metrics of `scores` against `labels` (true is hallucinated), with F1 at `threshold`.
#[must_use]
pub fn detection_metrics(scores: &[f64], labels: &[bool], threshold: f64) -> DetectionMetrics {
    let positives = labels.iter().filter(|label| **label).count();
    let rows = labels.len();
    let (auroc, auprc) = areas(scores, labels);
    let brier: f64 = scores.iter().zip(labels).map(|(p, label)| (p - f64::from(u8::from(*label))).powi(2)).sum();
    DetectionMetrics {
        rows,
        positive_share: positives as f64 / rows.max(1) as f64,
        auroc,
        auprc,
        f1: f1_at(scores, labels, threshold),
        brier: brier / rows.max(1) as f64,
        calibration_error: calibration_error(scores, labels.iter().map(|label| f64::from(u8::from(*label)))),
    }
}

/// F1 of the hallucinated class when scores at or above `threshold` are called hallucinated.
pub(super) fn f1_at(scores: &[f64], labels: &[bool], threshold: f64) -> f64 {
    let (mut hit, mut false_alarm, mut missed) = (0.0, 0.0, 0.0);
    for (score, label) in scores.iter().zip(labels) {
        match (*score >= threshold, label) {
            (true, true) => hit += 1.0,
            (true, false) => false_alarm += 1.0,
            (false, true) => missed += 1.0,
            (false, false) => {}
        }
    }
    if hit > 0.0 { 2.0 * hit / (2.0 * hit + false_alarm + missed) } else { 0.0 }
}

/// The threshold with the best F1.
pub(super) fn best_threshold(scores: &[f64], labels: &[bool]) -> f64 {
    let mut candidates = scores.to_vec();
    candidates.sort_by(f64::total_cmp);
    candidates.dedup();
    let step = (candidates.len() / 200).max(1);
    let f1 = |threshold: &f64| f1_at(scores, labels, *threshold);
    candidates.into_iter().step_by(step).max_by(|a, b| f1(a).total_cmp(&f1(b))).unwrap_or(0.5)
}

fn areas(scores: &[f64], labels: &[bool]) -> (f64, f64) {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let positives = labels.iter().filter(|label| **label).count() as f64;
    let negatives = labels.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return (0.5, positives / labels.len().max(1) as f64);
    }
    let (mut hits, mut alarms, mut auroc, mut auprc) = (0.0, 0.0, 0.0, 0.0);
    let mut start = 0;
    while start < order.len() {
        let tied = order[start..].iter().take_while(|index| scores[**index] == scores[order[start]]).count();
        let tied_hits = order[start..start + tied].iter().filter(|index| labels[**index]).count() as f64;
        let tied_alarms = tied as f64 - tied_hits;
        auroc += tied_alarms * (hits + tied_hits / 2.0);
        hits += tied_hits;
        alarms += tied_alarms;
        auprc += tied_hits / positives * hits / (hits + alarms);
        start += tied;
    }
    (auroc / (positives * negatives), auprc)
}

/// Expected calibration error of `scores` as guesses of `outcomes`, both in [0, 1], over ten bins of equal width.
pub(crate) fn calibration_error(scores: &[f64], outcomes: impl Iterator<Item = f64>) -> f64 {
    let mut bins = [(0.0, 0.0); 10];
    for (score, outcome) in scores.iter().zip(outcomes) {
        let bin = &mut bins[((score * 10.0) as usize).min(9)];
        bin.0 += score;
        bin.1 += outcome;
    }
    let gaps: f64 = bins.iter().map(|(score, outcome)| (score - outcome).abs()).sum();
    gaps / scores.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_agree_with_counting_by_hand() {
        // Pairs (hallucinated, faithful): 0.9>0.8, 0.9>0.1, 0.4<0.8, 0.4>0.1: three of four.
        // Precision at the hits: 1/1 and 2/3, each for half the recall.
        let metrics = detection_metrics(&[0.9, 0.8, 0.4, 0.1], &[true, false, true, false], 0.5);
        assert!((metrics.auroc - 0.75).abs() < 1e-12);
        assert!((metrics.auprc - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-12);
        assert!((metrics.f1 - 0.5).abs() < 1e-12);
        assert!((metrics.brier - (0.01 + 0.64 + 0.36 + 0.01) / 4.0).abs() < 1e-12);
    }

    #[test]
    fn a_constant_score_is_worth_a_coin() {
        let metrics = detection_metrics(&[0.5; 4], &[true, false, true, true], 0.5);
        assert!((metrics.auroc - 0.5).abs() < 1e-12);
        assert!((metrics.auprc - 0.75).abs() < 1e-12);
    }
}
