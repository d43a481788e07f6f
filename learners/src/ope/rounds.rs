//! Logged decisions as Arrow columns, from files that another system wrote.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type};

use super::Logged;
use crate::error::{LearnError, Result};

/// Decisions of a logging policy beside what a target policy would have done, one row each.
///
/// | column | | meaning |
/// |---|---|---|
/// | `reward` | needed | what followed, in any unit |
/// | `propensity` | needed | logged probability of what was chosen, in (0, 1] |
/// | `target_probability` | needed | the target policy's probability of the same choice |
/// | `q_logged`, `q_policy` | both or none | a reward model's guess for the choice, and averaged over the target's choices |
/// | `cluster` | optional | session or query; without it each row is one |
/// | `unsupported_mass` | optional | share of the target's choices that were logged with hardly any probability |
/// | `group_propensity`, `group_target_probability` | both or none | the same two probabilities of the choice's group, for MIPS |
///
/// Other columns are passed over. Rows are in the order of time.
#[derive(Debug, Clone)]
pub struct Rounds {
    pub(super) reward: Float64Array,
    pub(super) propensity: Float64Array,
    pub(super) target: Float64Array,
    pub(super) guesses: Option<[Float64Array; 2]>,
    pub(super) groups: Option<[Float64Array; 2]>,
    unsupported: Option<Float64Array>,
    pub(super) cluster: Vec<usize>,
    pub(super) clusters: usize,
}

impl Rounds {
    /// Reads the columns.
    ///
    /// # Errors
    /// [`LearnError::BadRounds`] when a column is missing, is no number, or holds a NULL or a number that is not finite.
    pub fn from_batches(batches: &[RecordBatch]) -> Result<Self> {
        let first = batches.first().ok_or_else(|| bad("there is no row"))?;
        let batch = concat_batches(&first.schema(), batches)?;
        if batch.num_rows() == 0 {
            return Err(bad("there is no row"));
        }
        let needed = |name: &str| {
            numbers(&batch, name)?.ok_or_else(|| bad(format!("there is no column `{name}`: each decision needs one")))
        };
        let pair = |one: &str, other: &str| match (numbers(&batch, one)?, numbers(&batch, other)?) {
            (Some(one), Some(other)) => Ok(Some([one, other])),
            (None, None) => Ok(None),
            _ => Err(bad(format!("one of `{one}` and `{other}` is there and the other is not: give both or none"))),
        };
        let (cluster, clusters) = clusters(&batch)?;
        let rounds = Self {
            reward: needed("reward")?,
            propensity: needed("propensity")?,
            target: needed("target_probability")?,
            guesses: pair("q_logged", "q_policy")?,
            groups: pair("group_propensity", "group_target_probability")?,
            unsupported: numbers(&batch, "unsupported_mass")?,
            cluster,
            clusters,
        };
        are_measured("reward", &rounds.reward)?;
        if let Some([logged, policy]) = &rounds.guesses {
            are_measured("q_logged", logged)?;
            are_measured("q_policy", policy)?;
        }
        // A logged probability that is none is told by the evaluation, which refuses for it.
        are_shares("target_probability", &rounds.target, 0.0)?;
        if let Some(mass) = &rounds.unsupported {
            are_shares("unsupported_mass", mass, 0.0)?;
        }
        if let Some([propensity, target]) = &rounds.groups {
            are_shares("group_propensity", propensity, f64::MIN_POSITIVE)?;
            are_shares("group_target_probability", target, 0.0)?;
        }
        Ok(rounds)
    }

