//! Figures of a router on queries that it has not seen, and their intervals over resampled queries.
//!
//! A router's settings form a path from "cost does not matter" to "everything to the cheapest model"; between two neighbours on it one can
//! draw. Quality at equal cost is read where the path costs what the best single model does on the same queries, cost at equal quality
//! where it first gets as good, from the cheap end. No setting is preferred for how it did: only AIQ, by its definition, is about the
//! hull of all.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::area::aiq;
use super::data::Matrix;
use super::pairs::{recovered, recovered_at};
use crate::ope::{Estimate, percentile_estimate};

/// A figure of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Mean quality where cost does not matter.
    Quality,
    /// Mean height of the non-decreasing convex hull of quality over cost, over the single models' costs (arXiv 2403.12031).
    Aiq,
    /// AIQ of the learned policy minus this one's, query by query; APGR where there are no costs.
    LearnedOver,
    /// Mean quality where the queries cost what they do with the best single model.
    QualityAtEqualCost,
    /// Least cost at which the best single model's quality is reached, as a share of that model's cost; 1 where it is not.
    CostAtEqualQuality,
    /// `(quality - best single) / (oracle - best single)` where cost does not matter.
    OracleCapture,
    /// The same at the best single model's cost.
    OracleCaptureAtEqualCost,
    /// Share of the gap between two models that is recovered at half of the calls to the strong one (arXiv 2406.18665).
    Pgr,
    /// The mean of that over all shares of calls.
    Apgr,
    /// Least share of strong calls at which half of the gap is recovered.
    Cpt50,
    /// The same for four fifths.
    Cpt80,
}

impl Measure {
    /// All, in the order of the table.
    pub const ALL: [Self; 11] = [
        Self::Quality,
        Self::Aiq,
        Self::LearnedOver,
        Self::QualityAtEqualCost,
        Self::CostAtEqualQuality,
        Self::OracleCapture,
        Self::OracleCaptureAtEqualCost,
        Self::Pgr,
        Self::Apgr,
        Self::Cpt50,
        Self::Cpt80,
    ];

    /// What it is called in a table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quality => "quality, any cost",
            Self::Aiq => "AIQ",
            Self::LearnedOver => "learned policy over this",
            Self::QualityAtEqualCost => "quality at equal cost",
            Self::CostAtEqualQuality => "cost at equal quality",
            Self::OracleCapture => "oracle capture",
            Self::OracleCaptureAtEqualCost => "oracle capture at equal cost",
            Self::Pgr => "PGR(50 % of calls)",
            Self::Apgr => "APGR",
            Self::Cpt50 => "CPT(50 %)",
            Self::Cpt80 => "CPT(80 %)",
        }
    }

    pub(super) fn needs_costs(self) -> bool {
        use Measure::{Aiq, CostAtEqualQuality, OracleCaptureAtEqualCost, QualityAtEqualCost};
        matches!(self, Aiq | QualityAtEqualCost | CostAtEqualQuality | OracleCaptureAtEqualCost)
    }

    pub(super) fn is_about_two_models(self) -> bool {
        matches!(self, Self::Pgr | Self::Apgr | Self::Cpt50 | Self::Cpt80)
    }
}

/// (cost, quality) of each query at one setting.
pub(super) type Setting = Vec<(f64, f64)>;

/// Who is given to the strong model first.
pub(super) enum Strong {
    Order(Vec<usize>),
    /// Nobody is preferred.
    Blind,
    None,
}

/// A router as it was tried.
pub(super) struct Tried {
    pub policy: String,
    /// From dear to cheap.
    pub path: Vec<Setting>,
    /// What belongs to its hull beside the path.
    pub beside: Vec<Setting>,
    pub strong: Strong,
}

/// What figures are relative to.
pub(super) struct Frame<'a> {
    pub matrix: &'a Matrix,
    /// Positions among those tried.
    pub best_single: usize,
    pub oracle: usize,
    pub learned: usize,
    /// The range of AIQ; none without costs.
    pub costs_usd: Option<(f64, f64)>,
}

/// The figures of every router, with intervals.
pub(super) fn estimates(
    tried: &[Tried],
    frame: &Frame<'_>,
    (seed, bootstraps, confidence): (u64, usize, f64),
) -> Vec<BTreeMap<Measure, Estimate>> {
    let queries = frame.matrix.queries.len();
    let whole = figures(tried, frame, &vec![1.0; queries]);
    let mut draws: Vec<BTreeMap<Measure, Vec<f64>>> = vec![BTreeMap::new(); tried.len()];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..bootstraps {
        let mut times = vec![0.0; queries];
        (0..queries).for_each(|_| times[rng.random_range(0..queries)] += 1.0);
        for (draws, found) in draws.iter_mut().zip(figures(tried, frame, &times)) {
            found.into_iter().for_each(|(measure, value)| draws.entry(measure).or_default().push(value));
        }
    }
    let of = |(values, mut draws): (BTreeMap<Measure, f64>, BTreeMap<Measure, Vec<f64>>)| {
        let one = |(measure, value)| {
            let mut draws = draws.remove(&measure).unwrap_or_default();
            (measure, percentile_estimate(value, &mut draws, confidence))
        };
        values.into_iter().map(one).collect()
    };
    whole.into_iter().zip(draws).map(of).collect()
}

