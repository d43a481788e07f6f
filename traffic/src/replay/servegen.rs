//! ServeGen's per-client statistics, as a stream of requests **generated** from them.
//!
//! Per client and window the data give the mean rate and the law of the gaps (Gamma or Weibull), and per client and
//! six hours the quantiles of the lengths. In each window the client's arrivals are an equilibrium renewal process
//! with that law: its shape as fitted, its scale set so that the mean gap is 1 / rate (a fifth of the published scales
//! miss the published rate by more than 10 %). Started in equilibrium (the first gap is a uniform share of a
//! length-biased one; Cox, Renewal Theory, 1962, section 5.2), the expected number of arrivals in a window is exactly
//! rate x width, however bursty the law.
//!
//! Lengths come from the quantiles by linear interpolation, each quantity on its own: the data do not say how they
//! depend on each other. A client whose lengths were not published borrows those of another client of its model.
//! Requests carry the gateway tag `generated: true`.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Float64Type;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};
use weir_schemas::{Request, Tokens};

use super::{ReplayConfig, Traced};
use crate::TrafficError;
use crate::hash::stable_hash;
use crate::parquet_columns::batches;

/// Which clients to draw, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct ServeGenSelection {
    /// Model whose clients are drawn; `all` draws those of every model, side by side.
    pub model: String,
    /// Start within the published days, s.
    pub from_s: i64,
    /// Length of the stream, s; rounded up to whole windows of 600 s.
    pub seconds: i64,
    /// Probability with which an arrival is kept, each by itself, above 0 and at most 1. A thinned stream holds some of the
    /// arrivals of the whole one, at the same times.
    pub keep: f64,
}

/// In place of a model's name.
const ALL_MODELS: &str = "all";

impl Default for ServeGenSelection {
    /// Ten minutes of the reasoning model: about 15 requests per second.
    fn default() -> Self {
        Self { model: "deepseek-r1".to_owned(), from_s: 0, seconds: 600, keep: 1.0 }
    }
}

const WINDOW_S: i64 = 600;
const LENGTHS_FILE: &str = "length_distributions.parquet";
/// Fields that add up to the prompt.
const PROMPT_FIELDS: [&str; 5] = ["input_tokens", "text_tokens", "image_tokens", "audio_tokens", "video_tokens"];

/// A client's arrivals in one window.
struct Window {
    start_s: i64,
    /// Index among the models that are drawn.
    model: usize,
    client: i64,
    rate_per_s: f64,
    law: Law,
}

#[derive(Clone, Copy)]
enum Law {
    Gamma { shape: f64 },
    Weibull { shape: f64 },
}

/// Quantiles of one quantity of one client, by the start of their six hours.
type Quantiles = BTreeMap<i64, Vec<f64>>;

/// From when to when each model's rates were published, s.
type Published = BTreeMap<String, (i64, i64)>;

/// A model that is drawn.
struct Model {
    name: String,
    category: String,
    lengths: Lengths,
}

/// The lengths of one model's clients.
#[derive(Default)]
struct Lengths {
    by_client: BTreeMap<i64, BTreeMap<String, Quantiles>>,
}

/// The stream: windows in order of time, each drawn whole and sorted.
pub(super) struct Generated {
    windows: VecDeque<Window>,
    models: Vec<Model>,
    seed: u64,
    keep: f64,
    /// Time, ns, model and client.
    ready: VecDeque<(i64, usize, i64)>,
    /// Length draws have a stream of their own.
    rng: ChaCha8Rng,
    sent: u64,
}

pub(super) fn generate(path: &Path, files: &[PathBuf], config: &ReplayConfig) -> Result<Generated, TrafficError> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    let selection = &config.servegen;
    let mut windows = Vec::new();
    let mut published = Published::new();
    let mut models = Vec::new();
    for file in files {
        read_windows(file, selection, &mut windows, &mut published, &mut models)?;
    }
    if windows.is_empty() {
        let known: Vec<String> =
            published.into_iter().map(|(model, (from_s, to_s))| format!("{model} {from_s} to {to_s} s")).collect();
        let ServeGenSelection { model, from_s, seconds, keep: _ } = selection;
        let value = format!("{model} from {from_s} s for {seconds} s (published: {})", known.join(", "));
        let mend = "choose one of these models and a time within what is published of it";
        return Err(TrafficError::Setting { setting: "servegen", value, mend });
    }
    windows.sort_by_key(|window| (window.start_s, window.model, window.client));
    for model in &mut models {
        model.lengths = read_lengths(&folder.join(LENGTHS_FILE), &model.name)?;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    rng.set_stream(1);
    Ok(Generated {
        windows: windows.into(),
        models,
        seed: config.seed,
        keep: selection.keep,
        ready: VecDeque::new(),
        rng,
        sent: 0,
    })
}

