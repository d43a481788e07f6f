//! Trains the hallucination estimator on labelled pairs and judges it on source documents that it has not seen.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::dataset::{Labelled, LabelledPair};
use super::estimator::{Content, Estimator};
use super::features::{COUNT, FEATURE_NAMES, features};
use super::metrics::{DetectionMetrics, best_threshold, detection_metrics};
use crate::backend::Train;
use crate::checkpoint::Slot;
use crate::error::{LearnError, Result};
use crate::network::{Fit, Inputs, Network, cross_entropy};

/// How to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HallucinationConfig {
    /// Seed of the split, the starting weights and the batch order.
    pub seed: u64,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Most passes over the training pairs.
    pub epochs: usize,
    /// Share of the source documents for judging.
    pub test_share: f64,
    /// Share of the source documents that decides when to stop, and the threshold.
    pub validation_share: f64,
}

impl Default for HallucinationConfig {
    fn default() -> Self {
        Self { seed: 0, hidden: vec![32, 16], epochs: 120, test_share: 0.3, validation_share: 0.15 }
    }
}

/// How the estimator does beside trivial baselines, on unseen source documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HallucinationReport {
    /// The estimator's id.
    pub artifact: String,
    /// Metrics by method: `estimator`, and the baselines `always_positive`, `corpus_rate`
    /// (the share that is hallucinated in the pair's corpus), `length_only` and `novelty_only`.
    pub overall: BTreeMap<String, DetectionMetrics>,
    /// The same by source corpus.
    pub by_dataset: BTreeMap<String, BTreeMap<String, DetectionMetrics>>,
    /// Pairs trained on, validated on, judged on.
    pub pairs: [usize; 3],
    /// What a reader of these numbers must know, a sentence each: trivial baselines that do as well.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// [`train_hallucination`] on what files held: its refusal also says how many of their rows were no pair.
///
/// # Errors
/// As [`train_hallucination`].
pub fn train_on_labelled(
    labelled: &Labelled,
    config: &HallucinationConfig,
) -> Result<(Estimator, HallucinationReport)> {
    train_hallucination(&labelled.pairs, config).map_err(|error| match error {
        LearnError::NotEnoughPairs { hallucinated, faithful, .. } => {
            LearnError::NotEnoughPairs { hallucinated, faithful, left_out: labelled.left_out }
        }
        other => other,
    })
}

/// Trains on part of the source documents; a document's responses are all on one side.
///
/// # Errors
/// [`LearnError::NotEnoughPairs`] when a side of the split is empty or all of one class.
pub fn train_hallucination(
    pairs: &[LabelledPair],
    config: &HallucinationConfig,
) -> Result<(Estimator, HallucinationReport)> {
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let sides = split(pairs, config, &mut rng);
    let [train, validation, _] = &sides;
    for side in &sides {
        let positives = side.iter().filter(|&&row| pairs[row].hallucinated).count();
        if positives == 0 || positives == side.len() {
            let hallucinated = pairs.iter().filter(|pair| pair.hallucinated).count();
            let faithful = pairs.len() - hallucinated;
            return Err(LearnError::NotEnoughPairs { hallucinated, faithful, left_out: 0 });
        }
    }
    let rows: Vec<[f32; COUNT]> = pairs.iter().map(|pair| features(&pair.context, &pair.response)).collect();
    let (mean, std) = standardisation(train.iter().map(|&row| &rows[row]));
    let standardised = |row: &[f32; COUNT]| std::array::from_fn::<f32, COUNT, _>(|k| (row[k] - mean[k]) / std[k]);
    let inputs = Inputs::new(COUNT, rows.iter().flat_map(standardised).collect());
    let base = train.iter().filter(|&&row| pairs[row].hallucinated).count() as f32 / train.len() as f32;
    let network = Network::init(COUNT, &config.hidden, &[(base / (1.0 - base)).ln()], None, &mut rng);
    let fit = Fit { epochs: config.epochs, batch_rows: 64, learning_rate: 2e-3, weight_decay: 0.05, patience: 12 };
    let network =
        network.fit(&inputs, (train, validation), fit, (&mut rng, &Slot::default()), |outputs, batch, device| {
            let labels: Vec<f32> = batch.iter().map(|&row| f32::from(u8::from(pairs[row].hallucinated))).collect();
            let labels = Tensor::<Train, 2>::from_data(TensorData::new(labels, [batch.len(), 1]), device);
            cross_entropy(outputs, labels).mean()
        })?;
    finish(pairs, &rows, &sides, config, (mean, std), network)
}