    /// Decisions in the order of the rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.reward.len()
    }

    /// Never: what has no row is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reward.is_empty()
    }

    /// Is there a reward model's guess for each?
    #[must_use]
    pub fn has_guesses(&self) -> bool {
        self.guesses.is_some()
    }

    /// The same decisions one by one; guesses that are not there are 0.
    #[must_use]
    pub fn logged(&self) -> Vec<Logged> {
        let guess = |which: usize, row: usize| self.guesses.as_ref().map_or(0.0, |guesses| guesses[which].value(row));
        (0..self.len())
            .map(|row| Logged {
                propensity: self.propensity.value(row),
                reward: self.reward.value(row),
                target_probability: self.target.value(row),
                q_hat_logged: guess(0, row),
                q_hat_policy: guess(1, row),
                unsupported_mass: self.unsupported.as_ref().map(|mass| mass.value(row)),
                cluster: self.cluster[row],
            })
            .collect()
    }

    /// Smallest and largest reward.
    #[must_use]
    pub fn reward_range(&self) -> (f64, f64) {
        let values = self.reward.values();
        values
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), reward| (low.min(*reward), high.max(*reward)))
    }
}

impl From<&[Logged]> for Rounds {
    fn from(rows: &[Logged]) -> Self {
        let column = |of: fn(&Logged) -> f64| rows.iter().map(of).collect::<Float64Array>();
        let unsupported: Option<Vec<f64>> = rows.iter().map(|row| row.unsupported_mass).collect();
        Self {
            reward: column(|row| row.reward),
            propensity: column(|row| row.propensity),
            target: column(|row| row.target_probability),
            guesses: Some([column(|row| row.q_hat_logged), column(|row| row.q_hat_policy)]),
            groups: None,
            unsupported: unsupported.map(Float64Array::from),
            cluster: rows.iter().map(|row| row.cluster).collect(),
            clusters: rows.iter().map(|row| row.cluster + 1).max().unwrap_or(0),
        }
    }
}

fn bad(why: impl Into<String>) -> LearnError {
    LearnError::BadRounds(why.into())
}

fn are_shares(name: &str, column: &Float64Array, least: f64) -> Result<()> {
    match column.values().iter().position(|value| !(least..=1.0).contains(value)) {
        Some(row) => {
            let zero = if least > 0.0 { "above 0" } else { "from 0" };
            Err(bad(format!("row {} has a `{name}` of {}: a probability lies {zero} to 1", row + 1, column.value(row))))
        }
        None => Ok(()),
    }
}

/// Beyond this sums of squares are no numbers any more.
const REWARD_MAX: f64 = 1e100;

fn are_measured(name: &str, column: &Float64Array) -> Result<()> {
    match column.values().iter().position(|value| value.abs() > REWARD_MAX) {
        Some(row) => Err(bad(format!(
            "row {} has a `{name}` of {:e}, beyond the {REWARD_MAX:e} that can be reckoned with: give it in a larger unit",
            row + 1,
            column.value(row)
        ))),
        None => Ok(()),
    }
}

fn numbers(batch: &RecordBatch, name: &str) -> Result<Option<Float64Array>> {
    let Some(column) = batch.column_by_name(name) else { return Ok(None) };
    let is_number = column.data_type().is_numeric() || *column.data_type() == DataType::Boolean;
    if !is_number {
        return Err(bad(format!("column `{name}` is {}, and has to be a number", column.data_type())));
    }
    let column = cast(column, &DataType::Float64)?;
    let column = column.as_primitive::<Float64Type>().clone();
    if let Some(row) = (0..column.len()).find(|row| column.is_null(*row) || !column.value(*row).is_finite()) {
        return Err(bad(format!("row {} has no finite `{name}`: leave the row out or mend it", row + 1)));
    }
    Ok(Some(column))
}

/// Dense indices of the clusters in order of appearance, and how many there are.
fn clusters(batch: &RecordBatch) -> Result<(Vec<usize>, usize)> {
    let Some(column) = batch.column_by_name("cluster") else {
        return Ok(((0..batch.num_rows()).collect(), batch.num_rows()));
    };
    let names: ArrayRef = cast(column, &DataType::Utf8)?;
    let names = names.as_string::<i32>();
    if let Some(row) = (0..names.len()).find(|row| names.is_null(*row)) {
        return Err(bad(format!(
            "row {} has no `cluster`: name its session or query, or leave the column out",
            row + 1
        )));
    }
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let indices = names
        .iter()
        .flatten()
        .map(|name| {
            let next = seen.len();
            *seen.entry(name).or_insert(next)
        })
        .collect();
    Ok((indices, seen.len()))
}