fn read_windows(
    file: &Path,
    selection: &ServeGenSelection,
    windows: &mut Vec<Window>,
    published: &mut Published,
    models: &mut Vec<Model>,
) -> Result<(), TrafficError> {
    let until_s = selection.from_s.saturating_add(selection.seconds);
    for batch in batches(file, &["category", "model", "client_id", "t_s", "rate_per_s", "pattern", "arg1"])? {
        let batch = batch?;
        let (categories, names, patterns) = (batch.text("category")?, batch.text("model")?, batch.text("pattern")?);
        let (clients, starts) = (batch.int64("client_id")?, batch.int64("t_s")?);
        let (rates, shapes) = (batch.float64("rate_per_s")?, batch.float64("arg1")?);
        for row in 0..batch.rows() {
            let start_s = starts.value(row);
            let end_s = start_s.saturating_add(WINDOW_S);
            match published.get_mut(names.value(row)) {
                Some((from_s, to_s)) => (*from_s, *to_s) = ((*from_s).min(start_s), (*to_s).max(end_s)),
                None => {
                    published.insert(names.value(row).to_owned(), (start_s, end_s));
                }
            }
            let is_drawn = selection.model == ALL_MODELS || names.value(row) == selection.model;
            if !is_drawn || end_s <= selection.from_s || start_s >= until_s {
                continue;
            }
            let (rate_per_s, shape) = (rates.value(row), shapes.value(row));
            // Without a usable shape the gaps are exponential, which is Gamma with shape 1.
            let shape = if shape.is_finite() && shape > 0.0 { shape.clamp(SHAPE_MIN, SHAPE_MAX) } else { 1.0 };
            if !(rate_per_s.is_finite() && rate_per_s > 0.0) {
                return Err(batch.impossible(row, "rate_per_s"));
            }
            let law = match patterns.value(row) {
                "Gamma" => Law::Gamma { shape },
                "Weibull" => Law::Weibull { shape },
                _ => return Err(batch.impossible(row, "pattern")),
            };
            let model = models.iter().position(|model| model.name == names.value(row)).unwrap_or_else(|| {
                let (name, category) = (names.value(row).to_owned(), categories.value(row).to_owned());
                models.push(Model { name, category, lengths: Lengths::default() });
                models.len() - 1
            });
            windows.push(Window { start_s, model, client: clients.value(row), rate_per_s, law });
        }
    }
    Ok(())
}

/// Fits below this shape are artefacts of nearly empty windows, and their gaps no longer fit a float.
const SHAPE_MIN: f64 = 0.05;
const SHAPE_MAX: f64 = 1_000.0;

fn read_lengths(file: &Path, model: &str) -> Result<Lengths, TrafficError> {
    let mut lengths = Lengths::default();
    for batch in batches(file, &["model", "client_id", "t_s", "field", "quantiles"])? {
        let batch = batch?;
        let (names, fields) = (batch.text("model")?, batch.text("field")?);
        let (clients, starts) = (batch.int64("client_id")?, batch.int64("t_s")?);
        let quantiles = batch.float64_lists("quantiles")?;
        for row in 0..batch.rows() {
            if names.value(row) != model {
                continue;
            }
            let values = quantiles.value(row).as_primitive::<Float64Type>().values().to_vec();
            if quantiles.is_null(row) || values.len() != QUANTILES {
                return Err(batch.impossible(row, "quantiles"));
            }
            let client = lengths.by_client.entry(clients.value(row)).or_default();
            client.entry(fields.value(row).to_owned()).or_default().insert(starts.value(row), values);
        }
    }
    Ok(lengths)
}

