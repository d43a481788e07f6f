//! vLLM Semantic Router's learned selectors: a network, or one linear score a model, over the query's embedding and its category.
//!
//! That router sees nothing else of a request, takes the best score, and tells no probability. So a policy is distilled: a student
//! learns its parent's utilities (costs are in them) from those two alone, and is judged as it is exported. Formats: `mlp_selector.rs` and
//! `svm.rs` of the router, read in November 2026.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use weir_policy_runtime::{ActionParts, MlpScratch, OwnedContext, Policy, Scratch};

use crate::checkpoint::Slot;
use crate::error::{LearnError, Result};
use crate::network::{Fit, Inputs, Network, PlainLayer, runtime_network};
use crate::training_set::Sample;

/// The categories of the one-hot part, in the router's order. Whatever is not among them counts as `other`.
pub const CATEGORIES: [&str; 14] = [
    "math",
    "physics",
    "chemistry",
    "biology",
    "computer science",
    "history",
    "economics",
    "business",
    "law",
    "health",
    "psychology",
    "philosophy",
    "other",
    "unknown",
];

const OTHER: usize = 12;

/// Paths in a bundle.
pub const MLP_FILE: &str = "exports/vllm-sr/mlp_model.json";
/// The linear form.
pub const SVM_FILE: &str = "exports/vllm-sr/svm_model.json";
/// Inputs with the outputs and choices that a router must come to.
pub const GOLDEN_FILE: &str = "exports/vllm-sr/golden.json";

/// A selector as the router loads it.
#[derive(Debug, Clone, PartialEq)]
pub enum Artifact {
    /// `mlp_model.json`.
    Mlp(MlpFile),
    /// `svm_model.json`, linear.
    Svm(SvmFile),
}

/// `mlp_model.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MlpFile {
    algorithm: String,
    version: String,
    trained: bool,
    model_names: Vec<String>,
    feature_dim: usize,
    n_classes: usize,
    hidden_sizes: Vec<usize>,
    dropout: f64,
    layers: Vec<MlpLayer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum MlpLayer {
    Linear { in_features: usize, out_features: usize, weight: Vec<Vec<f32>>, bias: Vec<f32> },
    Relu,
}

/// `svm_model.json`: `w·x - rho` for each model, over the input divided by its length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SvmFile {
    algorithm: String,
    version: String,
    trained: bool,
    model_names: Vec<String>,
    kernel_type: String,
    gamma: f64,
    linear_classifiers: Vec<LinearClassifier>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct LinearClassifier {
    model_name: String,
    weights: Vec<f64>,
    rho: f64,
}

impl Artifact {
    /// Reads an exported file, as strictly as the router's loader should.
    ///
    /// # Errors
    /// [`LearnError::Artefact`] when sizes do not chain, names and outputs differ in number, or a number is not finite.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let bad = |why: &str| LearnError::Artefact(why.to_owned());
        let value: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|error| LearnError::Artefact(error.to_string()))?;
        let of = |error: serde_json::Error| LearnError::Artefact(error.to_string());
        match value["algorithm"].as_str() {
            Some("mlp") => {
                let file: MlpFile = serde_json::from_value(value).map_err(of)?;
                let layers = file.plain_layers()?;
                let network = runtime_network(&layers)?;
                if network.inputs() != file.feature_dim || network.outputs() != file.n_classes {
                    return Err(bad("the layers do not lead from feature_dim to n_classes"));
                }
                if file.model_names.len() != file.n_classes {
                    return Err(bad("there is not one name for each class"));
                }
                Ok(Self::Mlp(file))
            }
            Some("svm") => {
                let file: SvmFile = serde_json::from_value(value).map_err(of)?;
                let width = file.linear_classifiers.first().map_or(0, |one| one.weights.len());
                let sound = |one: &LinearClassifier| {
                    one.weights.len() == width
                        && one.rho.is_finite()
                        && one.weights.iter().all(|weight| weight.is_finite())
                };
                if width == 0 || !file.linear_classifiers.iter().all(sound) {
                    return Err(bad("classifiers need finite weights of one length"));
                }
                if !file.linear_classifiers.iter().map(|one| &one.model_name).eq(&file.model_names) {
                    return Err(bad("there is not one classifier for each name"));
                }
                Ok(Self::Svm(file))
            }
            _ => Err(bad("algorithm is neither mlp nor svm")),
        }
    }

    /// The file.
    ///
    /// # Panics
    /// Never: it holds numbers and texts.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let bytes = match self {
            Self::Mlp(file) => serde_json::to_vec(file),
            Self::Svm(file) => serde_json::to_vec(file),
        };
        bytes.expect("numbers and texts are JSON")
    }

    /// The models, in the order of the scores.
    #[must_use]
    pub fn model_names(&self) -> &[String] {
        match self {
            Self::Mlp(file) => &file.model_names,
            Self::Svm(file) => &file.model_names,
        }
    }

    /// Ready to score.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn selector(&self) -> Result<Selector<'_>> {
        let network = match self {
            Self::Mlp(file) => Some(runtime_network(&file.plain_layers()?)?),
            Self::Svm(_) => None,
        };
        Ok(Selector { artifact: self, network })
    }
}