/// Picks the threshold on the validation side, judges on the test side, and makes the file.
fn finish(
    pairs: &[LabelledPair],
    rows: &[[f32; COUNT]],
    [train, validation, test]: &[Vec<usize>; 3],
    config: &HallucinationConfig,
    (mean, std): (Vec<f32>, Vec<f32>),
    network: Network<Train>,
) -> Result<(Estimator, HallucinationReport)> {
    let mut trained_on = BTreeMap::new();
    for &row in train {
        *trained_on.entry(pairs[row].dataset.clone()).or_insert(0) += 1;
    }
    let empty = detection_metrics(&[0.5], &[true], 0.5);
    let mut content = Content {
        kind: Estimator::kind(),
        features: FEATURE_NAMES.map(str::to_owned).to_vec(),
        mean,
        std,
        layers: network.to_layers()?,
        threshold: 0.5,
        seed: config.seed,
        trained_on,
        metrics: empty,
        baselines: BTreeMap::new(),
    };
    let draft = Estimator::new(content.clone())?;
    let score = |row: usize| {
        let verdict = draft.score(&pairs[row].context, &pairs[row].response);
        verdict.map_or(0.5, |verdict| verdict.probability)
    };
    let scores: Vec<f64> = (0..pairs.len()).map(score).collect();
    let judge = |score: &dyn Fn(usize) -> f64, side: &[usize]| {
        let labels = |rows: &[usize]| rows.iter().map(|&row| pairs[row].hallucinated).collect::<Vec<_>>();
        let of = |rows: &[usize]| rows.iter().map(|&row| score(row)).collect::<Vec<_>>();
        let threshold = best_threshold(&of(validation), &labels(validation));
        detection_metrics(&of(side), &labels(side), threshold)
    };
    let column = |name: &str| FEATURE_NAMES.iter().position(|known| *known == name).unwrap_or(0);
    let length = binned_rate(pairs, rows, train, column("ln_response_words"));
    let novelty = binned_rate(pairs, rows, train, column("stem_novelty"));
    let corpus = corpus_rates(pairs, train);
    let methods = |side: &[usize]| -> BTreeMap<String, DetectionMetrics> {
        BTreeMap::from([
            ("estimator".to_owned(), judge(&|row| scores[row], side)),
            ("always_positive".to_owned(), judge(&|_| 1.0, side)),
            ("corpus_rate".to_owned(), judge(&|row| corpus.get(&pairs[row].dataset).copied().unwrap_or(0.5), side)),
            ("length_only".to_owned(), judge(&|row| length(row), side)),
            ("novelty_only".to_owned(), judge(&|row| novelty(row), side)),
        ])
    };
    let mut datasets: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for &row in test {
        datasets.entry(pairs[row].dataset.clone()).or_default().push(row);
    }
    let overall = methods(test);
    let by_dataset = datasets.into_iter().map(|(name, side)| (name, methods(&side))).collect();

    let of = |rows: &[usize]| rows.iter().map(|&row| scores[row]).collect::<Vec<_>>();
    let labels: Vec<bool> = validation.iter().map(|&row| pairs[row].hallucinated).collect();
    content.threshold = best_threshold(&of(validation), &labels);
    content.metrics = overall["estimator"];
    content.baselines =
        overall.iter().filter(|(method, _)| *method != "estimator").map(|(name, m)| (name.clone(), *m)).collect();
    let estimator = Estimator::new(content)?;
    let report = HallucinationReport {
        artifact: estimator.id().to_owned(),
        warnings: warnings(&overall),
        overall,
        by_dataset,
        pairs: [train.len(), validation.len(), test.len()],
    };
    Ok((estimator, report))
}