impl Iterator for Generated {
    type Item = Result<Traced, TrafficError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            // A window of a stream that is thinned a lot can be empty.
            self.fill()?;
        }
        let (at_ns, model, client) = self.ready.pop_front()?;
        Some(Ok(self.request(at_ns, model, client)))
    }
}

impl Generated {
    /// Draws all clients' arrivals of the next window start.
    fn fill(&mut self) -> Option<()> {
        let start_s = self.windows.front()?.start_s;
        let mut arrivals = Vec::new();
        while let Some(window) = self.windows.pop_front_if(|window| window.start_s == start_s) {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            let stream = [window.client.to_le_bytes(), window.start_s.to_le_bytes()];
            let model = self.models[window.model].name.as_bytes();
            rng.set_stream(stable_hash(&[model, &stream[0], &stream[1]]));
            // Who is kept has a stream of its own, so that the arrivals are those of the whole.
            let mut kept = ChaCha8Rng::seed_from_u64(self.seed);
            kept.set_stream(stable_hash(&[model, &stream[0], &stream[1], b"kept"]));
            let mut at_s = window.first_gap_s(&mut rng);
            while at_s < WINDOW_S as f64 {
                if self.keep >= 1.0 || kept.random::<f64>() < self.keep {
                    arrivals.push((start_s * 1_000_000_000 + (at_s * 1e9) as i64, window.model, window.client));
                }
                at_s += window.gap_s(&mut rng);
            }
        }
        arrivals.sort_unstable();
        self.ready = arrivals.into();
        Some(())
    }

    fn request(&mut self, at_ns: i64, model: usize, client: i64) -> Traced {
        self.sent += 1;
        let at_s = at_ns / 1_000_000_000;
        let model = &self.models[model];
        let fields = model.lengths.of(client, &mut self.rng);
        let mut draw = |field: &str| {
            let quantiles = in_force(fields?.get(field)?, at_s)?;
            Some(interpolate(quantiles, self.rng.random::<f64>()))
        };
        let prompt = PROMPT_FIELDS.iter().filter_map(|field| draw(field)).reduce(|sum, tokens| sum + tokens);
        let completion = draw("output_tokens");
        let reasoning = draw("reason_ratio").zip(completion).map(|(ratio, output)| ratio.clamp(0.0, 1.0) * output);
        let tokens =
            |count: Option<f64>| count.map(|count| Tokens(count.round().clamp(0.0, f64::from(i32::MAX)) as i32));
        Traced {
            at_ns,
            request: Request {
                request_id: format!("servegen-{}-{:x}-{:08}", model.name, self.seed, self.sent),
                caller: Some(format!("client-{client}")),
                gateway_tags: Some(BTreeMap::from([("generated".to_owned(), "true".to_owned())])),
                router: Some("servegen".to_owned()),
                decision: Some(model.category.clone()),
                executed_model: Some(model.name.clone()),
                prompt_tokens: tokens(prompt),
                completion_tokens: tokens(completion),
                reasoning_tokens: tokens(reasoning),
                ..Request::default()
            },
        }
    }
}

impl Window {
    fn gap_s(&self, rng: &mut ChaCha8Rng) -> f64 {
        match self.law {
            Law::Gamma { shape } => gamma(rng, shape) / (shape * self.rate_per_s),
            // The inverse of the Weibull distribution at 1 - u is scale x (-ln u)^(1 / shape).
            Law::Weibull { shape } => {
                let u: f64 = 1.0 - rng.random::<f64>();
                (-u.ln()).powf(1.0 / shape) * self.weibull_scale_s(shape)
            }
        }
    }

    /// A uniform share of a length-biased gap. Length-biased, Gamma(k) is Gamma(k + 1), and a Weibull gap
    /// scale x E^(1/k) with E exponential has E from Gamma(1 + 1/k).
    fn first_gap_s(&self, rng: &mut ChaCha8Rng) -> f64 {
        let biased = match self.law {
            Law::Gamma { shape } => gamma(rng, shape + 1.0) / (shape * self.rate_per_s),
            Law::Weibull { shape } => gamma(rng, 1.0 + 1.0 / shape).powf(1.0 / shape) * self.weibull_scale_s(shape),
        };
        rng.random::<f64>() * biased
    }