/// The same, each query counting so many times; what is not defined is left out.
fn figures(tried: &[Tried], frame: &Frame<'_>, times: &[f64]) -> Vec<BTreeMap<Measure, f64>> {
    let total: f64 = times.iter().sum();
    let mean = |setting: &Setting| {
        let sums = setting
            .iter()
            .zip(times)
            .fold((0.0, 0.0), |(cost, quality), (one, times)| (cost + times * one.0, quality + times * one.1));
        (sums.0 / total, sums.1 / total)
    };
    // Without costs only the dearest setting is looked at.
    let settings = if frame.costs_usd.is_some() { usize::MAX } else { 1 };
    let paths: Vec<Vec<(f64, f64)>> =
        tried.iter().map(|tried| tried.path.iter().take(settings).map(mean).collect()).collect();
    let best = |at: usize| paths[at].first().copied().unwrap_or_default();
    let (single_usd, single) = best(frame.best_single);
    let capture = |quality: f64, oracle: f64| (oracle > single).then(|| (quality - single) / (oracle - single));
    let oracle_at_cost = quality_at_cost(&paths[frame.oracle], single_usd);
    let mut found: Vec<BTreeMap<Measure, f64>> = Vec::with_capacity(tried.len());
    for (at, tried) in tried.iter().enumerate() {
        let path = &paths[at];
        let mut own = BTreeMap::from([(Measure::Quality, best(at).1)]);
        own.extend(capture(best(at).1, best(frame.oracle).1).map(|share| (Measure::OracleCapture, share)));
        if let Some((least, most)) = frame.costs_usd {
            let hull: Vec<(f64, f64)> = path.iter().copied().chain(tried.beside.iter().map(mean)).collect();
            let quality = quality_at_cost(path, single_usd);
            own.insert(Measure::Aiq, aiq(&hull, least, most));
            own.insert(Measure::QualityAtEqualCost, quality);
            own.insert(Measure::CostAtEqualQuality, cost_at_quality(path, single, single_usd) / single_usd);
            own.extend(capture(quality, oracle_at_cost).map(|share| (Measure::OracleCaptureAtEqualCost, share)));
        }
        match &tried.strong {
            Strong::Order(order) => {
                let pgr = recovered_at(frame.matrix, order, times, 0.5);
                if let Some((pgr, [apgr, cpt_50, cpt_80])) = pgr.zip(recovered(frame.matrix, order, times)) {
                    own.extend([(Measure::Pgr, pgr), (Measure::Apgr, apgr)]);
                    own.extend([(Measure::Cpt50, cpt_50), (Measure::Cpt80, cpt_80)]);
                }
            }
            // A blind draw recovers the gap in proportion to its calls.
            Strong::Blind => {
                own.extend([(Measure::Pgr, 0.5), (Measure::Apgr, 0.5), (Measure::Cpt50, 0.5), (Measure::Cpt80, 0.8)]);
            }
            Strong::None => {}
        }
        found.push(own);
    }
    let area = if frame.costs_usd.is_some() { Measure::Aiq } else { Measure::Apgr };
    let learned = found[frame.learned].get(&area).copied();
    for (_, own) in found.iter_mut().enumerate().filter(|(at, _)| *at != frame.learned) {
        let lead = learned.zip(own.get(&area).copied()).map(|(learned, own)| learned - own);
        own.extend(lead.map(|lead| (Measure::LearnedOver, lead)));
    }
    found
}

/// Quality of a path where it costs `usd`, from (cost, quality) of its settings, dear to cheap; where the dearest costs less, its own.
fn quality_at_cost(path: &[(f64, f64)], usd: f64) -> f64 {
    let too_dear = path.iter().rposition(|point| point.0 > usd);
    match too_dear {
        None => path.first().map_or(f64::NAN, |point| point.1),
        // Even the cheapest setting costs more.
        Some(at) if at + 1 == path.len() => path[at].1,
        Some(at) => between(path[at + 1], path[at], usd),
    }
}

/// Least cost at which a path reaches `quality`, from the cheap end; `otherwise` where it does not, or only for more.
fn cost_at_quality(path: &[(f64, f64)], quality: f64, otherwise: f64) -> f64 {
    let Some(good) = path.iter().rposition(|point| point.1 >= quality) else { return otherwise };
    let cost = match path.get(good + 1) {
        None => path[good].0,
        Some(cheaper) => between((cheaper.1, cheaper.0), (path[good].1, path[good].0), quality),
    };
    cost.min(otherwise)
}

/// Height at `x` of the line through two points.
fn between(from: (f64, f64), to: (f64, f64), x: f64) -> f64 {
    let along = if to.0 == from.0 { 1.0 } else { (x - from.0) / (to.0 - from.0) };
    from.1 + along * (to.1 - from.1)
}

