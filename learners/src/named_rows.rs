//! Choices and candidates of batches of logged rows, by the names of actions.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use weir_policy_runtime::ActionParts;

use crate::action_names::{ActionNames, ActionPart, LoggedNames, NamedChoice};
use crate::error::{LearnError, Result};
use crate::training_set::{column, number_at, texts};

/// All rows of a log, and the actions that they name.
pub(crate) struct NamedLog {
    parts: BTreeSet<ActionPart>,
    described: BTreeMap<ActionPart, BTreeSet<String>>,
    batches: Vec<NamedBatch>,
    /// Every action's place, in alphabetical order.
    pub index: BTreeMap<String, usize>,
}

/// The columns `executed_model`, `intended_model`, `propensity`, `candidates` and, where there are any, `provider` and `reasoning`.
struct NamedBatch {
    executed: ArrayRef,
    intended: ArrayRef,
    provider: Option<ArrayRef>,
    reasoning: Option<ArrayRef>,
    propensities: ArrayRef,
    candidates: ListArray,
    /// Of all rows, one after the other.
    candidate_names: ArrayRef,
    candidate_propensities: ArrayRef,
}

/// A row's choice among the actions of the index.
pub(crate) struct Chosen<'a> {
    pub names: NamedChoice<'a>,
    /// Which actions could have been chosen, where the router logs its candidates. A draw among models allows all actions of these.
    pub allowed: Option<Vec<bool>>,
    /// Probability of every action, where the router logs one for every candidate and they are about actions.
    pub distribution: Option<Vec<f64>>,
    /// Probability of the intended action, likewise.
    pub propensity: Option<f64>,
}

impl NamedLog {
    pub(crate) fn of(batches: &[RecordBatch], parts: &BTreeSet<ActionPart>) -> Result<Self> {
        let batches = batches.iter().map(NamedBatch::of).collect::<Result<Vec<_>>>()?;
        let described = parts.iter().map(|part| (*part, described(&batches, *part))).collect();
        let mut log = Self { parts: parts.clone(), described, batches, index: BTreeMap::new() };
        let mut index: BTreeMap<String, usize> = BTreeMap::new();
        let mut add = |name: &str| {
            if !index.contains_key(name) {
                index.insert(name.to_owned(), 0);
            }
        };
        for batch in &log.batches {
            for row in 0..batch.executed.len() {
                let Some(choice) = batch.choice(row, log.names()) else { continue };
                add(&choice.executed);
                choice.intended.iter().for_each(|name| add(name));
                for (name, _) in batch.candidates(row).into_iter().flatten().filter(|_| choice.is_draw_of_actions) {
                    add(&log.names().cut_name(name));
                }
            }
        }
        index.values_mut().enumerate().for_each(|(place, slot)| *slot = place);
        log.index = index;
        Ok(log)
    }

    fn names(&self) -> ActionNames<'_> {
        ActionNames { parts: &self.parts, described: &self.described }
    }

    /// The choice of a row; none where no name is logged.
    pub(crate) fn chosen(&self, batch: usize, row: usize) -> Option<Chosen<'_>> {
        let batch = &self.batches[batch];
        let names = batch.choice(row, self.names())?;
        let logged = number_at(&batch.propensities, row).filter(|_| names.is_draw_of_actions);
        let Some(candidates) = batch.candidates(row) else {
            // Others of the same action may have been drawn among, and nobody knows how often.
            let is_whole = name_at(&batch.intended, row).is_none_or(|name| self.names().cut_name(name) == name);
            return Some(Chosen { names, allowed: None, distribution: None, propensity: logged.filter(|_| is_whole) });
        };
        let mut allowed = vec![false; self.index.len()];
        if !names.is_draw_of_actions {
            let models: Vec<&str> = candidates.map(|(name, _)| ActionParts::of(name).model).collect();
            for (name, place) in &self.index {
                allowed[*place] = models.contains(&ActionParts::of(name).model);
            }
            let allowed = Some(allowed).filter(|allowed| allowed.contains(&true));
            return Some(Chosen { names, allowed, distribution: None, propensity: None });
        }
        let intended = names.intended.as_ref().and_then(|name| self.index.get(name.as_ref()).copied());
        let drawn = name_at(&batch.intended, row);
        let mut distribution = vec![0.0; self.index.len()];
        let (mut is_complete, mut others) = (true, Some(0.0));
        for (at, (name, probability)) in candidates.enumerate() {
            let Some(&action) = self.index.get(self.names().cut_name(name).as_ref()) else { continue };
            // Candidates that are one action, as asked for, add up; one that is named twice does not.
            let is_again =
                allowed[action] && batch.candidates(row).into_iter().flatten().take(at).any(|one| one.0 == name);
            allowed[action] = true;
            match probability.filter(|_| !is_again) {
                Some(probability) => distribution[action] += probability,
                None => is_complete &= is_again,
            }
            if Some(action) == intended && drawn != Some(name) && !is_again {
                others = others.zip(probability).map(|(others, own)| others + own);
            }
        }
        let any = allowed.contains(&true);
        let propensity = logged.zip(others).map(|(logged, others)| logged + others);
        Some(Chosen {
            names,
            allowed: any.then_some(allowed),
            distribution: (any && is_complete).then_some(distribution),
            propensity,
        })
    }
}

impl NamedBatch {
    fn of(batch: &RecordBatch) -> Result<Self> {
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
            executed: texts(batch, "executed_model")?,
            intended: texts(batch, "intended_model")?,
            provider: if_any("provider")?,
            reasoning: if_any("told_reasoning")?,
            propensities: column(batch, "propensity", &DataType::Float64)?,
            candidate_names: field("model", &DataType::Utf8)?,
            candidate_propensities: field("propensity", &DataType::Float64)?,
            candidates: candidates.clone(),
        })
    }

    fn logged(&self, row: usize, asks_for_parts: bool) -> Option<LoggedNames<'_>> {
        let says = |part: ActionPart| {
            let of = |name| part.of(&ActionParts::of(name)).is_some();
            asks_for_parts && self.candidates(row).is_some_and(|mut candidates| candidates.any(|(name, _)| of(name)))
        };
        Some(LoggedNames {
            executed: ActionParts::of(name_at(&self.executed, row)?),
            intended: name_at(&self.intended, row).map(ActionParts::of),
            provider: self.provider.as_ref().and_then(|column| name_at(column, row)),
            reasoning: self.reasoning.as_ref().and_then(|column| name_at(column, row)),
            of_candidates: ActionPart::ALL.map(says),
        })
    }

    fn choice(&self, row: usize, names: ActionNames<'_>) -> Option<NamedChoice<'_>> {
        let logged = self.logged(row, !names.parts.is_empty())?;
        let models = self.candidates(row).into_iter().flatten().map(|(name, _)| ActionParts::of(name).model);
        Some(names.choice(logged, models))
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
}

/// Models of which the log says with which `part` a call was made.
fn described(batches: &[NamedBatch], part: ActionPart) -> BTreeSet<String> {
    let mut models = BTreeSet::new();
    for batch in batches {
        let rows = (0..batch.executed.len()).filter_map(|row| batch.logged(row, false));
        for logged in rows.filter(|logged| logged.made_with(part).is_some()) {
            if !models.contains(logged.executed.model) {
                models.insert(logged.executed.model.to_owned());
            }
        }
    }
    models
}

/// An empty name is none.
fn name_at(column: &ArrayRef, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.as_string::<i32>().value(row)).filter(|name| !name.is_empty())
}
