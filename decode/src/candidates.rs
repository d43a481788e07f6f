//! Do the candidates' propensities make one distribution, and does the logged propensity come from it?

use arrow::array::{Array, AsArray, Float64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;
use weir_schemas::Bounds;

use crate::Reason;

/// How far a sum or a copy may be off when somebody computed it in single precision.
const TOLERANCE: f64 = 1e-5;

/// Rows whose candidates contradict themselves or the row's propensity, each with its reason. Unset propensities are
/// no contradiction.
pub(crate) fn broken(batch: &RecordBatch) -> Vec<(usize, Reason)> {
    let judged = Candidates::of(batch).map(|candidates| {
        let contradiction = |row| Some((row, Reason::CandidatePropensity { why: candidates.contradiction(row)? }));
        (0..batch.num_rows()).filter_map(contradiction).collect()
    });
    judged.unwrap_or_default()
}

/// The columns of a batch that tell of the choice, candidates of all rows end to end.
struct Candidates<'a> {
    lists: &'a ListArray,
    models: &'a StringArray,
    propensities: &'a Float64Array,
    intended_model: Option<&'a StringArray>,
    propensity: Option<&'a Float64Array>,
    share: Bounds,
}

impl<'a> Candidates<'a> {
    /// `None` when no candidate of the batch has a propensity.
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let lists = batch.column_by_name("candidates")?.as_list_opt::<i32>()?;
        let all = lists.values().as_struct_opt()?;
        let propensities = all.column_by_name("propensity")?.as_primitive_opt::<Float64Type>()?;
        if propensities.null_count() == propensities.len() {
            return None;
        }
        Some(Self {
            lists,
            models: all.column_by_name("model")?.as_string_opt::<i32>()?,
            propensities,
            intended_model: batch.column_by_name("intended_model").and_then(|column| column.as_string_opt()),
            propensity: batch.column_by_name("propensity").and_then(|column| column.as_primitive_opt()),
            share: Bounds::of_unit("0..1")?,
        })
    }

    fn contradiction(&self, row: usize) -> Option<&'static str> {
        if self.lists.is_null(row) {
            return None;
        }
        let of_row = self.lists.value_offsets()[row] as usize..self.lists.value_offsets()[row + 1] as usize;
        let given = of_row.clone().filter(|at| self.propensities.is_valid(*at)).map(|at| self.propensities.value(at));
        let mut sum = 0.0;
        for one in given {
            if !self.share.allow(one) {
                return Some("a candidate's propensity is not within 0..1");
            }
            sum += one;
        }
        if sum > 1.0 + TOLERANCE {
            return Some("the candidates' propensities add up to more than 1");
        }
        let propensity = self.propensity.filter(|all| all.is_valid(row))?.value(row);
        let intended = self.intended_model.filter(|all| all.is_valid(row))?.value(row);
        let mut models = of_row.filter(|at| self.models.is_valid(*at));
        let chosen = models.find(|at| self.models.value(*at) == intended)?;
        let differs =
            self.propensities.is_valid(chosen) && (self.propensities.value(chosen) - propensity).abs() > TOLERANCE;
        differs.then_some("propensity is not the one that the candidates give the intended model")
    }
}