#[cfg(test)]
mod tests {
    use weir_policy_runtime::Action;

    use super::super::data::MatrixQuery;
    use super::*;

    #[test]
    fn a_path_is_read_at_a_cost_and_at_a_quality() {
        // By hand: from (1, 0.4) over (3, 0.8) to (4, 0.7).
        let path = [(4.0, 0.7), (3.0, 0.8), (1.0, 0.4)];
        for (usd, quality) in [(2.0, 0.6), (3.0, 0.8), (3.5, 0.75), (9.0, 0.7), (0.5, 0.4)] {
            let found = quality_at_cost(&path, usd);
            assert!((found - quality).abs() < 1e-12, "{found} at {usd}");
        }
        for (quality, usd) in [(0.3, 1.0), (0.4, 1.0), (0.6, 2.0), (0.8, 3.0)] {
            let found = cost_at_quality(&path, quality, 5.0);
            assert!((found - usd).abs() < 1e-12, "{found} for {quality}");
        }
        assert!((cost_at_quality(&path, 0.9, 5.0) - 5.0).abs() < 1e-12, "never reached");
        assert!(
            (cost_at_quality(&path, 0.8, 2.5) - 2.5).abs() < 1e-12,
            "reached for more than the best single model costs"
        );
    }

    /// Two models and two queries. A is right on the first and costs 1, B on both and costs 3; the best single model is B. The oracle sends
    /// the first to A.
    #[test]
    fn figures_are_their_definitions() {
        let action = |model: &str| Action { model: model.into(), input_usd_per_mtok: None, output_usd_per_mtok: None };
        let query = |n: usize| MatrixQuery { id: n.to_string(), text: n.to_string(), domain: "d".into() };
        let matrix = Matrix {
            name: "two".into(),
            queries: (0..2).map(query).collect(),
            models: ["a", "b"].map(action).to_vec(),
            quality: vec![1.0, 0.5, 0.0, 1.0],
            cost_usd: vec![1.0, 3.0, 1.0, 3.0],
            cost_note: String::new(),
            answer_chars: None,
            encoded: None,
        };
        let (a, b) = (vec![(1.0, 1.0), (1.0, 0.0)], vec![(3.0, 0.5), (3.0, 1.0)]);
        let oracle = vec![(1.0, 1.0), (3.0, 1.0)];
        let tried = |policy: &str, path: Vec<Setting>, strong| Tried {
            policy: policy.into(),
            path,
            beside: Vec::new(),
            strong,
        };
        let all = [
            tried("learned", vec![oracle.clone(), a.clone()], Strong::Order(vec![1, 0])),
            tried("best single", vec![b.clone()], Strong::None),
            tried("oracle", vec![oracle, a.clone()], Strong::Order(vec![1, 0])),
            tried("uniform", vec![vec![(2.0, 0.75), (2.0, 0.5)], a], Strong::Blind),
        ];
        let costs_usd = Some((1.0, 3.0));
        let frame = Frame { matrix: &matrix, best_single: 1, oracle: 2, learned: 0, costs_usd };
        let found = figures(&all, &frame, &[1.0, 1.0]);
        let is = |at: usize, measure, by_hand: f64| {
            let value = found[at][&measure];
            assert!((value - by_hand).abs() < 1e-12, "{} of {at}: {value}", Measure::name(measure));
        };
        // The hull of (1, 0.5) and (2, 1): 0.75 on average up to 2, then 1.
        is(0, Measure::Aiq, 0.875);
        is(0, Measure::QualityAtEqualCost, 1.0);
        // 0.75 is half way up, at 1.5 of 3.
        is(0, Measure::CostAtEqualQuality, 0.5);
        is(0, Measure::OracleCapture, 1.0);
        is(0, Measure::OracleCaptureAtEqualCost, 1.0);
        // The first call gains 1, the second loses 0.5, so the gap is 0.5.
        is(0, Measure::Pgr, 2.0);
        is(0, Measure::Apgr, (1.0 + 1.5) / 2.0);
        is(0, Measure::Cpt50, 0.5);
        is(1, Measure::Quality, 0.75);
        is(1, Measure::OracleCapture, 0.0);
        is(1, Measure::CostAtEqualQuality, 1.0);
        is(1, Measure::Aiq, 0.75);
        is(1, Measure::LearnedOver, 0.125);
        // Its dearest setting costs 2 and earns 0.625, below the single model's 0.75: (0.625 - 0.75) / (1 - 0.75).
        is(3, Measure::OracleCaptureAtEqualCost, -0.5);
        is(3, Measure::CostAtEqualQuality, 1.0);
        is(3, Measure::Apgr, 0.5);
        // Twice the second query and never the first: A has nothing, B all, and the oracle is B.
        let again = figures(&all, &frame, &[0.0, 2.0]);
        assert!(!again[0].contains_key(&Measure::OracleCapture), "there is nothing to capture");
        assert!((again[0][&Measure::Pgr] - 0.5).abs() < 1e-12, "one call of two gains one of two");
    }
}