impl MlpFile {
    fn plain_layers(&self) -> Result<Vec<PlainLayer>> {
        let linear = self.layers.iter().filter_map(|layer| match layer {
            MlpLayer::Linear { in_features, out_features, weight, bias } => {
                Some((*in_features, *out_features, weight, bias))
            }
            MlpLayer::Relu => None,
        });
        let alternate = self.layers.iter().enumerate().all(|(at, layer)| (at % 2 == 1) == (*layer == MlpLayer::Relu));
        if !alternate || self.layers.len().is_multiple_of(2) {
            return Err(LearnError::Artefact("linear layers and ReLU do not alternate".to_owned()));
        }
        linear
            .map(|(inputs, outputs, weight, bias)| {
                if weight.len() != outputs || bias.len() != outputs || weight.iter().any(|row| row.len() != inputs) {
                    return Err(LearnError::Artefact("a layer's weights have another shape than it says".to_owned()));
                }
                Ok(PlainLayer { inputs, weight: weight.concat(), bias: bias.clone() })
            })
            .collect()
    }
}

/// An artifact ready to score.
pub struct Selector<'a> {
    artifact: &'a Artifact,
    network: Option<weir_policy_runtime::Mlp>,
}

impl Selector<'_> {
    /// A score for each model.
    #[must_use]
    pub fn scores(&self, input: &[f32]) -> Vec<f64> {
        match (self.artifact, &self.network) {
            (Artifact::Svm(file), _) => {
                let length = input.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
                let dot = |one: &LinearClassifier| {
                    one.weights.iter().zip(input).map(|(w, x)| w * f64::from(*x) * scale).sum::<f64>() - one.rho
                };
                file.linear_classifiers.iter().map(dot).collect()
            }
            (Artifact::Mlp(_), Some(network)) => {
                let mut scratch = MlpScratch::default();
                network.forward(input, &mut scratch).iter().map(|score| f64::from(*score)).collect()
            }
            (Artifact::Mlp(_), None) => Vec::new(),
        }
    }

    /// What the router takes: the best score; of equal ones the last by a network, the first by a linear one.
    #[must_use]
    pub fn choice(&self, input: &[f32]) -> usize {
        let scores = self.scores(input);
        let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let is_best = |score: &f64| *score == best;
        match self.artifact {
            Artifact::Mlp(_) => scores.iter().rposition(is_best),
            Artifact::Svm(_) => scores.iter().position(is_best),
        }
        .unwrap_or(0)
    }
}

/// The router's input for a request: `embedding_dim` numbers, zero where the request has no such embedding, and the category.
#[must_use]
pub fn input(context: &OwnedContext, embedding_dim: usize) -> Vec<f32> {
    let mut input = vec![0.0; embedding_dim + CATEGORIES.len()];
    if let Some(embedding) = context.embedding.as_ref().filter(|embedding| embedding.len() == embedding_dim) {
        input[..embedding_dim].copy_from_slice(embedding);
    }
    let domain = context.domain.as_deref().unwrap_or("other").replace('_', " ").to_lowercase();
    let category = CATEGORIES.iter().position(|name| *name == domain).unwrap_or(OTHER);
    input[embedding_dim + category] = 1.0;
    input
}