/// Baselines that rank responses as well as the estimator, and what that says of the labels.
fn warnings(overall: &BTreeMap<String, DetectionMetrics>) -> Vec<String> {
    let own = overall["estimator"].auroc;
    let says = [
        ("corpus_rate", "the labels are given away by the corpus"),
        ("length_only", "the labels are given away by the length of the response"),
        ("novelty_only", "the labels are given away by the share of new words"),
        ("always_positive", "nothing was learned"),
    ];
    let as_good = says.iter().filter_map(|(name, what)| {
        let auroc = overall.get(*name)?.auroc;
        (auroc >= own).then(|| {
            format!(
                "a trivial baseline ({name}, AUROC {auroc:.3}) does as well as the estimator (AUROC {own:.3}): {what}"
            )
        })
    });
    as_good.collect()
}

/// Train, validation and test rows, split by context.
fn split(pairs: &[LabelledPair], config: &HallucinationConfig, rng: &mut ChaCha8Rng) -> [Vec<usize>; 3] {
    let mut documents: Vec<&str> = pairs.iter().map(|pair| pair.context.as_str()).collect();
    documents.sort_unstable();
    documents.dedup();
    documents.shuffle(rng);
    let test_end = (documents.len() as f64 * config.test_share).round() as usize;
    let validation_end = test_end + (documents.len() as f64 * config.validation_share).round() as usize;
    let place: std::collections::HashMap<&str, usize> =
        documents.iter().enumerate().map(|(place, document)| (*document, place)).collect();
    let mut sides: [Vec<usize>; 3] = Default::default();
    for (row, pair) in pairs.iter().enumerate() {
        let place = place[pair.context.as_str()];
        let side = if place < test_end { 2 } else { usize::from(place < validation_end) };
        sides[side].push(row);
    }
    sides
}

fn standardisation<'a>(rows: impl Iterator<Item = &'a [f32; COUNT]> + Clone) -> (Vec<f32>, Vec<f32>) {
    let count = rows.clone().count().max(1) as f64;
    let mean: Vec<f64> = (0..COUNT).map(|k| rows.clone().map(|row| f64::from(row[k])).sum::<f64>() / count).collect();
    let std = (0..COUNT).map(|k| {
        let squares: f64 = rows.clone().map(|row| (f64::from(row[k]) - mean[k]).powi(2)).sum();
        (squares / count).sqrt().max(1e-3) as f32
    });
    (mean.iter().map(|x| *x as f32).collect(), std.collect())
}

/// One feature as a score: the share that is hallucinated among training pairs of the same tenth of its range.
fn binned_rate(
    pairs: &[LabelledPair],
    rows: &[[f32; COUNT]],
    train: &[usize],
    feature: usize,
) -> impl Fn(usize) -> f64 {
    let mut sorted: Vec<f32> = train.iter().map(|&row| rows[row][feature]).collect();
    sorted.sort_by(f32::total_cmp);
    let edges: Vec<f32> = (1..10).map(|tenth| sorted[tenth * sorted.len() / 10]).collect();
    let mut bins = [(0.0, 0.0); 10];
    for &row in train {
        let bin = &mut bins[edges.partition_point(|edge| *edge <= rows[row][feature])];
        bin.0 += f64::from(u8::from(pairs[row].hallucinated));
        bin.1 += 1.0;
    }
    let rates = bins.map(|(positives, count)| (positives + 1.0) / (count + 2.0));
    move |row| rates[edges.partition_point(|edge| *edge <= rows[row][feature])]
}

/// Share that is hallucinated in each corpus: what a score is worth that knows where a pair comes from and no more.
fn corpus_rates(pairs: &[LabelledPair], train: &[usize]) -> BTreeMap<String, f64> {
    let mut counts: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for &row in train {
        let count = counts.entry(pairs[row].dataset.clone()).or_default();
        count.0 += f64::from(u8::from(pairs[row].hallucinated));
        count.1 += 1.0;
    }
    counts.into_iter().map(|(name, (positives, count))| (name, positives / count)).collect()
}
