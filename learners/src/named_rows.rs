//! Choices and candidates of a batch of logged rows, by the names of actions.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use weir_policy_runtime::ActionParts;

use crate::action_names::{ActionNames, LoggedNames, NamedChoice};
use crate::error::{LearnError, Result};
use crate::training_set::{column, number_at, texts};

/// The columns `executed_model`, `intended_model`, `propensity`, `candidates` and, where there are any, `provider` and `reasoning`.
pub(crate) struct NamedRows<'a> {
    names: ActionNames<'a>,
    executed: ArrayRef,
    intended: ArrayRef,
    provider: Option<ArrayRef>,
    reasoning: Option<ArrayRef>,
    propensities: ArrayRef,
    candidates: &'a ListArray,
    /// Of all rows, one after the other.
    candidate_names: ArrayRef,
    candidate_propensities: ArrayRef,
}

impl<'a> NamedRows<'a> {
    pub(crate) fn of(batch: &'a RecordBatch, names: ActionNames<'a>) -> Result<Self> {
        let if_any = |name| batch.column_by_name(name).map(|_| texts(batch, name)).transpose();
        let unreadable =
            |why: &str| LearnError::Unreadable { what: "the training set".to_owned(), why: why.to_owned() };
        let candidates = batch
            .column_by_name("candidates")
            .and_then(|column| column.as_list_opt::<i32>())
            .ok_or_else(|| unreadable("candidates is not a list"))?;
        let field = |name: &str, wanted: &DataType| -> Result<ArrayRef> {
            let found = candidates.values().as_struct_opt().and_then(|fields| fields.column_by_name(name));
            Ok(cast(found.ok_or_else(|| unreadable(&format!("candidates have no {name}")))?, wanted)?)
        };
        Ok(Self {
            names,
            executed: texts(batch, "executed_model")?,
            intended: texts(batch, "intended_model")?,
            provider: if_any("provider")?,
            reasoning: if_any("reasoning")?,
            propensities: column(batch, "propensity", &DataType::Float64)?,
            candidates,
            candidate_names: field("model", &DataType::Utf8)?,
            candidate_propensities: field("propensity", &DataType::Float64)?,
        })
    }

    /// What was chosen and what answered; none where no name is logged.
    pub(crate) fn choice(&self, row: usize) -> Option<NamedChoice<'_>> {
        let has_parts = |name: &str| !ActionParts::of(name).is_model_alone();
        let with_parts = !self.names.parts.is_empty();
        Some(self.names.choice(LoggedNames {
            executed: name_at(&self.executed, row)?,
            intended: name_at(&self.intended, row),
            provider: self.provider.as_ref().and_then(|column| name_at(column, row)),
            reasoning: self.reasoning.as_ref().and_then(|column| name_at(column, row)),
            candidates_have_parts: with_parts
                && self.candidates(row).is_some_and(|mut candidates| candidates.any(|(name, _)| has_parts(name))),
        }))
    }

    /// Names of the candidates, as they are logged, and their probabilities; none where the router logs none.
    fn candidates(&self, row: usize) -> Option<impl Iterator<Item = (&str, Option<f64>)>> {
        let offsets = self.candidates.value_offsets();
        let places = offsets[row] as usize..offsets[row + 1] as usize;
        let of = |place| {
            name_at(&self.candidate_names, place).map(|name| (name, number_at(&self.candidate_propensities, place)))
        };
        self.candidates.is_valid(row).then(|| places.filter_map(of))
    }

    /// The probability of the choice, where the router logs one that is about actions as they are asked for. `distribution` is that of
    /// [`Self::candidate_set`].
    pub(crate) fn propensity(
        &self,
        row: usize,
        choice: &NamedChoice<'_>,
        distribution: Option<&Vec<f64>>,
        index: &BTreeMap<String, usize>,
    ) -> Option<f64> {
        let logged = number_at(&self.propensities, row).filter(|_| choice.is_draw_of_actions)?;
        if !choice.sums_to_model {
            return Some(logged);
        }
        let chosen = choice.intended.as_ref().and_then(|name| index.get(name.as_ref()))?;
        distribution.map(|distribution| distribution[*chosen]).filter(|p| *p > 0.0)
    }

    /// Which actions could have been chosen, and with which probabilities if all of them were logged. A draw among models allows all
    /// actions of these, and tells no probability of any.
    #[expect(clippy::type_complexity, reason = "two optional columns, taken apart at once")]
    pub(crate) fn candidate_set(
        &self,
        row: usize,
        choice: &NamedChoice<'_>,
        index: &BTreeMap<String, usize>,
    ) -> (Option<Vec<bool>>, Option<Vec<f64>>) {
        let Some(candidates) = self.candidates(row) else { return (None, None) };
        let mut allowed = vec![false; index.len()];
        if !choice.is_draw_of_actions {
            let models: Vec<&str> = candidates.map(|(name, _)| name).collect();
            for (name, place) in index {
                allowed[*place] = models.contains(&ActionParts::of(name).model);
            }
            return (allowed.contains(&true).then_some(allowed), None);
        }
        let mut distribution = vec![0.0; index.len()];
        let mut complete = true;
        for (name, probability) in candidates {
            let Some(&action) = index.get(self.names.candidate(name)) else { continue };
            allowed[action] = true;
            match probability {
                // Actions of one model, where models are all that is asked for.
                Some(probability) => distribution[action] += probability,
                None => complete = false,
            }
        }
        let any = allowed.contains(&true);
        (any.then_some(allowed), (any && complete).then_some(distribution))
    }
}

/// Every action named anywhere, with its index in alphabetical order.
pub(crate) fn action_index(batches: &[RecordBatch], names: ActionNames<'_>) -> Result<BTreeMap<String, usize>> {
    let mut index: BTreeMap<String, usize> = BTreeMap::new();
    let mut add = |name: &str| {
        if !index.contains_key(name) {
            index.insert(name.to_owned(), 0);
        }
    };
    for batch in batches {
        let rows = NamedRows::of(batch, names)?;
        for row in 0..batch.num_rows() {
            let Some(choice) = rows.choice(row) else { continue };
            add(&choice.executed);
            choice.intended.iter().for_each(|name| add(name));
            if choice.is_draw_of_actions {
                rows.candidates(row).into_iter().flatten().for_each(|(name, _)| add(names.candidate(name)));
            }
        }
    }
    index.values_mut().enumerate().for_each(|(place, slot)| *slot = place);
    Ok(index)
}

/// An empty name is none.
fn name_at(column: &ArrayRef, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.as_string::<i32>().value(row)).filter(|name| !name.is_empty())
}