/// How students are trained.
#[derive(Debug, Clone, PartialEq)]
pub struct DistilConfig {
    /// Seed of starting weights and batches.
    pub seed: u64,
    /// Dimensions of the router's embedding (768 for mmBERT, 1024 for qwen3).
    pub embedding_dim: usize,
    /// Widths of the network's hidden layers.
    pub hidden: Vec<usize>,
    /// Most passes over the decisions.
    pub epochs: usize,
}

impl DistilConfig {
    /// For a router whose embeddings have so many dimensions.
    #[must_use]
    pub fn of(embedding_dim: usize, seed: u64) -> Self {
        Self { seed, embedding_dim, hidden: vec![256], epochs: 60 }
    }
}

/// Decisions that students learn from at most: more teach little, and each takes its embedding's room.
const DECISIONS_MAX: usize = 50_000;

/// The students of a policy.
pub struct Distilled {
    /// Decisions that they learned from.
    pub decisions: usize,
    /// The network.
    pub mlp: Artifact,
    /// The linear one; none where the logs hold no embedding, since the router divides by a length that is then not known.
    pub svm: Option<Artifact>,
    /// `golden.json`.
    pub golden: Vec<u8>,
}

/// Teaches students the utilities that `parent` predicts for the samples at `rows`.
///
/// # Errors
/// [`LearnError::NotEnoughData`] without a row, and where the logs hold embeddings of another size than the router's.
pub fn distil(parent: &Policy, samples: &[Sample], rows: &[usize], config: &DistilConfig) -> Result<Distilled> {
    if rows.is_empty() {
        return Err(LearnError::NotEnoughData("no decision is left to distil from".to_owned()));
    }
    let rows: Vec<usize> = rows.iter().copied().step_by(rows.len().div_ceil(DECISIONS_MAX)).collect();
    let logged = rows.iter().find_map(|row| samples[*row].context.embedding.as_ref().map(Vec::len));
    if let Some(logged) = logged.filter(|logged| *logged != config.embedding_dim) {
        return Err(LearnError::Config(format!(
            "the logs hold embeddings of {logged} dimensions, and the router's have {}: give the router's own number",
            config.embedding_dim
        )));
    }
    // That router tries nothing: a model on probation is not among what it chooses from.
    let on_probation = |model: &str| parent.spec().probation.iter().any(|entry| entry.model == model);
    let kept: Vec<usize> = (0..parent.actions().len()).filter(|&a| !on_probation(&parent.actions()[a].model)).collect();
    let outputs = kept.len();
    let width = config.embedding_dim + CATEGORIES.len();
    let mut values = Vec::with_capacity(rows.len() * width);
    let mut utilities: Vec<f32> = Vec::with_capacity(rows.len() * outputs);
    let mut scratch = Scratch::default();
    for &row in &rows {
        values.extend(input(&samples[row].context, config.embedding_dim));
        let predicted = parent.predict(&samples[row].context.as_context(), &mut scratch).utility;
        utilities.extend(kept.iter().map(|&action| predicted[action] as f32));
    }
    let names: Vec<String> = kept.iter().map(|&action| parent.actions()[action].model.clone()).collect();
    if let Some(name) = names.iter().find(|name| !ActionParts::of(name).is_model_alone()) {
        return Err(LearnError::Config(format!(
            "vLLM Semantic Router's selectors choose a model and nothing else, and the action {name} is more than one: learn without \
             objective.action_parts, or leave out the export"
        )));
    }
    let plain = Inputs::new(width, values);
    let scale = Standard::of(&plain, config.embedding_dim);
    let mut layers = student(&scale.applied(&plain), &utilities, outputs, &config.hidden, config)?;
    scale.fold_into(&mut layers[0]);
    still_where_nothing_was_seen(&mut layers[0], &plain, config.embedding_dim);
    let mlp = Artifact::from_json(&Artifact::Mlp(mlp_file(&layers, &names, config)).to_json())?;
    let svm = match logged {
        Some(_) => {
            let mut linear = student(&normalised(&plain), &utilities, outputs, &[], config)?;
            still_where_nothing_was_seen(&mut linear[0], &plain, config.embedding_dim);
            // What was written is what is judged.
            Some(Artifact::from_json(&Artifact::Svm(svm_file(&linear[0], &names)).to_json())?)
        }
        None => None,
    };
    let golden = golden(&golden_inputs(&scale, config), &mlp, svm.as_ref())?;
    Ok(Distilled { decisions: rows.len(), mlp, svm, golden })
}

