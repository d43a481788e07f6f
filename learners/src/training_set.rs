//! Logged decisions as samples: from the canonical views, by one query.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::functions_nested::expr_fn::{array_has, map_extract};
use datafusion::prelude::{SessionContext, col, lit};
use datafusion::scalar::ScalarValue;
use sha2::{Digest, Sha256};
use weir_policy_runtime::{Action, OwnedContext};
use weir_store::Store;

use crate::action_names::ActionPart;
use crate::error::{LearnError, Result};
use crate::named_rows::NamedLog;

/// One logged decision.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// What was known when the model was chosen.
    pub context: OwnedContext,
    /// Index of the model that answered: its rewards teach the reward model.
    pub action: usize,
    /// The model that answered is the one that the policy chose. Where it is not (a fallback), the row teaches the
    /// reward model but takes no part in off-policy evaluation: the propensity belongs to the choice, the reward to
    /// another model.
    pub executed_as_intended: bool,
    /// Index of the model that was chosen, where the router logs it; another than `action` after a fallback.
    pub intended: Option<usize>,
    /// Logged probability of the intended model, if the router logs one.
    pub propensity: Option<f64>,
    /// The router logged none; it was [estimated](crate::estimate_propensities) from how often it chose each model.
    pub propensity_is_estimated: bool,
    /// Logged probability of every action, where the router logs its candidates' probabilities.
    pub logged_distribution: Option<Vec<f64>>,
    /// Which actions could have been chosen, where the router logs its candidates; `None` is all.
    pub allowed: Option<Vec<bool>>,
    /// Quality in [0, 1]; missing is missing.
    pub quality: Option<f64>,
    /// Cost in USD.
    pub cost_usd: Option<f64>,
    /// From arrival to the last token, seconds.
    pub latency_s: Option<f64>,
    /// 1 where a check found a hallucination, 0 where one found none; see [`Wanted::risk`].
    pub hallucination: Option<f64>,
    /// 1 where the request was blocked or called unsafe, 0 where something says that it was not; see [`Wanted::risk`].
    pub is_unsafe: Option<f64>,
    /// Energy that the router reports, watt-hours.
    pub energy_wh: Option<f64>,
    /// Completion length, tokens.
    pub completion_tokens: Option<u32>,
    /// The policy that chose, if the router logs it.
    pub policy: Option<String>,
    /// What may depend on each other: the repeats of one query of a replayed score matrix, else the session, else the
    /// request itself.
    pub cluster: String,
    /// Arrival, milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Too young for its quality to be known, and that is left out if there is one: see [`Wanted::settled_share`].
    pub is_unsettled: bool,
}

impl Sample {
    /// The model that was chosen, whatever answered.
    pub(crate) fn chosen(&self) -> Option<usize> {
        self.intended.or(self.executed_as_intended.then_some(self.action))
    }

    /// Does the log of this draw agree with itself? The candidates' probabilities sum to 1, and that of the chosen model
    /// is its propensity, both but for what rounding in a log can do. A router that logs no candidates cannot disagree.
    pub(crate) fn draw_is_consistent(&self) -> bool {
        const ROUNDED: f64 = 0.01;
        let Some(distribution) = &self.logged_distribution else { return true };
        let whole = (distribution.iter().sum::<f64>() - 1.0).abs() <= ROUNDED;
        let (Some(propensity), Some(chosen)) = (self.propensity, self.chosen()) else { return whole };
        whole && (distribution[chosen] - propensity).abs() <= ROUNDED * propensity
    }
}

/// What learners learn from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainingSet {
    /// All models that answered or could have, sorted by name.
    pub actions: Vec<Action>,
    /// Decisions in order of arrival.
    pub samples: Vec<Sample>,
    /// Versions of the tables that they were read from.
    pub tables: BTreeMap<String, i64>,
}

impl TrainingSet {
    /// A hash of everything that learning looks at: two sets with the same one teach the same.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for action in &self.actions {
            hash.update(format!("{action:?}\n"));
        }
        for sample in &self.samples {
            // Debug writes every digit of a float; embeddings go in as bytes.
            let OwnedContext { embedding, .. } = &sample.context;
            for number in embedding.iter().flatten() {
                hash.update(number.to_le_bytes());
            }
            let context = &sample.context;
            let known = (
                &context.domain,
                &context.complexity,
                &context.language,
                &context.api,
                context.prompt_tokens,
                context.turn,
            );
            let rest = (
                context.message_count,
                context.tools_offered,
                context.fact_check,
                context.multimodal,
                &context.embedding_model,
            );
            let choice = (
                sample.action,
                sample.intended,
                sample.executed_as_intended,
                sample.propensity,
                &sample.logged_distribution,
                &sample.allowed,
            );
            let outcome = (
                sample.quality,
                sample.cost_usd,
                sample.latency_s,
                sample.hallucination,
                sample.is_unsafe,
                sample.energy_wh,
            );
            hash.update(format!("{known:?}{rest:?}{choice:?}{outcome:?}{:?}{}\n", sample.cluster, sample.time_ms));
        }
        hex::encode(hash.finalize())
    }
}