    /// The mean of a Weibull law is scale x Gamma(1 + 1 / shape).
    fn weibull_scale_s(&self, shape: f64) -> f64 {
        (-ln_gamma(1.0 + 1.0 / shape)).exp() / self.rate_per_s
    }
}

fn gamma(rng: &mut ChaCha8Rng, shape: f64) -> f64 {
    Gamma::new(shape, 1.0).expect("shapes are clamped above 0").sample(rng)
}

/// Stirling's series for ln Gamma(x), x >= 1, shifted up by the recurrence to where four terms give 12 digits
/// (Abramowitz and Stegun 6.1.41).
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    let (inverse, square) = (1.0 / x, 1.0 / (x * x));
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - shift
}

/// Quantiles at 0, 0.01, ..., 0.99, 0.995, 0.999, 1.
const QUANTILES: usize = 103;

fn probability(index: usize) -> f64 {
    match index {
        0..=99 => index as f64 / 100.0,
        100 => 0.995,
        101 => 0.999,
        _ => 1.0,
    }
}

/// The value at probability `u`, linear between the published quantiles.
fn interpolate(quantiles: &[f64], u: f64) -> f64 {
    let above = (1..QUANTILES).find(|index| probability(*index) >= u).unwrap_or(QUANTILES - 1);
    let (low, high) = (probability(above - 1), probability(above));
    let share = (u - low) / (high - low);
    quantiles[above - 1] + share * (quantiles[above] - quantiles[above - 1])
}

/// The quantiles of the six hours that `at_s` lies in; the first ones before any.
fn in_force(quantiles: &Quantiles, at_s: i64) -> Option<&Vec<f64>> {
    quantiles.range(..=at_s).next_back().or_else(|| quantiles.iter().next()).map(|(_, values)| values)
}

impl Lengths {
    /// The client's quantities, or those of another client where its own were not published.
    fn of(&self, client: i64, rng: &mut ChaCha8Rng) -> Option<&BTreeMap<String, Quantiles>> {
        self.by_client.get(&client).or_else(|| {
            let lender = rng.random_range(0..self.by_client.len().max(1));
            self.by_client.values().nth(lender)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gamma(n) = (n - 1)!, and Gamma(3/2) = sqrt(pi) / 2.
    #[test]
    fn ln_gamma_agrees_with_factorials() {
        let factorials = [(1.0, 1.0), (2.0, 1.0), (5.0, 24.0), (11.0, 3_628_800.0)];
        for (x, factorial) in factorials {
            assert!((ln_gamma(x) - f64::ln(factorial)).abs() < 1e-11, "{x}");
        }
        assert!((ln_gamma(1.5) - (std::f64::consts::PI.sqrt() / 2.0).ln()).abs() < 1e-11);
    }

    /// A window's expected count is rate x width, whatever the law; the error allowed is 5 standard errors of the
    /// mean over the replicates, estimated from them.
    #[test]
    fn a_bursty_client_keeps_its_mean_rate() {
        for law in [Law::Gamma { shape: 0.2 }, Law::Weibull { shape: 0.4 }, Law::Weibull { shape: 2.0 }] {
            let window = Window { model: 0, start_s: 0, client: 0, rate_per_s: 0.5, law };
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let counts: Vec<f64> = (0..2_000)
                .map(|_| {
                    let (mut at_s, mut count) = (window.first_gap_s(&mut rng), 0.0);
                    while at_s < 600.0 {
                        count += 1.0;
                        at_s += window.gap_s(&mut rng);
                    }
                    count
                })
                .collect();
            let n = counts.len() as f64;
            let mean = counts.iter().sum::<f64>() / n;
            let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / (n - 1.0);
            let error = 5.0 * (variance / n).sqrt();
            assert!((mean - 300.0).abs() < error, "mean {mean}, allowed {error}");
        }
    }

    #[test]
    fn interpolation_meets_the_published_quantiles() {
        let quantiles: Vec<f64> = (0..QUANTILES).map(|index| (index * index) as f64).collect();
        assert_eq!(interpolate(&quantiles, 0.0), 0.0);
        assert_eq!(interpolate(&quantiles, 1.0), 10_404.0);
        assert!((interpolate(&quantiles, 0.5) - 2_500.0).abs() < 1e-9);
        assert!((interpolate(&quantiles, 0.995) - 10_000.0).abs() < 1e-9);
    }
}