/// Training leaves the starting weights of an input that was always zero, and a router would feed them: dimensions that were never
/// seen weigh nothing, and a category that was never seen is taken for the average of those that were.
fn still_where_nothing_was_seen(first: &mut PlainLayer, inputs: &Inputs, embedding_dim: usize) {
    let mut seen = vec![0.0_f32; inputs.width];
    for row in inputs.values.chunks_exact(inputs.width) {
        seen.iter_mut().zip(row).for_each(|(count, x)| *count += f32::from(u8::from(*x != 0.0)));
    }
    let (of_embedding, of_categories) = seen.split_at(embedding_dim);
    let total: f32 = of_categories.iter().sum();
    for row in first.weight.chunks_exact_mut(first.inputs) {
        let (embedding, categories) = row.split_at_mut(embedding_dim);
        embedding.iter_mut().zip(of_embedding).filter(|(_, seen)| **seen == 0.0).for_each(|(weight, _)| *weight = 0.0);
        let average = categories.iter().zip(of_categories).map(|(weight, seen)| weight * seen).sum::<f32>() / total;
        categories
            .iter_mut()
            .zip(of_categories)
            .filter(|(_, seen)| **seen == 0.0)
            .for_each(|(weight, _)| *weight = average);
    }
}

fn student(
    inputs: &Inputs,
    utilities: &[f32],
    outputs: usize,
    hidden: &[usize],
    config: &DistilConfig,
) -> Result<Vec<PlainLayer>> {
    use burn::tensor::{Tensor, TensorData};

    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let rows = utilities.len() / outputs;
    let means: Vec<f32> =
        (0..outputs).map(|output| utilities.iter().skip(output).step_by(outputs).sum::<f32>() / rows as f32).collect();
    let network = Network::init(inputs.width, hidden, &means, None, &mut rng);
    // One row in seven says when to stop.
    let (validation, train): (Vec<usize>, Vec<usize>) = (0..rows).partition(|row| row % 7 == 6);
    let fit = Fit { epochs: config.epochs, batch_rows: 256, learning_rate: 2e-3, weight_decay: 0.0, patience: 6 };
    let network =
        network.fit(inputs, (&train, &validation), fit, (&mut rng, &Slot::default()), |found, batch, device| {
            let wanted: Vec<f32> =
                batch.iter().flat_map(|row| utilities[row * outputs..(row + 1) * outputs].iter().copied()).collect();
            let wanted =
                Tensor::<crate::backend::Train, 2>::from_data(TensorData::new(wanted, [batch.len(), outputs]), device);
            (found - wanted).powf_scalar(2.0).mean()
        })?;
    network.to_layers()
}

/// Means and spreads of the embedding's dimensions; the category is left as it is.
struct Standard {
    mean: Vec<f32>,
    spread: Vec<f32>,
}

impl Standard {
    fn of(inputs: &Inputs, embedding_dim: usize) -> Self {
        let rows = (inputs.values.len() / inputs.width) as f64;
        let (mut mean, mut spread) = (vec![0.0; inputs.width], vec![1.0; inputs.width]);
        for column in 0..embedding_dim {
            let values = || inputs.values.iter().skip(column).step_by(inputs.width).map(|value| f64::from(*value));
            let centre = values().sum::<f64>() / rows;
            let variance = values().map(|value| (value - centre).powi(2)).sum::<f64>() / rows;
            mean[column] = centre as f32;
            // A dimension that never moves says nothing.
            spread[column] = if variance > 1e-12 { variance.sqrt() as f32 } else { 1.0 };
        }
        Self { mean, spread }
    }

    fn applied(&self, inputs: &Inputs) -> Inputs {
        let values = inputs.values.iter().enumerate().map(|(at, value)| {
            let column = at % inputs.width;
            (value - self.mean[column]) / self.spread[column]
        });
        Inputs::new(inputs.width, values.collect())
    }