const TRAINING_SET_SQL: &str = include_str!("sql/training_set.sql");

const WITH_RISK_SQL: &str = include_str!("sql/training_set_with_risk.sql");

/// What [`WITH_RISK_SQL`] calls the decisions.
const DECISIONS: &str = "decisions";

/// Which decisions to read, and what of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Wanted {
    /// Only requests whose gateway tag of that name has that value.
    pub tag: Option<(String, String)>,
    /// Also the risk of each answer, which takes the view of all outcomes.
    pub risk: bool,
    /// Only the qualities of requests so old that this share of opinions has come (view `reward_delays`), in (0, 1). What comes fast is
    /// not like what comes late: who is annoyed says so at once.
    pub settled_share: Option<f64>,
    /// What an action is beside its model.
    pub action_parts: BTreeSet<ActionPart>,
}

/// Tables whose versions name the data of a training set.
const SOURCE_TABLES: [&str; 2] = ["requests", "feedback"];

/// Reads every logged decision of the store, through the canonical views.
///
/// # Errors
/// When the store or the views cannot be read.
pub async fn training_set(store: &Store) -> Result<TrainingSet> {
    training_set_of(store, &Wanted::default()).await
}

/// The same, of what is wanted.
///
/// # Errors
/// As [`training_set`].
pub async fn training_set_of(store: &Store, wanted: &Wanted) -> Result<TrainingSet> {
    let (session, mut tables) = weir_features::session_with_versions(store)
        .await
        .map_err(|error| LearnError::Unreadable { what: "the feature views".to_owned(), why: error.to_string() })?;
    let mut set = read_training_set(&session, wanted).await?;
    // The session's own versions: rows that are committed while it is read are neither read nor named.
    tables.retain(|name, _| SOURCE_TABLES.contains(&name.as_str()));
    set.tables = tables;
    Ok(set)
}

/// Reads every logged decision that the views `requests` and `rewards` of `session` show.
///
/// # Errors
/// When the views lack a column that the query names.
pub async fn read_training_set(session: &SessionContext, wanted: &Wanted) -> Result<TrainingSet> {
    let mut rows = session.sql(TRAINING_SET_SQL).await?;
    if let Some((name, value)) = &wanted.tag {
        rows = rows.filter(array_has(map_extract(col("gateway_tags"), lit(name)), lit(value)))?;
    }
    if wanted.risk {
        session.deregister_table(DECISIONS)?;
        session.register_table(DECISIONS, rows.into_view())?;
        rows = session.sql(WITH_RISK_SQL).await?;
    }
    let batches = rows.collect().await?;
    let named = NamedLog::of(&batches, &wanted.action_parts)?;
    let embedding = common_embedding(&batches)?;
    let mut samples = Vec::new();
    for (at, batch) in batches.iter().enumerate() {
        read_batch(batch, (&named, at), embedding.as_deref(), &mut samples)?;
    }
    if let Some(share) = wanted.settled_share {
        leave_out_unsettled(session, share, &mut samples).await?;
    }
    let actions = named
        .index
        .into_keys()
        .map(|model| Action { model, input_usd_per_mtok: None, output_usd_per_mtok: None })
        .collect();
    Ok(TrainingSet { actions, samples, tables: BTreeMap::new() })
}

const SETTLED_SQL: &str = include_str!("sql/settled_after.sql");

/// Takes the qualities away from the decisions that are younger than the age at which `share` of the opinions have come.
async fn leave_out_unsettled(session: &SessionContext, share: f64, samples: &mut [Sample]) -> Result<()> {
    let asked = session.sql(SETTLED_SQL).await?.with_param_values(vec![("share", ScalarValue::from(share))])?;
    let rows = asked.collect().await?;
    let Some(row) = rows.iter().find(|batch| batch.num_rows() > 0) else { return Ok(()) };
    let (now, delay) = (column(row, "now_ms", &DataType::Int64)?, column(row, "delay_ms", &DataType::Int64)?);
    let at = |array: &ArrayRef| array.is_valid(0).then(|| array.as_primitive::<Int64Type>().value(0));
    // Without opinions nothing is left out: there is nothing to leave out.
    let Some((now_ms, delay_ms)) = at(&now).zip(at(&delay)) else { return Ok(()) };
    for sample in samples.iter_mut().filter(|sample| sample.time_ms > now_ms - delay_ms) {
        sample.is_unsettled = true;
        sample.quality = None;
    }
    Ok(())
}

/// The embedding model that most rows name: vectors of different models share no space.
fn common_embedding(batches: &[RecordBatch]) -> Result<Option<String>> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for batch in batches {
        for name in texts(batch, "embedding_model")?.as_string::<i32>().iter().flatten() {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    Ok(counts.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name))
}

fn read_batch(
    batch: &RecordBatch,
    (named, at): (&NamedLog, usize),
    embedding_model: Option<&str>,
    samples: &mut Vec<Sample>,
) -> Result<()> {
    let text = |name| texts(batch, name);
    let (cluster, domain, complexity) = (text("cluster")?, text("domain")?, text("complexity")?);
    let (language, api, vector_model) = (text("language")?, text("api")?, text("embedding_model")?);
    let policy = text("policy_version")?;
    let count = |name| column(batch, name, &DataType::Int64);
    let (time, prompt, turn) = (count("arrival_ms")?, count("prompt_tokens")?, count("turn")?);
    let (messages, tools, completion) = (count("message_count")?, count("tools_offered")?, count("completion_tokens")?);
    let flag = |name| column(batch, name, &DataType::Boolean);
    let (fact_check, multimodal) = (flag("fact_check")?, flag("multimodal")?);
    let number = |name| column(batch, name, &DataType::Float64);
    let (quality, cost) = (number("quality")?, number("cost_usd")?);
    let (latency, energy) = (number("latency_s")?, number("energy_wh")?);
    let risk = |name| batch.column_by_name(name).map(|_| number(name)).transpose();
    let (hallucination, is_unsafe) = (risk("hallucination")?, risk("is_unsafe")?);
    let vectors = lists(batch, "embedding", &DataType::Float32)?;
    let place = |name: &str| named.index.get(name).copied();

    for row in 0..batch.num_rows() {
        let Some(chosen) = named.chosen(at, row) else { continue };
        let Some(action) = place(&chosen.names.executed) else { continue };
        let embedding = (text_at(&vector_model, row).as_deref() == embedding_model && vectors.is_valid(row))
            .then(|| floats(&vectors.as_list::<i32>().value(row)))
            .transpose()?;
        let embedding_model = embedding.as_ref().and(embedding_model).map(str::to_owned);
        samples.push(Sample {
            propensity_is_estimated: false,
            context: OwnedContext {
                domain: text_at(&domain, row),
                complexity: text_at(&complexity, row),
                language: text_at(&language, row),
                api: text_at(&api, row),
                prompt_tokens: count_at(&prompt, row),
                turn: count_at(&turn, row),
                message_count: count_at(&messages, row),
                tools_offered: count_at(&tools, row),
                fact_check: flag_at(&fact_check, row),
                multimodal: flag_at(&multimodal, row),
                embedding,
                embedding_model,
                // What only sessions know is read with them, by `crate::sessions::session_trajectories`.
                ..OwnedContext::default()
            },
            action,
            executed_as_intended: chosen.names.executed_as_intended,
            intended: chosen.names.intended.as_deref().and_then(place),
            propensity: chosen.propensity,
            logged_distribution: chosen.distribution,
            allowed: chosen.allowed,
            quality: number_at(&quality, row).map(|q| q.clamp(0.0, 1.0)),
            cost_usd: number_at(&cost, row).filter(|cost| *cost >= 0.0),
            latency_s: number_at(&latency, row),
            hallucination: hallucination.as_ref().and_then(|column| number_at(column, row)),
            is_unsafe: is_unsafe.as_ref().and_then(|column| number_at(column, row)),
            energy_wh: number_at(&energy, row),
            completion_tokens: count_at(&completion, row),
            policy: text_at(&policy, row),
            cluster: text_at(&cluster, row).unwrap_or_default(),
            time_ms: time.as_primitive::<Int64Type>().value(row),
            is_unsettled: false,
        });
    }
    Ok(())
}

pub(crate) fn column(batch: &RecordBatch, name: &str, wanted: &DataType) -> Result<ArrayRef> {
    let found = batch.column_by_name(name).ok_or_else(|| LearnError::Unreadable {
        what: "the training set".to_owned(),
        why: format!("the query returned no column {name}"),
    })?;
    Ok(cast(found, wanted)?)
}

pub(crate) fn texts(batch: &RecordBatch, name: &str) -> Result<ArrayRef> {
    column(batch, name, &DataType::Utf8)
}

fn lists(batch: &RecordBatch, name: &str, item: &DataType) -> Result<ArrayRef> {
    column(batch, name, &DataType::new_list(item.clone(), true))
}

pub(crate) fn text_at(array: &ArrayRef, row: usize) -> Option<String> {
    array.is_valid(row).then(|| array.as_string::<i32>().value(row).to_owned())
}

pub(crate) fn count_at(array: &ArrayRef, row: usize) -> Option<u32> {
    array.is_valid(row).then(|| array.as_primitive::<Int64Type>().value(row)).and_then(|count| count.try_into().ok())
}

pub(crate) fn flag_at(array: &ArrayRef, row: usize) -> Option<bool> {
    array.is_valid(row).then(|| array.as_boolean().value(row))
}

pub(crate) fn number_at(array: &ArrayRef, row: usize) -> Option<f64> {
    array.is_valid(row).then(|| array.as_primitive::<Float64Type>().value(row)).filter(|number| number.is_finite())
}

fn floats(array: &ArrayRef) -> Result<Vec<f32>> {
    let numbers = cast(array, &DataType::Float32)?;
    let numbers = numbers.as_primitive::<arrow::datatypes::Float32Type>();
    Ok(numbers.iter().map(|number| number.unwrap_or(0.0)).collect())
}