    /// `W ((x - m) / s) + b = (W / s) x + (b - (W / s) m)`.
    fn fold_into(&self, first: &mut PlainLayer) {
        for (row, bias) in first.weight.chunks_exact_mut(first.inputs).zip(&mut first.bias) {
            let mut shift = 0.0_f64;
            for ((weight, mean), spread) in row.iter_mut().zip(&self.mean).zip(&self.spread) {
                *weight /= spread;
                shift += f64::from(*weight) * f64::from(*mean);
            }
            *bias = (f64::from(*bias) - shift) as f32;
        }
    }
}

fn normalised(inputs: &Inputs) -> Inputs {
    let mut values = inputs.values.clone();
    for row in values.chunks_exact_mut(inputs.width) {
        let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
        if length > 0.0 {
            row.iter_mut().for_each(|x| *x /= length);
        }
    }
    Inputs::new(inputs.width, values)
}

fn mlp_file(layers: &[PlainLayer], names: &[String], config: &DistilConfig) -> MlpFile {
    let mut chain = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        if at > 0 {
            chain.push(MlpLayer::Relu);
        }
        chain.push(MlpLayer::Linear {
            in_features: layer.inputs,
            out_features: layer.bias.len(),
            weight: layer.weight.chunks_exact(layer.inputs).map(<[f32]>::to_vec).collect(),
            bias: layer.bias.clone(),
        });
    }
    MlpFile {
        algorithm: "mlp".to_owned(),
        version: "1".to_owned(),
        trained: true,
        model_names: names.to_vec(),
        feature_dim: layers[0].inputs,
        n_classes: names.len(),
        hidden_sizes: config.hidden.clone(),
        dropout: 0.0,
        layers: chain,
    }
}

fn svm_file(layer: &PlainLayer, names: &[String]) -> SvmFile {
    let classifier = |((weights, bias), name): ((&[f32], &f32), &String)| LinearClassifier {
        model_name: name.clone(),
        weights: weights.iter().map(|weight| f64::from(*weight)).collect(),
        rho: -f64::from(*bias),
    };
    SvmFile {
        algorithm: "svm".to_owned(),
        version: "1".to_owned(),
        trained: true,
        model_names: names.to_vec(),
        kernel_type: "Linear".to_owned(),
        gamma: 0.0,
        linear_classifiers: layer
            .weight
            .chunks_exact(layer.inputs)
            .zip(&layer.bias)
            .zip(names)
            .map(classifier)
            .collect(),
    }
}

/// Inputs like those that were logged, and none of them: an embedding tells of its text. Each category twice, dimensions drawn with the
/// logs' means and spreads.
fn golden_inputs(scale: &Standard, config: &DistilConfig) -> Inputs {
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let width = config.embedding_dim + CATEGORIES.len();
    let mut values = Vec::with_capacity(2 * CATEGORIES.len() * width);
    for row in 0..2 * CATEGORIES.len() {
        let draw = |(mean, spread): (&f32, &f32)| mean + spread * rng.random_range(-1.7..1.7_f32);
        values.extend(scale.mean.iter().zip(&scale.spread).take(config.embedding_dim).map(draw));
        values.extend((0..CATEGORIES.len()).map(|category| f32::from(u8::from(category == row % CATEGORIES.len()))));
    }
    Inputs::new(width, values)
}

fn golden(inputs: &Inputs, mlp: &Artifact, svm: Option<&Artifact>) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Told {
        scores: Vec<f64>,
        choice: String,
    }
    #[derive(Serialize)]
    struct Row<'a> {
        input: &'a [f32],
        mlp: Told,
        #[serde(skip_serializing_if = "Option::is_none")]
        svm: Option<Told>,
    }
    fn told(selector: &Selector<'_>, input: &[f32]) -> Told {
        Told { scores: selector.scores(input), choice: selector.artifact.model_names()[selector.choice(input)].clone() }
    }
    let (of_mlp, of_svm) = (mlp.selector()?, svm.map(Artifact::selector).transpose()?);
    let row = |input| Row { input, mlp: told(&of_mlp, input), svm: of_svm.as_ref().map(|of_svm| told(of_svm, input)) };
    let golden: Vec<Row<'_>> = inputs.values.chunks_exact(inputs.width).map(row).collect();
    serde_json::to_vec(&golden).map_err(|error| LearnError::Artefact(error.to_string()))
}
